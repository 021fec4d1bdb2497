"""torch.compile: the same numbers as without, up to rounding."""

import copy
import shutil
from dataclasses import replace

import pytest
import torch
from torch import nn

from linfair import build, fit, gates, load_data
from linfair.ensemble import Ensemble
from linfair.linearizers import SNL, snl
from linfair.training import Schedule, supervised

SCHEDULE = Schedule(epochs=2, lr=0.01, batch_size=100)
PLAIN = (
    torch.backends.cpu.get_cpu_capability() == "DEFAULT"
)  # there torch's compiler writes code without its own headers
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None or PLAIN, reason="torch.compile on the CPU needs g++ and vector instructions"
)


class Shared(nn.Module):
    """One ReLU, called twice: two sites whose turn is kept in a Python counter."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.relu = nn.Linear(6, 5), nn.Linear(5, 5), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run it."""
        return self.relu(self.two(self.relu(self.one(x))))


def test_a_compiled_network_with_a_shared_relu_equals_the_eager_one_twice_in_a_row() -> None:
    torch._dynamo.reset()
    gated = gates.install(Shared(), (6,))
    generator = torch.Generator().manual_seed(0)
    gates.set_alphas(gated, lambda _, alpha: torch.rand(alpha.shape, generator=generator))
    compiled = torch.compile(gated, backend="aot_eager")
    for batch in (4, 7):
        x = torch.randn(batch, 6, generator=generator)
        torch.testing.assert_close(compiled(x), gated(x))


def test_a_compiled_network_with_functional_relus_equals_the_eager_one() -> None:
    class Functional(Shared):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(super().forward(x) - 0.1)

    torch._dynamo.reset()
    gated = gates.install(Functional(), (6,))
    generator = torch.Generator().manual_seed(0)
    gates.set_alphas(gated, lambda _, alpha: torch.rand(alpha.shape, generator=generator))
    compiled, x = torch.compile(gated, backend="aot_eager"), torch.randn(4, 6, generator=generator)
    torch.testing.assert_close(compiled(x), gated(x))
    torch.testing.assert_close(compiled(x[:3]), gated(x[:3]))


@pytest.mark.slow
@needs_compiler
def test_compiled_training_equals_eager_training_up_to_rounding() -> None:
    """Base training of an ensemble and SNL's mask phase of a network, epoch by epoch."""
    torch._dynamo.reset()
    sets = [load_data("digits", seed=seed) for seed in (0, 1)]
    networks = [build("mlp", sets[0].input_shape, 10, width=16, seed=seed) for seed in (0, 1)]
    histories = []
    for compile in (False, True):
        model = Ensemble(networks)
        schedule = replace(SCHEDULE, compile=compile)
        histories.append(fit(model, sets, supervised, schedule, seeds=[0, 1], stage="base", progress=False))
    for eager, compiled in zip(*histories, strict=True):
        assert compiled["loss"] == pytest.approx(eager["loss"], rel=1e-4)

    paths = []
    for compile in (False, True):
        phase = Schedule(epochs=40, batch_size=100, optimizer="adam", lr=1e-3, alpha_lr=9e-3, compile=compile)
        options = SNL(lasso=1e-2, growth=1.5, warmup=0, check_every=1, exact=True, schedule=phase)
        (one,) = snl(copy.deepcopy(networks[0]), sets[0], [0.5], seeds=[0], options=options, progress=False)
        paths.append(one)
    assert paths[1].epochs == paths[0].epochs
    assert paths[1].mask.jaccard(paths[0].mask) > 0.9
