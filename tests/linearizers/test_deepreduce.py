"""DeepReDuce: the paper's stage configurations by count, its search against a table worked out by hand."""

import importlib
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import nn

from linfair import gates
from linfair.data import GroupedData, load_data
from linfair.ensemble import Ensemble
from linfair.gates import install
from linfair.linearizers import DeepReDuce, LinearizedModel, deepreduce
from linfair.linearizers.configurations import stages
from linfair.linearizers.deepreduce import Configuration, _Search
from linfair.models import build
from linfair.training import Distill, Schedule, correctness, fit

IMAGE = (3, 32, 32)
BRIEF = Schedule(epochs=1, batch_size=64, lr=0.02, momentum=0.9)
SEED = 3


@pytest.fixture(scope="module")
def resnet18() -> nn.Module:
    """The full network with gates, untrained."""
    return install(build("resnet18", IMAGE, 10), IMAGE)


@pytest.fixture(scope="module")
def small(digits: GroupedData) -> GroupedData:
    """64 training images, no shifts."""
    part = digits.splits["train"]
    cut = replace(part, x=part.x[:64], y=part.y[:64], a=part.a[:64])
    return replace(digits, splits=digits.splits | {"train": cut}, shift=0)


@pytest.fixture(scope="module")
def network(small: GroupedData) -> nn.Module:
    """A ResNet18 of width 2 on the digits, untrained: 1,152 + 576 + 288 + 256 units."""
    return build("resnet18", small.input_shape, 10, width=2).eval()


# Configurations


@pytest.mark.parametrize(
    ("culled", "kept"),
    [
        ("", 491_520),
        ("1", 229_376),
        ("2,3", 294_912),
        ("1,4", 196_608),
        ("1,3", 163_840),
        ("1,3,4", 131_072),
        ("1,2", 98_304),
        ("1,2,4", 65_536),
        ("1,2,3", 32_768),
        ("1,2,3,4", 0),
    ],
)
def test_configurations_of_resnet18_keep_the_counts_of_the_literature_and_thinning_halves_them(
    culled: str, kept: int, resnet18: nn.Module
) -> None:
    """Counts by stage at 32x32: 262,144 / 131,072 / 65,536 / 32,768."""
    assert Configuration.parse(culled).count(resnet18) == kept
    assert Configuration.parse(f"{culled}+thin").count(resnet18) == kept // 2


def test_the_least_that_is_kept_is_16384_units(resnet18: nn.Module) -> None:
    """Over all configurations that keep any ReLU."""
    counts = {
        Configuration(tuple(n for n in range(1, 5) if culled >> n & 1), thinned).count(resnet18)
        for culled in range(0, 32, 2)
        for thinned in (False, True)
    }
    assert min(counts - {0}) == 16_384


def test_units_are_whole_layers_and_thinning_takes_the_second_relu_of_each_block(resnet18: nn.Module) -> None:
    units = Configuration.parse("1,3+thin").units(resnet18)
    assert set(units) == set(gates.sites(resnet18))
    kept = {site for site, unit in units.items() if unit.all()}
    assert all(unit.all() or not unit.any() for unit in units.values())
    assert kept == {f"stages.{stage}.{block}.relu1" for stage in (1, 3) for block in (0, 1)}


@pytest.mark.parametrize("text", ["", "1", "1,4", "1,4+thin", "+thin", "2,3,4"])
def test_a_configuration_reads_as_it_is_written(text: str) -> None:
    assert str(Configuration.parse(text)) == text


def test_order_repetition_and_spaces_do_not_matter() -> None:
    assert Configuration.parse(" 4, 1,1 + thin") == Configuration((1, 4), True)


@pytest.mark.parametrize("text", ["1;4", "one", "1,,4", ",", "0", "-1", "1.5", "1+thick", "1+thin+thin", "1+", "thin"])
def test_what_is_no_configuration_is_quoted(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        Configuration.parse(text)


def test_a_stage_that_is_not_there_is_an_error_before_anything_is_trained(
    network: nn.Module, small: GroupedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("linfair.linearizers.deepreduce"), "fit", None)
    options = DeepReDuce(configurations=("1", "1,5"), schedule=BRIEF)
    with pytest.raises(ValueError, match="this network has 4 stages, configuration 1,5 culls another"):
        deepreduce(network, small, (0.5,), seeds=[SEED], options=options, progress=False)


# The search, on a table of accuracies instead of training


class Fake(_Search):
    """A search whose validation accuracies come from a table: one for each member, by configurations."""

    def __init__(self, network: nn.Module, data: GroupedData, table: dict[str, Sequence[float]], members: int = 1):
        teacher = network if members == 1 else Ensemble([network] * members)
        sets = data if members == 1 else [data] * members
        super().__init__(teacher, sets, range(members), DeepReDuce(schedule=BRIEF), False)
        self.table, self.asked = table, []

    def train(self, chosen: Sequence[Configuration]) -> list[float]:
        """Look the accuracies up."""
        self.asked.append([str(one) for one in chosen])
        return [self.table[str(one)][member] for member, one in enumerate(chosen)]


NONE, ONLY = "1,2,3,4", ["2,3,4", "1,3,4", "1,2,4", "1,2,3"]
UNITS = [1152, 576, 288, 256]
NAMES = ["+thin", "4", "4+thin", "1,4", "1,4+thin", "1,3,4", "1,3,4+thin"]
"""Candidates when the order from least to most critical is 4, 1, 3, 2."""


def test_criticality_is_the_papers_formula_worked_out_by_hand(network: nn.Module, small: GroupedData) -> None:
    """C_k = (accuracy with stage k only - with none) / units_k^0.07; order from least to most critical."""
    table = {NONE: [0.2], **dict(zip(ONLY, ([0.30], [0.50], [0.40], [0.28]), strict=True))}
    search = Fake(network, small, table)
    assert [sum(gate.numel() for gate in stage) for stage in by_stage(search.one)] == UNITS
    order = search.order()
    assert search.asked == [[NONE], *[[only] for only in ONLY]]
    (row,) = search.history
    expected = {1: 0.10 / 1152**0.07, 2: 0.30 / 576**0.07, 3: 0.20 / 288**0.07, 4: 0.08 / 256**0.07}
    assert {stage: values[0] for stage, values in row["criticality"].items()} == pytest.approx(expected)
    assert order == [[4, 1, 3, 2]]


def test_the_units_of_a_stage_weigh_in_its_criticality(network: nn.Module, small: GroupedData) -> None:
    """Stage 1 gains 0.300, stage 4 0.290, but 0.300 / 1152^0.07 = 0.183 is less than 0.290 / 256^0.07 = 0.197."""
    table = {NONE: [0.1], **dict(zip(ONLY, ([0.4], [0.9], [0.9], [0.39]), strict=True))}
    search = Fake(network, small, table)
    assert search.order()[0][:2] == [1, 4]
    found = search.history[0]["criticality"]
    assert [found[1][0], found[4][0]] == pytest.approx([0.183, 0.197], abs=5e-4)


def test_each_member_of_an_ensemble_has_its_own_order(network: nn.Module, small: GroupedData) -> None:
    table = {NONE: [0.1, 0.1], **dict(zip(ONLY, ([0.2, 0.8], [0.4, 0.6], [0.6, 0.4], [0.8, 0.2]), strict=True))}
    assert Fake(network, small, table, members=2).order() == [[1, 2, 3, 4], [4, 3, 2, 1]]


def by_stage(gated: nn.Module) -> list[list[torch.Tensor]]:
    return [[gates.sites(gated)[site].alpha for site in stage] for stage in stages(gated)]


def test_candidates_cull_the_least_critical_stages_first(network: nn.Module, small: GroupedData) -> None:
    """Order 4, 1, 3, 2: nothing, 4, 4 and 1, all but stage 2; each also thinned, the original itself not."""
    table = {NONE: [0.2], **dict(zip(ONLY, ([0.30], [0.50], [0.40], [0.28]), strict=True))}
    (found,) = Fake(network, small, table).candidates()
    assert [str(one) for one in found] == NAMES


@pytest.mark.parametrize(
    ("accuracies", "front"),
    [
        # more units, always better: nothing is dominated
        ([0.90, 0.95, 0.88, 0.85, 0.60, 0.70, 0.50], NAMES),
        # "4" (2016 units) is no better than "+thin" (1136); "1,4" (864) is beaten by "1,3,4" (576)
        ([0.90, 0.90, 0.85, 0.70, 0.60, 0.75, 0.50], ["+thin", "4+thin", "1,3,4", "1,4+thin", "1,3,4+thin"]),
        # the smallest is the best: it alone
        ([0.80, 0.80, 0.80, 0.80, 0.80, 0.80, 0.80], ["1,3,4+thin"]),
    ],
)
def test_the_pareto_front_is_the_one_found_by_hand(
    accuracies: list[float], front: list[str], network: nn.Module, small: GroupedData
) -> None:
    """Units of the candidates: 1136, 2016, 1008, 864, 432, 576, 288."""
    search = Fake(network, small, {})
    candidates = [Configuration.parse(name) for name in NAMES]
    assert [search.count(one) for one in candidates] == [1136, 2016, 1008, 864, 432, 576, 288]
    assert {str(one) for one in search.pareto(candidates, accuracies)} == set(front)


# Whole runs


def chosen(records: list[LinearizedModel], network: nn.Module) -> list[str]:
    """The configuration of each record, read off its mask."""
    gated = install(network, (1, 12, 12))
    every = [
        Configuration(tuple(n for n in range(1, 5) if culled >> n & 1), thinned)
        for culled in range(0, 32, 2)
        for thinned in (False, True)
    ]
    found = []
    for one in records:
        masks = {str(c): c.units(gated) for c in every}
        names = [n for n, m in masks.items() if all(torch.equal(m[s], u) for s, u in one.mask.units.items())]
        found.append(names[0])
    return found


@pytest.fixture(scope="module")
def searched(network: nn.Module, small: GroupedData) -> list[LinearizedModel]:
    """A search with one epoch a configuration, at four budgets."""
    return deepreduce(
        network, small, (0.9, 0.5, 0.25, 0.02), seeds=[SEED], options=DeepReDuce(schedule=BRIEF), progress=False
    )


def test_a_budget_takes_the_nearest_of_the_given_configurations(network: nn.Module, small: GroupedData) -> None:
    """2,272 units; 0.8, 0.4, 0.3, 0.01 are 1818, 909, 682, 23; 720 lies between 864 and 576, nearer to the smaller."""
    options = DeepReDuce(configurations=("4", "1,4", "1,3,4", "1,3,4+thin"), schedule=BRIEF)
    budgets = (0.8, 0.4, 0.3, 0.01)
    records = deepreduce(network, small, budgets, seeds=[SEED], options=options, progress=False)
    assert [one.budget_units for one in records] == [1818, 909, 682, 23]
    assert [one.kept for one in records] == [(2016,), (864,), (576,), (288,)]
    assert chosen(records, network) == ["4", "1,4", "1,3,4", "1,3,4+thin"]
    assert len(records[0].history) == 4


def test_of_two_equally_near_configurations_the_smaller_is_taken(network: nn.Module, small: GroupedData) -> None:
    """864 and 576 are both 144 from 720."""
    options = DeepReDuce(configurations=("1,4", "1,3,4"), schedule=BRIEF)
    (one,) = deepreduce(network, small, (720 / 2272,), seeds=[SEED], options=options, progress=False)
    assert one.budget_units == 720
    assert one.kept == (576,)


def test_the_search_chooses_from_the_front_of_its_own_history(
    searched: list[LinearizedModel], network: nn.Module
) -> None:
    """The front and the nearest count are worked out again from the rows of the history."""
    rows = [row for row in searched[0].history if "configuration" in row]
    candidates = {row["configuration"][0]: (row["kept"][0], row["val_accuracy"][0]) for row in rows[5:]}
    assert [row["configuration"][0] for row in rows[:5]] == [NONE, *ONLY]
    (criticality,) = [row["criticality"] for row in searched[0].history if "criticality" in row]
    order = sorted(criticality, key=lambda stage: criticality[stage][0])
    everything = {",".join(map(str, sorted(order[:n]))) + thin for n in range(4) for thin in ("", "+thin")} - {""}
    trained_before = everything & {row["configuration"][0] for row in rows[:5]}
    assert set(candidates) | trained_before == everything
    for row in rows[:5]:
        if row["configuration"][0] in trained_before:
            candidates[row["configuration"][0]] = row["kept"][0], row["val_accuracy"][0]
    front = {
        name: kept
        for name, (kept, accuracy) in candidates.items()
        if not any(k <= kept and a >= accuracy and (k, a) != (kept, accuracy) for k, a in candidates.values())
    }
    for one, name in zip(searched, chosen(searched, network), strict=True):
        nearest = min(abs(kept - one.budget_units) for kept in front.values())
        assert name in front
        assert abs(one.kept[0] - one.budget_units) == nearest


def test_a_record_is_the_network_that_was_trained_under_its_mask(
    searched: list[LinearizedModel], network: nn.Module, small: GroupedData
) -> None:
    """Trained again by `fit` alone: frozen gates at the configuration, distilled with the paper's weights."""
    for one in searched[:2]:
        gated = gates.freeze(install(network, small.input_shape))
        gates.set_alphas(gated, lambda site, _, one=one: one.mask.units[site].float()[None])
        objective = Distill(network, small, temperature=4.0, ce=0.1, kd=0.9)
        fit(gated, small, objective, BRIEF, seeds=[SEED], stage="masks", progress=False)
        state = gated.state_dict()
        assert all(torch.allclose(value, state[key], atol=1e-6) for key, value in one.model.state_dict().items())
        accuracy = correctness(gated, small, "val").mean().item()
        name = chosen([one], network)[0]
        rows = {row["configuration"][0]: row for row in one.history if "configuration" in row}
        assert rows[name]["val_accuracy"] == pytest.approx([accuracy])


def test_records_are_binary_frozen_and_share_nothing(searched: list[LinearizedModel]) -> None:
    for one in searched:
        assert one.epochs == (1,)
        assert one.kept == (int(gates.kept_units(one.model)),)
        for gate in gates.sites(one.model).values():
            assert not gate.alpha.requires_grad
            assert ((gate.alpha == 0) | (gate.alpha == 1)).all()
    pointers = [p.data_ptr() for one in searched for p in one.model.parameters()]
    assert len(set(pointers)) == len(pointers)


def test_the_same_seed_finds_the_same_and_the_teacher_is_left(
    searched: list[LinearizedModel], network: nn.Module, small: GroupedData
) -> None:
    before = {name: value.numpy().tobytes() for name, value in network.state_dict().items()}
    torch.manual_seed(99)
    again = deepreduce(
        network, small, (0.9, 0.5, 0.25, 0.02), seeds=[SEED], options=DeepReDuce(schedule=BRIEF), progress=False
    )
    assert {name: value.numpy().tobytes() for name, value in network.state_dict().items()} == before
    assert again[0].history == searched[0].history
    for one, other in zip(again, searched, strict=True):
        ours, theirs = one.model.state_dict(), other.model.state_dict()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_members_of_an_ensemble_may_take_different_configurations() -> None:
    """Their accuracies decide; every record's counts are its masks', each a configuration of the mlp: 9 or 18 of 18."""
    sets = [load_data("digits", seed=seed) for seed in (5, 6)]
    ensemble = Ensemble([build("mlp", sets[0].input_shape, 10, width=9, seed=seed).eval() for seed in (0, 1)])
    options = DeepReDuce(schedule=replace(BRIEF, lr=0.1))
    (one,) = deepreduce(ensemble, sets, (0.4,), seeds=[5, 6], options=options, progress=False)
    assert one.kept == tuple(mask.kept for mask in one.masks) == (9, 9)
    assert one.kept == tuple(gates.kept_units(one.model).tolist())
    criticality = next(row["criticality"] for row in one.history if "criticality" in row)
    for member, mask in enumerate(one.masks):
        least = min(criticality, key=lambda stage: criticality[stage][member])
        assert mask.per_site == {"2": 9 * (least != 1), "4": 9 * (least != 2)}
        alone = deepreduce(
            ensemble.member(member), sets[member], (0.4,), seeds=[5 + member], options=options, progress=False
        )
        assert alone[0].mask.jaccard(mask) == 1.0
