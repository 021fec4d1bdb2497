"""Groups with names: drops beyond the control, changes against plain, what the page says. Oracle: rows by hand."""

import math
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from linfair_book import faces, mitigation, predictors
from linfair_book.figures.faces import change_panels, drop_panels
from linfair_book.reading import readable

from linfair.study.jobs import StudyFailed
from linfair.study.plan import find, plan

NAMES = {"large": ("majority", 800, 200), "middle": ("minority", 300, 75), "small": ("minority", 100, 25)}
LOST = {"plain": {"large": 1, "middle": 4, "small": 20}, "control": {"large": 1, "middle": -1, "small": 2}}
GAINED = {"large": -1, "middle": 0, "small": 6}


def rows(seeds: int = 5) -> pd.DataFrame:
    """Accuracy 90 % in the original; `LOST` points less in each arm, a mitigation that gives back `GAINED` points."""
    found = []
    for seed in range(seeds):
        jitter = (seed - (seeds - 1) / 2) * 0.1
        for group, (name, (role, n_train, n)) in enumerate(NAMES.items()):
            fixed = {"seed": seed, "group": group, "group_name": name, "role": role, "n_train": n_train, "n": n}
            for split in ("train", "test"):
                found.append(fixed | {"arm": "original", "budget": 1.0, "split": split, "accuracy": 0.9})
                for budget, factor in ((0.4, 0.5), (0.02, 1.0)):
                    lost = {arm: factor * LOST[arm][name] for arm in LOST} | {
                        "kd_over_c": factor * LOST["plain"][name] - GAINED[name]
                    }
                    for arm, points in lost.items():
                        accuracy = 0.9 - (points + jitter * (arm == "plain")) / 100
                        found.append(fixed | {"arm": arm, "budget": budget, "split": split, "accuracy": accuracy})
    same = {"data": "faces", "network": "resnet18", "profile": "thin", "options": "", "diverged": False, "teacher": "t"}
    table = pd.DataFrame(found).assign(**same)
    return table.assign(method=table["arm"].where(table["arm"] == "original", "snl"))


def test_groups_come_by_size_with_their_images_of_the_split() -> None:
    found = faces.sizes(rows())
    assert found["group_name"].tolist() == ["large", "middle", "small"]
    assert found["n"].tolist() == [200, 75, 25] and found["role"].tolist() == ["majority", "minority", "minority"]


def test_groups_are_described_with_what_the_original_can() -> None:
    found = faces.described(rows()).set_index("group")
    assert found["training images"].tolist() == ["800", "300", "100"]
    assert found.loc["small", "original's accuracy (%)"] == "90.0 [90.0, 90.0]"


def test_networks_of_several_widths_stand_beside_each_other_net_of_the_control() -> None:
    """`LOST` of plain less that of the control, half of it at 40 %; by role the minorities count by images."""
    found = faces.beyond_control({"a": rows(), "b": rows(2)}, [0.4]).set_index(["way", "group_name"])
    for name in ("a", "b"):
        means = found.loc[name, "mean"]
        assert means.to_dict() == pytest.approx({"large": 0.0, "middle": 2.5, "small": 9.0})
    roles = faces.of_roles(rows()).set_index(["budget", "group_name"])["mean"]
    assert roles[0.02, "minority"] == pytest.approx((75 * 5 + 25 * 18) / 100)
    gained = faces.of_roles(rows(), arm="kd_over_c", against="plain").set_index(["budget", "group_name"])["mean"]
    assert gained[0.4, "minority"] == pytest.approx((75 * 0 + 25 * 6) / 100)


def test_the_committed_rows_of_wider_networks_are_of_one_width_each() -> None:
    found = {by: faces.by_width(by, 1) for by in ("race", "age")}
    widths = {by: [set(one["width"]) for one in networks.values()] for by, networks in found.items()}
    assert widths == {"race": [{8}, {16}, {64}], "age": [{8}, {16}]}
    assert all(set(one["seed"]) == {0} for networks in found.values() for one in networks.values())


def test_groups_that_change_their_role_have_no_line_of_their_own() -> None:
    table = rows()
    table.loc[(table["seed"] == 1) & (table["group"] == 1), "role"] = "majority"
    with pytest.raises(ValueError, match="groups middle change their role from seed to seed"):
        faces.sizes(table)


@pytest.mark.parametrize("name", list(NAMES))
def test_a_drop_is_that_of_the_rows_and_the_controls_is_taken_off_within_a_seed(name: str) -> None:
    found = faces.group_drops(rows()).set_index(["group_name", "of", "budget"])
    for budget, factor in ((0.4, 0.5), (0.02, 1.0)):
        plain, control = (factor * LOST[arm][name] for arm in ("plain", "control"))
        for of, expected in (("plain", plain), ("control", control), ("minus control", plain - control)):
            row = found.loc[(name, of, budget)]
            assert row["mean"] == pytest.approx(expected) and row["n_seeds"] == 5
    assert found.loc[(name, "control", 0.4), "low"] == pytest.approx(found.loc[(name, "control", 0.4), "high"])


def test_changes_are_those_against_plain_of_the_same_seed() -> None:
    found = faces.group_changes(rows(), ["kd_over_c"]).set_index(["group_name", "budget"])
    for name, points in GAINED.items():
        assert found.loc[(name, 0.02), "mean"] == pytest.approx(points)


def test_repairs_are_those_that_are_there() -> None:
    table = rows()
    assert faces.repairs_in(table) == {"kd_over_c": "KD / C"}
    plain = faces.unrepaired(table)
    assert faces.repairs_in(plain) == {} and set(plain["arm"]) == {"original", "plain", "control"}


def test_figures_have_a_plot_a_group_and_a_plot_a_way_and_budget(house_style: None) -> None:
    table = rows()
    groups = faces.sizes(table)
    figure = drop_panels(faces.group_drops(table), groups)
    assert [ax.get_title() for ax in figure.axes] == ["large\n800 images", "middle\n300 images", "small\n100 images"]
    drawn = figure.axes[2].containers[1][0].get_ydata().tolist()
    assert drawn == pytest.approx([10, 20])
    figure.savefig(Path("/dev/null"), format="png", dpi=40)
    ways = {"kd_over_c": "KD / C"}
    figure = change_panels(faces.group_changes(table, list(ways)), groups, ways)
    assert [ax.get_title() for ax in figure.axes] == ["KD / C\n40 % ReLUs", "KD / C\n2 % ReLUs"]
    places = {y: x for one in figure.axes[1].containers for x, y in one[0].get_xydata()}
    assert [places[y] for y in range(len(groups))] == pytest.approx(list(GAINED.values()))
    figure.savefig(Path("/dev/null"), format="png", dpi=40)
    plt.close("all")


def test_repairs_that_all_diverged_leave_a_figure_that_says_so(house_style: None) -> None:
    table = rows()
    table = table[table["arm"] != "kd_over_c"]
    lost = rows()[rows()["arm"] == "kd_over_c"].assign(diverged=True, accuracy=math.nan)
    changes = faces.group_changes(pd.concat([table, lost]), ["kd_over_c"])
    assert changes.empty
    figure = change_panels(changes, faces.sizes(table), {"kd_over_c": "KD / C"})
    assert [text.get_text() for ax in figure.axes for text in ax.texts] == ["no repair is left to compare"]


def test_the_grid_is_fig_6s_on_resnet18_and_snl_with_repairs() -> None:
    """The cells of Fig. 6, of which the committed rows are; by age without eigenvalues."""
    for data, curvature, repairs in (
        ("utkface_race", None, list(faces.REPAIRS)),
        ("utkface_age", "none", [faces.REPAIR]),
    ):
        of_figure = plan(find("fig06"), "thin", only={"data": data, "network": "resnet18", "method": "snl"})
        jobs = plan(find("faces"), "thin", only={"data": data})
        assert [job.cell for job in jobs] == [replace(job.cell, curvature=curvature) for job in of_figure]
        assert {job.arms for job in jobs} == {("original", "plain", "control", *repairs)}


@pytest.mark.usefixtures("forked")
def test_the_book_says_which_rows_it_has_and_a_run_without_data_which_it_lacks(tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(ValueError, match="'utkface_rice_thin'.*utkface_race_thin, utkface_age_thin"):
        faces.committed("utkface_rice")
    for name in ("LINFAIR_DATA", "LINFAIR_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(StudyFailed, match="utkface not found"):
        faces.compute("utkface_race", tmp_path / "out", seeds=1, say=lambda line: None)


def test_rows_that_a_folder_has_are_read_and_nothing_is_computed(tmp_path: Path, monkeypatch) -> None:
    faces.committed("utkface_race").to_parquet(tmp_path / "race.parquet")
    faces.committed("utkface_age").to_parquet(tmp_path / "age.parquet")
    monkeypatch.setattr(faces, "run_jobs", lambda jobs, out: None)
    found = faces.compute("utkface_age", tmp_path, seeds=2)
    whole = faces.committed("utkface_age")
    assert set(found["data"]) == {"utkface_age"} and len(found) == (whole["seed"] < 2).sum()


@pytest.mark.parametrize("data", ["utkface_race", "utkface_age"])
def test_the_committed_rows_are_whole(data: str) -> None:
    """Every seed has every budget of every arm it has; the arms that the page compares are there in each seed."""
    table = faces.committed(data)
    assert set(table["profile"]) == {"thin"} and set(table["width"]) == {8} and set(table["data"]) == {data}
    for arm, part in table.groupby("arm"):
        budgets = {1.0} if arm == "original" else {0.4, 0.2, 0.02}
        assert part.groupby("seed")["budget"].agg(set).eq(budgets).all(), arm
        assert not part.duplicated(["seed", "budget", "split", "group"]).any()
    arms = table.groupby("seed")["arm"].agg(set)
    assert arms.map({"original", "plain", "control", faces.REPAIR}.issubset).all() and len(arms) == 4
    assert table.groupby("seed")["teacher"].nunique().eq(1).all()
    assert table["seconds"].gt(0).all() and table["accuracy"].between(0, 1).all()


def sides(means: pd.DataFrame, by: str = "group_name", at: float = 0.0) -> dict[tuple[str, str], str]:
    found = readable(means.rename(columns={by: "group_name"}), at=at)
    return dict(zip(zip(found["group"], found["budget"], strict=True), found["side"], strict=True))


def test_what_the_page_says_of_single_groups_holds_in_the_committed_rows() -> None:
    race, age = (faces.committed(name) for name in ("utkface_race", "utkface_age"))
    drops = faces.group_drops(faces.unrepaired(race)).query("of == 'minus control'")
    assert set(sides(drops).values()) == {"no measurable change"}
    assert set(drops.loc[drops.groupby("budget")["mean"].idxmax(), "group_name"]) == {"Others"}
    drops = sides(faces.group_drops(faces.unrepaired(age)).query("of == 'minus control'"))
    assert [name for name, side in drops.items() if side == "up"] == [("13-17", "2 %")]
    changed = sides(faces.group_changes(race, [faces.REPAIR]))
    for group, side in (("Others", "up"), ("White", "down")):
        assert [budget for name, budget in changed if name == group and changed[name, budget] == side] == [
            "20 %",
            "2 %",
        ]
    changed = sides(faces.group_changes(age, [faces.REPAIR]))
    for group, side in (("13-17", "up"), ("65+", "up"), ("18-64", "down")):
        assert {one for (name, _), one in changed.items() if name == group} == {side}


def test_what_the_page_says_of_predictors_holds_in_the_committed_rows() -> None:
    """Sides on which the paper expects a predictor, by budget."""
    alike = dict.fromkeys(("margin", "group size", "original accuracy"), {"2 %"})
    for data, expected in (
        ("utkface_race", {"gradient norm": {"20 %"}, "group size": {"20 %", "2 %"}, "original accuracy": {"2 %"}}),
        ("utkface_age", alike),
    ):
        rows = predictors.group_rows(faces.unrepaired(faces.committed(data)), split="test")
        found = predictors.correlations(rows, predictors=faces.KNOWN).query("statistic == 'alone'")
        claimed = {one.name: "up" if one.sign > 0 else "down" for one in faces.KNOWN}
        there: dict[str, set[str]] = {}
        for (name, budget), side in sides(found, "predictor").items():
            if side == claimed[name]:
                there.setdefault(name, set()).add(budget)
        assert there == expected


def test_what_the_page_says_of_norms_and_margins_under_the_repair_holds_in_the_committed_rows() -> None:
    for data in ("utkface_race", "utkface_age"):
        rows = faces.committed(data)
        norms = sides(mitigation.ratios(rows, "gradient_norm", split="train", way=faces.REPAIR), "role", at=1)
        assert {side for (role, _), side in norms.items() if role == "minority"} == {"down"}
        assert {side for (role, _), side in norms.items() if role == "majority"} == {"up"}
        margins = sides(mitigation.ratios(rows, "margin", split="test", way=faces.REPAIR), "role", at=1)
        assert "up" not in {side for (role, _), side in margins.items() if role == "minority"}
