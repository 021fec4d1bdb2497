"""Networks that few people write, and that every method must take: counts and scores are known without running it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from linfair import gates
from linfair.audit import diagnose
from linfair.checkpoints import Header, save_network
from linfair.cost import operations
from linfair.data import GroupedData, Split
from linfair.engine.stages import Stages
from linfair.engine.store import ResultStore
from linfair.inference.export import as_computed
from linfair.linearizers import SNL, finetune, linearize, oneshot, snl
from linfair.linearizers.oneshot import OneShot
from linfair.linearizers.registry import find
from linfair.metrics import group_gradient_norms
from linfair.metrics.measure import Original, measure
from linfair.models import build
from linfair.pruners import Iterative, Pruning, prune_snip
from linfair.pruners.oneshot import snip_scores
from linfair.training import Schedule, fit, predict
from linfair.weights import install, plain

SHORT = Schedule(epochs=2, batch_size=16, lr=0.01)


def points(n: int = 40) -> GroupedData:
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(0))
    part = Split(x, (x[:, 0] > 0).long(), torch.arange(n) % 2)
    return GroupedData("points", dict.fromkeys(("train", "val", "test"), part), ("no", "yes"), ("even", "odd"))


class Gated(nn.Module):
    """Three units, scaled by a ReLU that has one number for each input: 4 units in two sites."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu, self.scale, self.last = nn.Linear(4, 3), nn.ReLU(), nn.ReLU(), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Scale the units."""
        h = self.first(x)
        return self.last(self.relu(h) * self.scale(h.sum(1))[:, None])


class Aside(nn.Module):
    """Six units, called by keyword, and six more that, with the weights of a second head, do not reach the scores."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu, self.last = nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)
        self.other, self.aside = nn.ReLU(), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Compute both, and answer with one."""
        h = self.relu(input=self.first(x))
        self.other(h - 1)
        return self.last(h)


def made(kind: type[nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind()


def test_a_site_of_one_unit_an_input_is_counted_and_linearized() -> None:
    network = gates.install(made(Gated), (4,))
    assert gates.kept_units(network).tolist() == [4]
    gates.set_alphas(network, lambda site, alpha: torch.full_like(alpha, site == "relu"))
    assert gates.kept_units(network).tolist() == [3]
    options = SNL(lasso=0.1, warmup=0, schedule=Schedule(epochs=300, batch_size=16, optimizer="adam", alpha_lr=9e-3))
    one, none = snl(made(Gated), points(), (0.5, 0.0), seeds=[0], options=options, progress=False)
    assert one.kept[0] <= 2 and none.kept == (0,)


def test_units_that_do_not_reach_the_scores_lose_nothing() -> None:
    """They have a SNIP score of exactly 0, and |relu(x) - x| whatever becomes of it."""
    network, data = gates.install(made(Aside), (4,)).eval(), points()
    scores = oneshot.snip_scores(network, data, 0, OneShot())
    assert (scores["other"] == 0).all() and (scores["relu"] > 0).any()
    h = made(Aside).first(data.splits["train"].x)
    found = oneshot.negative_part_scores(network, data, 0, OneShot())
    torch.testing.assert_close(found["relu"].float(), h.clamp(max=0).neg().mean(0))
    torch.testing.assert_close(found["other"].float(), (h.relu() - 1).clamp(max=0).neg().mean(0))
    weights = snip_scores(install(made(Aside)).eval(), data, 0, Pruning())
    assert (weights["aside.weight"] == 0).all() and (weights["last.weight"] > 0).any()


def test_frozen_weights_are_pruned_by_the_scores_that_they_have_when_trained_and_stay_frozen() -> None:
    network, frozen = build("mlp", (4,), 2, width=5), build("mlp", (4,), 2, width=5)
    next(frozen.parameters()).requires_grad_(False)
    wanted, found = (prune_snip(one, points(), [0.5], seeds=[0], progress=False)[0] for one in (network, frozen))
    assert found.mask.jaccard(wanted.mask) == 1
    assert [one.requires_grad for one in found.model.parameters()].count(False) == 1


@pytest.mark.parametrize("budgets", [(1.0, 0.5), (1.0,), (0.5, 0.0), (0.0,)])
def test_rounds_begin_at_all_weights_and_end_at_none(budgets: tuple[float, ...]) -> None:
    """The mlp has 4 x 5 + 5 x 5 + 5 x 2 weights; of 0.5 alone the networks are the same."""
    model, data = build("mlp", (4,), 2, width=5), points()
    options = Iterative(rate=0.5, epochs=1, schedule=replace(SHORT, epochs=20))
    how = {"seeds": [0], "options": options, "progress": False}
    records = find("prune_iterative").run(model, data, budgets, **how)
    assert [one.kept for one in records] == [(round(budget * 55),) for budget in budgets]
    if 1.0 in budgets:
        whole = plain(records[0].model).state_dict()
        assert all(torch.equal(whole[name], value) for name, value in model.state_dict().items())
    if 0.5 in budgets:
        alone = find("prune_iterative").run(model, data, (0.5,), **how)[0]
        one = records[budgets.index(0.5)]
        assert one.mask.jaccard(alone.mask) == 1 and one.steps == alone.steps
    tuned = linearize(model, data, budgets=budgets, method="prune_iterative", finetuning=SHORT, **how)
    assert [one.kept for one in tuned] == [one.kept for one in records]


@pytest.mark.parametrize("kind", [Gated, Aside])
def test_an_engine_computes_what_the_network_does(kind: type[nn.Module]) -> None:
    data = points()
    (one,) = find("random").run(made(kind), data, (0.5,), seeds=[0], progress=False)
    x, network = data.splits["train"].x, one.model.eval()
    for execution in ("gather", "multiply"):
        torch.testing.assert_close(as_computed(network, execution)[0](x), network(x))
        assert sum(part.scalars for part in operations(network, (4,)) if part.kind == "ReLU") == one.kept[0]
    with pytest.raises(ValueError, match="no execution 'gathered'; there are gather"):
        operations(network, (4,), execution="gathered")


class Tied(nn.Module):
    """Two layers share their weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last, self.relu = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2), nn.ReLU()
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        """One ReLU after both."""
        return self.last(self.relu(self.second(self.relu(self.first(x)))))


@pytest.mark.parametrize(("method", "kept"), [("random", 4), ("prune_magnitude", 12)])
def test_weights_that_layers_share_are_kept_and_read(method: str, kept: int, tmp_path: Path) -> None:
    """Of 8 ReLUs, and of 16 + 8 weights, half; what is read is what was computed."""
    found, model, x = [], made(Tied), points().splits["train"].x
    for _ in range(2):
        stages = Stages(points(), [0], ResultStore(tmp_path), progress=False)
        path = stages.path(teacher := stages.given(model), method, (0.5,))
        found.append(stages.student(teacher, path.records[0], SHORT))
    first, again = (one.record.model.eval() for one in found)
    assert [one.read for one in found] == [False, True] and found[1].record.kept == (kept,)
    assert torch.equal(first(x), again(x)) and not torch.equal(first(x), model(x))
    header = Header("mine.py:build", 0, (4,), 2, "folder:images", 0)
    stored = load_file(save_network(tmp_path / "w.safetensors", again, header))
    assert torch.equal(stored["first.weight"], stored["second.weight"])


def test_a_network_without_relus_is_pruned_measured_and_diagnosed() -> None:
    model, data = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 2)), points()
    (one,) = find("prune_magnitude").run(model, data, [0.5], seeds=[0], progress=False)
    table = measure(one.model, data, split="test", original=Original(model, data))
    norms = [row.norm for row in group_gradient_norms(one.model, data, "test")]
    assert table["gradient_norm"].tolist() == norms and table["gradient_norm_alpha"].isna().all()
    assert set(table["kept"]) == {0} and set(table["budget"]) == {1.0}
    found = diagnose(one.model, model, data).table
    assert found["kept"].tolist() == [36, 36, 18, 18]


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16, torch.half])
def test_weights_of_another_number_format_take_images_in_it(kind: torch.dtype) -> None:
    """Images are normalised in float32. Oracle: the network on the same images by hand."""
    x = torch.randint(0, 256, (40, 1, 6, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    part = Split(x, (x[:, 0, 0, 0] > 127).long(), torch.arange(40) % 2)
    data = replace(points(), splits=dict.fromkeys(("train", "val", "test"), part), mean=(0.5,), std=(0.3,))
    layers = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2)
    model = nn.Sequential(*layers).to(kind)
    fit(model, data, schedule=SHORT, progress=False)
    logits = model.eval()(data.normalise(x).to(kind))
    assert torch.equal(predict(model, data, "test"), logits)
    right = (logits.argmax(1) == part.y).double()
    wanted = [right[part.a == group].mean().item() for group in (0, 1)]
    assert measure(model, data, split="test")["accuracy"].tolist() == pytest.approx(wanted)
    for method in (
        () if kind is torch.half else ("snl", "snip", "negative_part", "prune_snip")
    ):  # Adam's 1e-8 is 0 there
        how = {"method": method, "finetuning": SHORT, "profile": "smoke", "progress": False}
        (one,) = linearize(model, data, budgets=(0.5,), **how)
        assert one.kept[0] <= one.budget_units
        finetune(one, model, data, seeds=[0], schedule=SHORT, mitigation="lagrangian", progress=False)


def test_every_module_keeps_its_mode_and_students_are_in_evaluation_mode() -> None:
    """Frozen batch norm in a network in training mode; inputs of another size end a prediction early."""
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2))
    model[1].eval()
    measure(model, points())
    x = torch.zeros(5, 3)
    with pytest.raises(RuntimeError):
        predict(model, replace(points(), splits={"train": Split(x, x[:, 0].long(), x[:, 0].long())}), "train")
    assert [one.training for one in model] == [True, False, True, True]
    (one,) = linearize(model, points(), budgets=(0.5,), method="random", finetuning=SHORT, progress=False)
    assert not any(module.training for module in one.model.modules())


def test_batch_norm_is_re_estimated_on_batches_of_one_size() -> None:
    """Oracle: the mean over all ten points, which batches of nine and one would weigh one half each."""
    model, data = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2)), points(10)
    options = Pruning(reestimate=True, batch_size=9)
    (one,) = find("prune_magnitude").run(model, data, [1.0], seeds=[0], options=options, progress=False)
    inputs = model[0](data.splits["train"].x)
    torch.testing.assert_close(one.model[1].running_mean, inputs.mean(0))
    torch.testing.assert_close(one.model[1].running_var, (inputs[:5].var(0) + inputs[5:].var(0)) / 2)
