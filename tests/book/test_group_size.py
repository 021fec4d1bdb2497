"""One group's images repeated: the data, the networks trained on them, and the summaries by hand."""

import pandas as pd
import pytest
import torch
from linfair_book import group_size
from linfair_book.group_size import upsampled
from linfair_book.tables import committed
from scipy import stats
from torch import nn

from linfair import study
from linfair.data import GroupedData, load_data
from linfair.data.core import upsample
from linfair.metrics import group_gradient_norms
from linfair.study import ResultStore, grid
from linfair.study.cell import Worker
from linfair.training import Schedule, Source, cross_entropy


@pytest.fixture(scope="module")
def store(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> ResultStore:
    return ResultStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def cells() -> list[study.Cell]:
    return grid("digits", "mlp", budgets=(0.2,), seeds=(0, 1), profile="smoke")


@pytest.fixture(scope="module")
def table(cells: list[study.Cell], store: ResultStore) -> pd.DataFrame:
    return group_size.run_upsampling(cells, times=(1, 20), store=store, progress=False)


# The data


def test_each_image_of_the_group_is_there_so_often_and_all_others_once(digits: GroupedData) -> None:
    group = digits.roles.index("minority")
    larger = upsample(digits, group, 5)
    part = larger.splits["train"]
    _, often = torch.unique(torch.cat([part.y.view(-1, 1), part.x.flatten(1)], 1), dim=0, return_counts=True)
    assert sorted(set(often.tolist())) == [1, 5] and int((often == 5).sum()) == digits.counts[group]
    assert larger.counts == [5 * c if g == group else c for g, c in enumerate(digits.counts)]
    for name in ("val", "test", "test_balanced"):
        assert larger.splits[name] is digits.splits[name]
    assert (larger.mean, larger.std, larger.shift) == (digits.mean, digits.std, digits.shift)


def test_the_provenance_tells_what_was_repeated_and_has_a_hash_of_its_own(digits: GroupedData) -> None:
    group = digits.roles.index("minority")
    notes = upsample(digits, group, 5).provenance
    assert notes["options"] == digits.provenance["options"] | {"upsampled_group": group, "times": 5}
    assert notes["sha256"] != digits.provenance["sha256"] == notes["upsampled_from"]
    assert notes["counts"]["train"][group] == 50 and notes["seed"] == digits.provenance["seed"]
    assert upsample(digits, group, 1) is digits


def test_the_risk_of_the_repeated_data_is_the_weighted_mean_and_the_groups_own_gradient_stays(
    digits: GroupedData, teacher: nn.Module
) -> None:
    """Repeating is weighing: J' = sum_a w_a n_a J_a / sum_a w_a n_a, and each J_a is what it was."""
    group = digits.roles.index("minority")
    larger = upsample(digits, group, 7)
    part, more = digits.splits["train"], larger.splits["train"]
    with torch.no_grad():
        each = cross_entropy(teacher(digits.normalise(part.x)), part.y).double()
        repeated = cross_entropy(teacher(larger.normalise(more.x)), more.y).double()
    weight = torch.where(part.a == group, 7.0, 1.0).double()
    assert repeated.mean().item() == pytest.approx(float((weight * each).sum() / weight.sum()))
    before, after = (group_gradient_norms(teacher, one) for one in (digits, larger))
    assert [row.norm for row in after] == pytest.approx([row.norm for row in before], rel=1e-5)


@pytest.mark.parametrize(("group", "times"), [(0, 0), (10, 5), (-1, 5)])
def test_groups_and_times_that_make_no_sense_are_refused(digits: GroupedData, group: int, times: int) -> None:
    with pytest.raises(ValueError, match=f"got times={times}, group={group}; groups are numbered 0 to 9"):
        upsample(digits, group, times)


def test_the_seed_draws_a_minority_group_and_not_always_the_same() -> None:
    drawn = {seed: group_size.chosen_group(load_data("digits", seed=seed), seed) for seed in range(8)}
    assert all(load_data("digits", seed=seed).roles[group] == "minority" for seed, group in drawn.items())
    assert len(set(drawn.values())) > 2
    assert group_size.chosen_group(load_data("digits", seed=5), 5) == drawn[5]
    with pytest.raises(ValueError, match="empty"):
        group_size.chosen_group(load_data("digits", minority_fraction=0.9), 0)


@pytest.mark.parametrize("after", [540, 690, 5000])
def test_an_epoch_has_as_many_batches_as_before(after: int) -> None:
    schedule = group_size._as_many_steps(Schedule(epochs=1, batch_size=128), 500, after)
    data = load_data("digits", seed=0)
    group = group_size.chosen_group(data, 0)
    assert -(-after // schedule.batch_size) == 4 == len(Source(data, "train").epoch(["k"], 128, False))
    if after == 690:
        assert len(Source(upsample(data, group, 20), "train").epoch(["k"], schedule.batch_size, False)) == 4


# The study


def test_once_is_the_plain_study_number_for_number(
    table: pd.DataFrame, cells: list[study.Cell], store: ResultStore
) -> None:
    plain = study.run(cells, arms=["original", "plain"], store=store, progress=False)
    once = table[table["times"] == 1].drop(columns=["times", "upsampled_group", "what"])
    pd.testing.assert_frame_equal(once.reset_index(drop=True), plain)


def test_only_the_repeated_group_is_larger_and_it_is_named(table: pd.DataFrame) -> None:
    train = table[(table["split"] == "train") & (table["arm"] == "original")]
    for (_, times), part in train.groupby(["seed", "times"]):
        counts = part.set_index("what")["n_train"]
        assert counts["upsampled"] == 10 * times
        assert set(counts["other minority"]) == {10} and set(counts["majority"]) == {90}
        assert part["what"].tolist().count("other minority") == 4
    assert (train.groupby("seed")["upsampled_group"].nunique() == 1).all()


def test_the_repeated_group_is_fitted_better(table: pd.DataFrame) -> None:
    """Twenty times the weight: its own training risk must fall, and its gradient norm is finite."""
    train = table[(table["split"] == "train") & (table["arm"] == "original") & (table["what"] == "upsampled")]
    risk = train.pivot(index="seed", columns="times", values="risk")
    assert (risk[20] < risk[1]).all() and train["gradient_norm"].notna().all()


def test_a_second_call_computes_nothing(
    table: pd.DataFrame, cells: list[study.Cell], store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Worker, "rows", None)
    again = group_size.run_upsampling(cells, times=(20, 1), store=store, progress=False)
    pd.testing.assert_frame_equal(again, table)


def test_every_count_has_tables_of_its_own_and_once_has_the_plain_studys(store: ResultStore) -> None:
    [one] = grid("digits", "mlp", budgets=(0.2,), seeds=(0,), profile="smoke")
    names = [Worker(one, store, False, setting=upsampled(one, times)[0]).name("plain") for times in (1, 5, 20)]
    assert len(set(names)) == 3 and names[0] == Worker(one, store, False).name("plain")


# Summaries


def test_effects_are_paired_differences_with_scipys_t_interval(table: pd.DataFrame) -> None:
    found = group_size.effects(table).set_index(["quantity", "what", "budget", "times", "of"])
    part = table[(table["what"] == "upsampled") & (table["split"] == "test_balanced")]
    wide = part.pivot(index=["seed", "times"], columns="arm", values="accuracy")
    drop = (100 * (wide["original"] - wide["plain"])).unstack("times")
    interval = stats.ttest_1samp(drop[20] - drop[1], 0).confidence_interval()
    row = found.loc[("drop", "upsampled", 0.2, 20, "minus x1")]
    assert [row["mean"], row["low"], row["high"]] == pytest.approx(
        [(drop[20] - drop[1]).mean(), interval.low, interval.high]
    )
    assert found.loc[("drop", "upsampled", 0.2, 1, "level"), "mean"] == pytest.approx(drop[1].mean())
    assert found.loc[("accuracy", "upsampled", 1.0, 20, "level"), "mean"] == pytest.approx(
        100 * wide["original"].unstack("times")[20].mean()
    )


def test_other_minority_groups_are_averaged_within_a_seed(table: pd.DataFrame) -> None:
    values = group_size.per_seed(table)
    one = values[(values["quantity"] == "gradient_norm") & (values["what"] == "other minority")]
    rows = table[(table["what"] == "other minority") & (table["arm"] == "original") & (table["split"] == "train")]
    expected = rows[(rows["seed"] == 1) & (rows["times"] == 20)]["gradient_norm"].mean()
    assert one[(one["seed"] == 1) & (one["times"] == 20)]["value"].item() == pytest.approx(expected)


def test_the_books_table_is_what_the_module_says_and_shows_the_effect() -> None:
    found = committed(group_size.TABLE)
    assert found["seed"].nunique() == 10 and tuple(sorted(found["times"].unique())) == group_size.TIMES
    assert set(found["profile"]) == {"small"} and set(found["budget"]) == {1.0, 0.2, 0.02}
    changed = group_size.effects(found).query("of == 'minus x1' and times == 20 and what == 'upsampled'")
    assert (changed[changed["quantity"].isin(["gradient_norm", "drop"])]["high"] < 0).all()
