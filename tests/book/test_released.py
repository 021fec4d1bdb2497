"""The released code's switches: closed forms, masks and counts by hand, the committed table against its definitions."""

import io
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from linfair_book import figures, released, released_runs, tables
from linfair_book.released import switches
from linfair_book.released_lab import ACCURACY, Lab

from linfair.data import GroupedData, load_data
from linfair.mitigation import Lagrangian
from linfair.models import build
from linfair.study import ResultStore
from linfair.training import Source

SEEDS = (0, 1)


@pytest.fixture(scope="module")
def lab(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    store = ResultStore(tmp_path_factory.mktemp("store"))
    return Lab(seeds=SEEDS, profile="smoke", store=store, progress=False)


@pytest.fixture(scope="module")
def committed() -> pd.DataFrame:
    return tables.committed(released.TABLE)


def value(rows: pd.DataFrame, version: str, quantity: str, who: str = "all") -> list[float]:
    """A quantity's numbers, one for each seed."""
    chosen = (rows["version"] == version) & (rows["quantity"] == quantity) & (rows["who"] == who)
    return rows.loc[chosen].sort_values("seed")["value"].tolist()


# --- the mitigation ---


def test_a_detached_penalty_leaves_every_weight_as_it_is_and_a_real_one_does_not(lab: Lab) -> None:
    """Bitwise equality with fine-tuning that has no penalty at all."""
    found = pd.concat(released_runs.penalty(lab))
    moved = "largest change of a weight by the penalty"
    assert value(found, "released", moved) == [0.0, 0.0] and min(value(found, "paper", moved)) > 0
    plain = lab.accuracies("plain", lab.tune().model)
    assert value(found, "released", ACCURACY, "minority") == value(plain, "plain", ACCURACY, "minority")


def test_the_largest_change_of_a_weight_is_each_members_own() -> None:
    """Two members, one weight of the second moved by 3."""
    one = torch.nn.Module()
    one.weight = torch.nn.Parameter(torch.zeros(2, 4))
    other = torch.nn.Module()
    other.weight = torch.nn.Parameter(torch.tensor([[0.0] * 4, [0.0, -3.0, 1.0, 0.0]]))
    assert released_runs.largest_change(one, other, 2) == [0.0, 3.0]


def test_released_multipliers_grow_with_the_number_of_batches(lab: Lab) -> None:
    """500 images: 16 batches of 32, one of 512; the paper's multipliers know the training set alone."""
    found = pd.concat(released_runs.multipliers(lab, (32, 512)))
    ratio = {
        size: np.divide(*(value(found, version, f"last multiplier, batches of {size}") for version in of)).min()
        for of in [("released", "paper")]
        for size in (32, 512)
    }
    assert ratio[32] > 4 * ratio[512] and ratio[512] < 2


def test_majority_only_constrains_the_majority_of_each_seed_and_no_other(lab: Lab) -> None:
    objective = released_runs.MajorityOnly().start(lab.selected.model, lab.teacher.model, lab.sets)
    assert objective.constrained.tolist() == [[role == "majority" for role in one.roles] for one in lab.sets]
    assert released_runs.MajorityOnly() != Lagrangian()
    last = lab.tune(released_runs.MajorityOnly()).finetuning[-1]["multipliers"]
    for multipliers, one in zip(last, lab.sets, strict=True):
        assert [value > 0 for value in multipliers] == [role == "majority" for role in one.roles]


# --- data ---


def test_another_seeds_split_has_the_same_counts_and_shares_images_with_the_test(digits: GroupedData) -> None:
    other = released_runs.other_split(digits, 1000)
    for name in ("train", "val"):
        assert torch.equal(other.splits[name].a.bincount(minlength=10), digits.splits[name].a.bincount(minlength=10))
    assert other.splits["test_balanced"] is digits.splits["test_balanced"] and other.roles == digits.roles
    seen = released_runs.shared(digits, other)
    minority = [role == "minority" for role in digits.roles]
    rare = torch.tensor(minority)[digits.splits["test_balanced"].a].numpy()
    # 90 (10) of about 178 images a class are trained on, whichever 54 are tested: hypergeometric, within 5 deviations
    for mask, trained in ((~rare, 90), (rare, 10)):
        p = trained / 178
        assert abs(seen[mask].mean() - p) < 5 * math.sqrt(p * (1 - p) / mask.sum())
    assert not released_runs.shared(digits, digits).any(), "one seed for both: no test image was trained on"


def test_the_smaller_data_of_linearization_lie_within_those_of_base_training() -> None:
    """100 images a class: 90 of five, 30 of the others; nothing that base training was tested on."""
    natural = load_data("digits", seed=4, **released_runs.NATURAL)
    thinned = released_runs.other_split(load_data("digits", seed=4, minority_fraction=0.3), 4)
    assert released_runs.shared(thinned, natural, "train").all()
    assert not released_runs.shared(thinned, natural, "test_balanced").any()
    assert sorted(thinned.counts) == [30] * 5 + [90] * 5 and natural.counts == [100] * 10


def test_facts_are_those_of_the_counts() -> None:
    """23,705 images, 22,582 of them from 2 years on; 100 and 1,000 test images: 5 and 1.58 points at 50 %."""
    counts = tables.committed("data_counts")
    ages = released.facts(counts, "ages")
    assert value(ages, "paper", "UTKFace images used") == [22_582]
    assert value(ages, "released", "UTKFace images used") == [23_705]
    assert value(ages, "released", "groups") == [5]
    sizes = released.facts(counts, "test_size")
    error = "standard error of a CIFAR-10 minority class at 50 %"
    assert value(sizes, "released", error) == [5.0]
    assert value(sizes, "balanced", error) == pytest.approx([50 / math.sqrt(1000)])
    assert released.facts(counts, "leak").empty


# --- selection of models and masks ---


def test_the_best_test_epoch_cannot_report_less_than_any_other(lab: Lab) -> None:
    """Optimism by definition: the maximum over epochs."""
    found = pd.concat(released_runs.checkpoint(lab))
    reported = "accuracy on the test that is reported"
    best = np.array(value(found, "released", reported))
    for version in ("last", "best on validation"):
        assert (best >= np.array(value(found, version, reported)) - 1e-9).all()
    last = lab.accuracies("last", lab.tune().model, split="test")
    assert value(found, "last", reported) == pytest.approx(value(last, "last", ACCURACY), abs=1e-4)
    assert value(found, "last", "epoch") == [lab.recipe.finetune.epochs] * 2


def test_exact_budgets_keep_exactly_the_budget_and_epoch_ends_do_not_exceed_it(lab: Lab) -> None:
    found = pd.concat(released_runs.exact_budget(lab))
    exact, released_counts = (value(found, version, "ReLUs kept") for version in ("exact", "released"))
    assert exact == [100 * round(0.2 * 128) / 128] * 2 and all(
        a >= b for a, b in zip(exact, released_counts, strict=True)
    )


def test_the_start_of_weights_is_compared_with_the_labs_own_network(tmp_path: Path) -> None:
    """Its parameters' norm by hand; the released start is another network of the same shape."""
    alone = Lab("mlp", (0,), profile="smoke", store=ResultStore(tmp_path), progress=False)
    found = pd.concat(released_runs.initialisation(alone))
    [own], [other] = (value(found, one, "norm of the original's parameters") for one in ("torch", "released"))
    assert own == pytest.approx(
        math.sqrt(sum(float(p.detach().double().square().sum()) for p in alone.teacher.model.parameters()))
    )
    assert own != other
    assert value(found, "torch", ACCURACY) == value(alone.accuracies("torch", alone.tune().model), "torch", ACCURACY)


def test_updated_statistics_are_the_average_over_batches_of_what_each_layer_sees(digits: GroupedData) -> None:
    """The first layer's input does not depend on statistics: mean over batches of its batch mean, by hand."""
    network = build("resnet18", digits.input_shape, digits.classes, width=4, seed=0)
    network.stem[1].running_mean.fill_(7.0)
    updated = released_runs.update_statistics(network, digits, batch_size=100)
    source = Source(digits, "train")
    with torch.no_grad():
        seen = [network.stem[0](source.take(index).x) for index, _ in source.epoch(["statistics"], 100, augment=False)]
    means = torch.stack([one.mean(dim=(0, 2, 3)) for one in seen]).mean(0)
    assert torch.allclose(updated.stem[1].running_mean, means, atol=1e-5)
    assert updated.stem[1].momentum == network.stem[1].momentum and float(network.stem[1].running_mean[0]) == 7.0
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), updated.parameters(), strict=True))


# --- the table ---


def made(
    unit: str, old: list[float], new: list[float], quantity: str = ACCURACY, who: str = "minority"
) -> pd.DataFrame:
    lines = [
        {"version": version, "quantity": ACCURACY, "unit": unit, "who": who, "seed": seed, "value": one}
        for version, numbers in (("paper", old), ("released", new))
        for seed, one in enumerate(numbers)
    ]
    return pd.DataFrame(lines).assign(switch="penalty")


def test_effects_are_paired_differences_with_t_intervals() -> None:
    """Differences 1, 2, 3: mean 2, half width 4.303 / sqrt(3) = 2.484; the levels' own spread is in neither."""
    [row] = released.effects(made("%", [0.0, 50.0, 90.0], [1.0, 52.0, 93.0])).itertuples()
    assert (row.mean, row.low, row.high) == pytest.approx((2, 2 - 2.4841, 2 + 2.4841), abs=1e-3)
    assert row.n_seeds == 3 and row.side == "no measurable change" and released.amount(row) == "+2.0 [-0.5, 4.5] points"
    assert released.effects(made("%", [0.0, 0.0], [2.0, 2.0])).loc[0, "side"] == "up"


def test_quantities_in_times_are_compared_by_geometric_ratios() -> None:
    """Ratios 2 and 8: times 4."""
    [row] = released.effects(made("times", [1.0, 10.0], [2.0, 80.0])).itertuples()
    assert row.mean == pytest.approx(4) and row.reference == pytest.approx(math.sqrt(10))
    assert released.amount(row).startswith("times 4.00 [")


def test_seeds_without_a_number_are_left_out_with_their_partners() -> None:
    [same] = released.effects(made("%", [1.0, 4.0], [1.0, 4.0])).itertuples()
    assert released.amount(same) == "0 in every seed" and same.side == "no measurable change"
    [row] = released.effects(made("%", [1.0, math.nan, 3.0], [2.0, 5.0, 4.0])).itertuples()
    assert row.n_seeds == 2 and row.mean == 1 and row.reference == 2


def test_a_switch_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no switches \['penality'\]; there are penalty, kd_weight"):
        released.compute(["penality"])


def test_computing_gives_every_headline_with_provenance(lab: Lab) -> None:
    counts = tables.committed("data_counts")
    options = {"seeds": SEEDS, "profile": "smoke", "store": lab.store, "progress": False}
    found = released.compute(["kd_weight", "ages"], counts=counts, **options)
    assert released.headlines(found)["switch"].tolist() == ["kd_weight", "ages"]
    assert not found[["device", "torch", "linfair", "seconds"]].isna().any(axis=None)
    one = released.summary(found).set_index("switch").loc["UTKFace age groups"]
    assert (one["goes"], one["by"]) == ("up", "+1,123")
    lines = released.detail(found, "ages").set_index("quantity")
    assert lines.loc["groups", ["paper", "released", "difference"]].tolist() == ["4", "5", "+1"]
    assert released.agreement(found, found) == (len(found[found["unit"] == "%"]), 0.0)
    assert "2 seeds of the MLP" in released.evidence_line(found)


def test_the_committed_table_holds_every_switchs_headline_and_chart(committed: pd.DataFrame) -> None:
    found = released.headlines(committed)
    assert found["switch"].tolist() == list(switches()) and set(committed["switch"]) == set(switches())
    same = found.loc[found["side"] == "no measurable change", "switch"].tolist()
    assert same == ["leak", "initialisation", "diagnostics"], "as the page says"
    for name in switches():
        assert len(released.detail(committed, name)) > 0
    assert released.versions()["switch"].tolist() == [one.title for one in switches().values()]
    assert released.summary(committed)["switch"].is_unique


def test_every_switch_has_its_run_or_is_a_fact_about_data() -> None:
    for name, one in switches().items():
        assert hasattr(released_runs, name) == bool(one.network), name


def test_the_chart_draws_the_means_of_both_roles(house_style: None) -> None:
    rows = pd.concat([made("%", [50.0, 60.0], [40.0, 52.0]), made("%", [80.0, 90.0], [81.0, 93.0], who="majority")])
    figure = figures.dots(released.charted(rows), panel="panel", line="title", by="who", rule=0.0)
    [ax] = figure.axes
    assert [bars[0].get_xdata().tolist() for bars in ax.containers] == [[2.0], [-9.0]]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["Penalty's gradient"]
    figure.savefig(io.BytesIO(), format="png", dpi=50)
