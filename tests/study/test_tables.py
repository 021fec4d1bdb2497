"""Tables against numbers worked out by hand on a panel of two seeds, three groups and one budget."""

import math
from pathlib import Path

import pandas as pd
import pytest
from linfair_book.averages import convergence, disparity, paired, violations
from scipy import stats

from linfair.engine.store import Tables
from linfair.study import results
from linfair.study.plan import figures
from linfair.study.tables import by_role, drops, finished, over_seeds, overall, side_by_side, text

GROUPS = {"0": ("majority", 90, 50), "1": ("majority", 80, 30), "2": ("minority", 10, 20)}
RIGHT = {
    # arm: seed -> images predicted right in each group (of 50, 30, 20)
    "original": {0: (50, 30, 16), 1: (40, 24, 10)},
    "plain": {0: (45, 27, 8), 1: (40, 16, 4)},
    "control": {0: (50, 28, 14), 1: (44, 24, 8)},
}


def panel() -> pd.DataFrame:
    rows = [
        {
            "data": "digits",
            "network": "mlp",
            "profile": "small",
            "teacher": f"digest {seed}",
            "arm": arm,
            "budget": 1.0 if arm == "original" else 0.2,
            "base_loss": 0.1 * (seed + 1),
            "seed": seed,
            "split": split,
            "group": int(name),
            "group_name": name,
            "role": role,
            "n_train": n_train,
            "n": n,
            "accuracy": right / n,
            "low": 0.0,
            "high": 1.0,
        }
        for arm, seeds in RIGHT.items()
        for seed, counts in seeds.items()
        for split in ("train", "test")
        for right, (name, (role, n_train, n)) in zip(counts, GROUPS.items(), strict=True)
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=0, ignore_index=True)


def test_roles_pool_images_not_groups() -> None:
    """Seed 0, plain: majority (45 + 27) / 80, minority 8 / 20."""
    pooled = by_role(panel())
    one = pooled.query("arm == 'plain' and seed == 0 and split == 'test'").set_index("group_name")
    assert one["accuracy"].to_dict() == pytest.approx({"majority": 72 / 80, "minority": 8 / 20})
    assert one["n"].to_dict() == {"majority": 80, "minority": 20}
    assert one["n_train"].to_dict() == {"majority": 170, "minority": 10}
    assert len(pooled) == 3 * 2 * 2 * 2


def test_overall_is_the_accuracy_of_the_whole_split() -> None:
    """Seed 1, plain: (40 + 16 + 4) / 100."""
    pooled = overall(panel())
    one = pooled.query("arm == 'plain' and seed == 1 and split == 'test'")
    assert one["accuracy"].tolist() == pytest.approx([0.6])
    assert one[["n", "n_train", "group_name"]].to_numpy().tolist() == [[100, 180, "all"]]


def test_drops_are_against_the_same_seeds_original_network() -> None:
    """Group 2: seed 0 from 16/20 to 8/20, seed 1 from 10/20 to 4/20; the control of seed 1 from 10/20 to 8/20."""
    table = drops(panel()).query("split == 'test' and group_name == '2'").set_index(["arm", "seed"])
    assert table["original"].to_dict() == pytest.approx({(arm, s): (0.8, 0.5)[s] for arm in RIGHT for s in (0, 1)})
    assert table["drop"]["plain"].to_dict() == pytest.approx({0: 40.0, 1: 30.0})
    assert table["relative_drop"]["plain"].to_dict() == pytest.approx({0: 50.0, 1: 60.0})
    assert table["drop"]["control", 1] == pytest.approx(10.0)
    assert table["relative_drop"]["control", 1] == pytest.approx(20.0)
    assert table["drop"]["original"].to_dict() == {0: 0.0, 1: 0.0}
    assert len(drops(panel())) == len(panel())


@pytest.mark.parametrize("pooled", ["role", "all"])
@pytest.mark.parametrize("quantity", ["accuracy", "margin"])
def test_a_role_of_which_a_group_has_no_number_has_none(pooled: str, quantity: str) -> None:
    """Oracle: the rows without that seed; seed 0 has no number of group 1, one of two of the majority, in one arm."""
    table = panel().assign(margin=lambda rows: rows["accuracy"] / 2)
    bad = (table["seed"] == 0) & (table["group"] == 1) & (table["arm"] == "plain")
    broken = table.assign(**{quantity: table[quantity].mask(bad)})
    how = {"arm": "plain", "against": "original", "pooled": pooled, "scale": "difference"}
    wanted, found = (paired(one, quantity, **how) for one in (table, broken))
    spoiled = (wanted["seed"] == 0) & (wanted["role"] != "minority")
    pd.testing.assert_frame_equal(found, wanted[~spoiled].reset_index(drop=True))
    if quantity == "accuracy":
        lost = by_role(broken).query("accuracy.isna()")
        assert set(zip(lost["seed"], lost["arm"], lost["role"], strict=True)) == {(0, "plain", "majority")}
        whole = violations(broken.assign(excess=0.1)).query("seed == 0 and arm == 'plain'")
        assert whole[["accuracy_violation", "overall"]].isna().all(axis=None)


def test_drops_are_against_the_original_network_of_the_same_width() -> None:
    """A wider network of the same seeds, right on one image less in every group, loses as much as the other one."""
    thin = panel().assign(width=16)
    wide = thin.assign(width=0, teacher="wide " + thin["teacher"], accuracy=thin["accuracy"] - 1 / thin["n"])
    found = drops(pd.concat([thin, wide], ignore_index=True))
    assert found.loc[found["width"] == 0, "drop"].tolist() == pytest.approx(drops(thin)["drop"].tolist())


def test_a_gain_is_a_negative_drop() -> None:
    """Group 0, control of seed 1: from 40/50 to 44/50."""
    row = drops(panel()).query("split == 'test' and group_name == '0' and arm == 'control' and seed == 1")
    assert row["drop"].tolist() == pytest.approx([-8.0])
    assert row["relative_drop"].tolist() == pytest.approx([-10.0])


def test_a_relative_drop_from_zero_is_undefined_and_its_drop_in_points_is_not() -> None:
    table = panel()
    table.loc[(table["arm"] == "original") & (table["group"] == 2), "accuracy"] = 0.0
    found = drops(table).query("group == 2 and arm == 'plain' and split == 'test'").sort_values("seed")
    assert found["drop"].tolist() == pytest.approx([-40.0, -20.0])
    assert found["relative_drop"].isna().all()


def test_arms_of_different_teachers_are_not_mixed() -> None:
    table = panel()
    table.loc[(table["arm"] == "plain") & (table["seed"] == 1), "teacher"] = "another"
    with pytest.raises(ValueError, match="arms of different teachers are mixed"):
        drops(table)


def test_a_missing_original_network_is_named_by_its_seed() -> None:
    table = panel()
    with pytest.raises(ValueError, match=r"no original network for seeds \[.*1.*\]") as caught:
        drops(table[(table["arm"] != "original") | (table["seed"] == 0)])
    assert "0," not in str(caught.value)


def test_two_teachers_of_one_seed_are_refused() -> None:
    table = panel()
    other = table[table["arm"] == "original"].assign(teacher="another")
    with pytest.raises(ValueError, match="mixed: .*seed 0 has the original networks another, digest 0"):
        drops(pd.concat([table, other]))


def test_original_rows_shared_by_several_methods_count_once() -> None:
    """Two methods' tables, each with the same original arm: n and drops are those of one."""
    one = panel().assign(method=lambda rows: rows["arm"].where(rows["arm"] == "original", "snl"))
    other = one.assign(method=lambda rows: rows["method"].replace("snl", "random"))
    both = pd.concat([one, other])
    pooled = by_role(both)
    assert set(pooled["n"]) == {80, 20}
    assert len(pooled) == (1 + 2 + 2) * 2 * 2 * 2
    found = disparity(drops(pooled).query("method != 'random'"), split="test")
    pd.testing.assert_frame_equal(found, disparity(drops(by_role(panel())), split="test"))
    with pytest.raises(ValueError, match="duplicate entries"):
        disparity(drops(pooled), split="test")


def t_interval(a: float, b: float) -> tuple[float, float, float]:
    """Mean and 95 % t interval of two values: half width t(0.975, 1) |a - b| / 2."""
    half = 12.7062047364 * abs(a - b) / 2
    return (a + b) / 2, (a + b) / 2 - half, (a + b) / 2 + half


def test_over_seeds_is_the_mean_with_its_t_interval() -> None:
    assert stats.t.ppf(0.975, 1) == pytest.approx(12.7062047364)
    table = drops(panel()).query("split == 'test' and arm == 'plain'")
    found = over_seeds(table, "drop", ["group_name", "arm"]).set_index("group_name")
    assert found["n_seeds"].tolist() == [2, 2, 2]
    row = found.loc["2"]
    assert (row["mean"], row["low"], row["high"]) == pytest.approx(t_interval(40, 30))
    single = over_seeds(table[table["seed"] == 0], "drop", ["group_name"])
    assert single["n_seeds"].tolist() == [1, 1, 1]
    assert single[["low", "high"]].isna().all().all()


def test_over_seeds_refuses_several_rows_of_one_seed() -> None:
    with pytest.raises(ValueError, match=r"several rows of one seed for \{'arm': .*add a column"):
        over_seeds(panel(), "accuracy", ["arm"])


def test_disparity_pairs_groups_and_arms_within_a_seed() -> None:
    """Relative drops, minority minus majority, then the control's taken off.

    Seed 0: plain 50 - 10, control 12.5 - 2.5; seed 1: plain 60 - 12.5, control 20 - (-6.25).
    """
    found = disparity(drops(by_role(panel())), split="test").set_index("of")
    assert found["n_seeds"].tolist() == [2] * 3
    assert set(found["budget"]) == {0.2}
    expected = {
        "plain": t_interval(40.0, 47.5),
        "control": t_interval(10.0, 26.25),
        "plain minus control": t_interval(30.0, 21.25),
    }
    for of, numbers in expected.items():
        row = found.loc[of]
        assert (row["mean"], row["low"], row["high"]) == pytest.approx(numbers), of


def test_disparity_in_points() -> None:
    """Seed 0: plain 40 - 10, control 10 - 2.5; seed 1: plain 30 - 10, control 10 - (-5)."""
    found = disparity(drops(by_role(panel())), split="test", column="drop").set_index("of")
    assert found.loc["plain", "mean"] == pytest.approx(25.0)
    assert found.loc["plain minus control", "mean"] == pytest.approx(((30 - 7.5) + (20 - 15)) / 2)


def test_disparity_lists_budgets_downwards_for_each_arm() -> None:
    table = drops(by_role(panel()))
    more = pd.concat([table, table.query("arm != 'original'").assign(budget=0.8)])
    found = disparity(more, split="test")
    assert found["of"].tolist() == ["control"] * 2 + ["plain"] * 2 + ["plain minus control"] * 2
    assert found["budget"].tolist() == [0.8, 0.2] * 3


def test_disparity_without_a_control_is_of_the_plain_arm_alone() -> None:
    table = drops(by_role(panel()))
    assert disparity(table[table["arm"] != "control"], split="test")["of"].tolist() == ["plain"]


def test_convergence_reads_the_original_networks_on_their_training_split() -> None:
    """Loss 0.1 and 0.2; majority 80/80 and 64/80; minority 16/20 and 10/20."""
    found = convergence(panel()).set_index("what")
    assert found["n_seeds"].tolist() == [2] * 3
    means = {what: row["mean"] for what, row in found.iterrows()}
    assert means == pytest.approx(
        {
            "training loss (last epoch)": 0.15,
            "training accuracy, majority (%)": 90.0,
            "training accuracy, minority (%)": 65.0,
        }
    )


def test_text_writes_mean_and_interval_and_leaves_out_what_is_undefined() -> None:
    table = pd.DataFrame({"of": ["a", "b"], "mean": [1.26, -2.0], "low": [-0.04, math.nan], "high": [2.55, math.nan]})
    shown = text(table)
    assert list(shown.columns) == ["of", "mean [95 % interval]"]
    assert shown["mean [95 % interval]"].tolist() == ["1.3 [0.0, 2.5]", "-2.0"]
    assert text(table, digits=2)["mean [95 % interval]"][0] == "1.26 [-0.04, 2.55]"


def test_rows_of_tables_with_and_without_the_column_of_divergence_go_together() -> None:
    """Only a row that says so diverged: one joined from a table without the column has no entry, and stays."""
    joined = pd.concat([pd.DataFrame({"seed": [0, 1], "diverged": [True, False]}), pd.DataFrame({"seed": [2]})])
    assert finished(joined)["seed"].tolist() == [1, 2]


def test_one_seed_is_said_and_has_no_interval() -> None:
    one = over_seeds(pd.DataFrame({"seed": [0], "arm": ["plain"], "value": [1.25]}), "value", ["arm"])
    assert text(one)["mean [95 % interval]"].tolist() == ["1.2 (1 seed)"]


def test_a_ratio_with_zero_has_no_value_and_does_not_count() -> None:
    """Seed 0 has no accuracy in group 2 in one of the arms: the ratio exists in seed 1 alone, log(4 / 10)."""
    table = panel()
    table.loc[(table["arm"] == "plain") & (table["seed"] == 0) & (table["group"] == 2), "accuracy"] = 0.0
    ratios = paired(table, arm="plain", against="original", scale="ratio")
    means = over_seeds(ratios, "value", ["group_name"]).set_index("group_name")
    assert means["n_seeds"].to_dict() == {"0": 2, "1": 2, "2": 1}
    assert means.loc["2", "mean"] == pytest.approx(math.log(4 / 10))
    nothing = over_seeds(ratios.assign(value=math.nan), "value", ["group_name"])
    assert set(nothing["n_seeds"]) == {0} and nothing["mean"].isna().all()


def test_no_means_are_no_lines() -> None:
    """Where every seed of every way diverged, nothing is left to lay out."""
    empty = pd.DataFrame(columns=["way", "budget", "group_name", "n_seeds", "mean", "low", "high"])
    assert list(side_by_side(empty, ["group_name"])) == ["ReLUs kept"]
    assert list(side_by_side(empty, ["group_name"], line="way")) == ["way"]


def test_eigenvalues_that_no_row_has_are_missing_and_those_of_a_second_measurement_are_read(tmp_path: Path) -> None:
    """Oracle: the book's rows, in a folder that has them without eigenvalues first."""
    rows = pd.read_parquet(results.BOOK / "digits_mlp_snl.parquet")
    with_both, figure = rows[rows["seed"] < 2], figures()["fig04"]
    without = with_both.drop(columns=[name for name in with_both if "eigenvalue" in name])
    Tables(tmp_path).write("a", without)
    state = results.status(figure, "small", results.collect([str(tmp_path)]), seeds=2)
    assert (state.done, state.missing) == (0, 2)
    impact = results.status(figures()["fig06"], "small", results.collect([str(tmp_path)]), seeds=2)
    arms = without.drop_duplicates("arm").set_index("arm")["seconds"]  # the seeds of a row of networks are one ensemble
    assert impact.done == 6 and impact.hours == pytest.approx(arms[["original", "plain", "control"]].sum() / 3600)
    Tables(tmp_path).write("b", with_both)
    found = results.collect([str(tmp_path)])
    assert results.status(figure, "small", found, seeds=2).done == 2
    original = with_both[(with_both["arm"] == "original") & with_both["top_eigenvalue"].notna()]
    read = results.gather(figure, "small", found, seeds=2).dropna(subset=["top_eigenvalue"])
    assert sorted(read["top_eigenvalue"]) == sorted(original["top_eigenvalue"])
