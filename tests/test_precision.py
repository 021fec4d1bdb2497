"""Nothing that is measured runs in TF32 or under autocast, and a process's own settings come back."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from linfair_book import propositions
from of_networks import churn_of, excess_of, margin_of, risk_of
from torch import Tensor, nn

from linfair import gates, metrics
from linfair.data import GroupedData, Split
from linfair.device import full_precision, products
from linfair.linearizers import oneshot
from linfair.linearizers.oneshot import OneShot
from linfair.metrics.measure import Original, answers, measure
from linfair.theory import excess_bound, hessian_bound, stationarity
from linfair.training import Schedule, correctness, fit, predict, supervised

Flags = tuple[object, ...]
SEEN: set[Flags] = set()
OFF: Flags = (False, False, "highest", False, "ieee", "ieee")


def flags() -> Flags:
    """What decides the precision of a product of float32 numbers."""
    backends = torch.backends
    return (
        backends.cuda.matmul.allow_tf32,
        backends.cudnn.allow_tf32,
        torch.get_float32_matmul_precision(),
        torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"),
        backends.cuda.matmul.fp32_precision,
        backends.cudnn.conv.fp32_precision,
    )


class Probe(torch.autograd.Function):
    """The identity; it notes the flags forwards, backwards, and in the derivative of that."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        """Note and copy."""
        SEEN.add(flags())
        return x.clone()

    @staticmethod
    def setup_context(*_: object) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(_context: object, gradient: Tensor) -> Tensor:
        """Note again."""
        return Probe.apply(gradient)


class Noting(nn.Module):
    """A network of one hidden layer with a probe in it."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.one, self.relu, self.two = nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Run it."""
        return self.two(self.relu(Probe.apply(self.one(x))))


def network(classes: int = 2) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Noting(classes).eval()


def some_data(shift: int = 0) -> GroupedData:
    """Two groups of eight inputs."""
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(16, 3, generator=generator), torch.arange(16) % 2
    split = Split(x, y, torch.arange(16) // 10)
    return GroupedData("probe", dict.fromkeys(("train", "val", "test"), split), ("0", "1"), ("a", "b"), shift=shift)


ENTRIES: dict[str, Callable[[nn.Module, GroupedData], object]] = {
    "predict": lambda model, data: predict(model, data, "test"),
    "correctness": lambda model, data: correctness(model, data, "test"),
    "answers": lambda model, data: answers(model, data, "test"),
    "risk_of": lambda model, data: risk_of(model, data, "test"),
    "excess_of": lambda model, data: excess_of(model, network(), data, "test"),
    "margin_of": lambda model, data: margin_of(model, data, "test"),
    "closeness_of": lambda model, data: metrics.closeness_of(model, data, "test"),
    "churn_of": lambda model, data: churn_of(model, network(), data, "test"),
    "group_gradient_norms": lambda model, data: metrics.group_gradient_norms(model, data),
    "group_gradient_norm_pairs": lambda model, data: metrics.group_gradient_norm_pairs(gated(model), data),
    "per_batch": lambda model, data: metrics.group_gradient_norms(model, data, estimator="per_batch", batch_size=4),
    "top_eigenvalues": lambda model, data: metrics.top_eigenvalues(model, data),
    "top_eigenvalue_pairs": lambda model, data: metrics.top_eigenvalue_pairs(model, data, batch_size=4),
    "measure": lambda model, data: measure(
        *(model, data, [0], 1.0, 4, [4], [0]), original=Original(model, data), curvature=("train",)
    ),
    "excess_bound": lambda model, data: excess_bound(gated(model), gated(network()), data),
    "hessian_bound": lambda model, data: hessian_bound(model, data),
    "gradient_ratio": lambda model, data: stationarity.gradient_ratio(model, data),
    "descend": lambda model, data: propositions.descend(model, data, 1),
    "settle": lambda model, data: propositions.settle(model, data, decay=0.1, iterations=2),
    "negative_part": lambda model, data: oneshot.negative_part_scores(gated(model), data, 0, OneShot()),
    "snip": lambda model, data: oneshot.snip_scores(gated(model), data, 0, OneShot()),
}


def gated(model: nn.Module) -> nn.Module:
    """With gates; what installing them computed is forgotten."""
    found = gates.install(model, (3,))
    SEEN.clear()
    return found


@pytest.fixture(params=["torch's own", "TF32 allowed", "high", "medium", "bf16 autocast"])
def loose(request: pytest.FixtureRequest) -> Iterator[Flags]:
    """A process that has asked for less than float32; its settings before come back."""
    with products(tf32=request.param == "TF32 allowed"):
        if request.param in ("high", "medium"):
            torch.set_float32_matmul_precision(request.param)
        if request.param == "torch's own":
            torch.backends.cudnn.allow_tf32 = True
        with torch.autocast("cpu", torch.bfloat16, enabled=request.param == "bf16 autocast"):
            SEEN.clear()
            yield flags()


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_measurement_computes_in_float32_and_puts_the_settings_back(entry: str, loose: Flags) -> None:
    ENTRIES[entry](network(), some_data())
    assert {OFF} == SEEN
    assert flags() == loose


@pytest.mark.parametrize("entry", ["predict", "group_gradient_norms", "top_eigenvalues"])
def test_the_settings_come_back_after_an_error(entry: str, loose: Flags, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Noting, "forward", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ENTRIES[entry](network(), some_data())
    assert flags() == loose


@pytest.mark.parametrize("set_it", ["everywhere", "for products", "for convolutions"])
def test_settings_made_by_operation_come_back_too(set_it: str) -> None:
    """Torch's newer names; its older ones cannot be read then."""
    backends = torch.backends
    owner = {"everywhere": backends, "for products": backends.cuda.matmul, "for convolutions": backends.cudnn.conv}
    names = (backends, backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv)
    with products(tf32=False):
        before = owner[set_it].fp32_precision
        try:
            owner[set_it].fp32_precision = "tf32"
            asked = [one.fp32_precision for one in names]
            with full_precision():
                assert flags() == OFF
            assert [one.fp32_precision for one in names] == asked
        finally:
            owner[set_it].fp32_precision = before


@pytest.mark.parametrize("tf32", [False, True])
def test_training_uses_tf32_where_its_schedule_says_so_alone(tf32: bool, loose: Flags) -> None:
    """A measurement in the middle of it does not."""
    measured: set[Flags] = set()
    data, model = some_data(), network()

    def after_epoch(epoch: int) -> bool:
        SEEN.clear()
        predict(model, data, "val")
        measured.update(SEEN)
        SEEN.clear()
        return epoch == 1

    def after_step(step: int) -> None:
        trained.update(SEEN)

    trained: set[Flags] = set()
    schedule = replace(Schedule(epochs=2, lr=0.01), tf32=tf32)
    hooks = {"after_epoch": after_epoch, "after_step": after_step}
    fit(model, data, supervised, schedule, seeds=[0], stage="base", progress=False, **hooks)
    assert measured == {OFF}
    assert {found[:3] for found in trained} == {(True, True, "high") if tf32 else (False, False, "highest")}
    assert flags() == loose
