"""Groups with names: drops beyond the control, changes against plain, what is said. Oracle: rows added up by hand."""

import math
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from linfair_book import faces
from linfair_book.figures.faces import change_panels, drop_panels

from linfair.study.work import StudyFailed

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


def test_what_is_said_goes_by_the_interval() -> None:
    drops = faces.group_drops(rows())
    text = faces.said(drops[drops["of"] == "minus control"], more="lose", less="gain")
    first, second = text.split(" At 2 %")
    assert "lose: middle 2.5 [2.3, 2.7], small 9.0" in first and "no measurable change: large 0.0" in first
    assert "small 18.0 [17.8, 18.2]" in second and "gain" not in text


def test_repairs_are_those_that_are_there_and_rows_without_any_say_so() -> None:
    table = rows()
    assert faces.repairs_in(table) == {"kd_over_c": "KD / C"}
    text = faces.repairs_verdict(faces.group_changes(table, list(faces.repairs_in(table))))
    assert "*KD / C*: At 40 % (5 seeds) gain: small 6.0" in text and "lose: large -1.0" in text
    plain = faces.unrepaired(table)
    assert faces.repairs_in(plain) == {} and set(plain["arm"]) == {"original", "plain", "control"}
    assert faces.repairs_verdict(faces.group_changes(table, [])) == "These rows have no repair."


def test_an_arm_that_is_none_is_one_line_before_anything_is_computed(tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        faces.main(["--arms", "original", "lagrangain", "--out", str(tmp_path / "out")])
    assert stopped.value.code == 1 and not (tmp_path / "out").exists()
    assert capsys.readouterr().err.startswith("no arms ['lagrangain']; there are original, plain, control")


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
    assert [ax.get_title() for ax in figure.axes] == ["40 % ReLUs", "2 % ReLUs"]
    places = [one[0].get_xdata().item() for one in figure.axes[1].containers]
    assert places == pytest.approx(list(GAINED.values()))
    figure.savefig(Path("/dev/null"), format="png", dpi=40)
    plt.close("all")


def test_repairs_that_all_diverged_leave_a_figure_that_says_so_and_a_verdict(house_style: None) -> None:
    table = rows()
    table = table[table["arm"] != "kd_over_c"]
    lost = rows()[rows()["arm"] == "kd_over_c"].assign(diverged=True, accuracy=math.nan)
    changes = faces.group_changes(pd.concat([table, lost]), ["kd_over_c"])
    assert changes.empty
    figure = change_panels(changes, faces.sizes(table), {"kd_over_c": "KD / C"})
    assert [text.get_text() for ax in figure.axes for text in ax.texts] == ["no repair is left to compare"]
    assert faces.repairs_verdict(changes) == "These rows have no repair."


def test_rows_of_a_folder_come_in_one_order_whatever_the_files(tmp_path: Path) -> None:
    table = rows().assign(device="CPU")
    for number, (_, part) in enumerate(table.groupby(["arm", "seed"])):
        part.to_parquet(tmp_path / f"{number}.parquet")
    found = faces.rows_in(tmp_path, "faces")
    other = tmp_path / "other"
    other.mkdir()
    for number, path in enumerate(sorted(tmp_path.glob("*.parquet"), reverse=True)):
        shutil.copy(path, other / f"{number:03}.parquet")
    pd.testing.assert_frame_equal(found, faces.rows_in(other, "faces"))
    assert len(found) == len(table)
    with pytest.raises(ValueError, match="has no rows of utkface_age; `python -m linfair_book.faces"):
        faces.rows_in(tmp_path, "utkface_age")


def test_the_book_says_which_rows_it_has_and_a_run_without_data_which_it_lacks(tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(FileNotFoundError, match="no rows 'utkface_rice_thin'; it has .*digits_mlp_snl"):
        faces.committed("utkface_rice_thin")
    for name in ("LINFAIR_DATA", "LINFAIR_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(StudyFailed, match="utkface not found"):
        faces.compute("utkface_race", tmp_path / "out", seeds=1, say=lambda line: None)


@pytest.mark.parametrize("name", [faces.FACES, faces.AGES])
def test_the_committed_rows_are_whole(name: str) -> None:
    """Every seed has every budget of every arm it has; the arms that the page compares are there in each seed."""
    table = faces.committed(name)
    assert set(table["profile"]) == {"thin"} and set(table["width"]) == {8}
    assert set(table["data"]) == {name.removesuffix("_thin")}
    for arm, part in table.groupby("arm"):
        budgets = {1.0} if arm == "original" else {0.4, 0.2, 0.02}
        assert part.groupby("seed")["budget"].agg(set).eq(budgets).all(), arm
        assert not part.duplicated(["seed", "budget", "split", "group"]).any()
    arms = table.groupby("seed")["arm"].agg(set)
    assert arms.map({"original", "plain", "control", faces.REPAIR}.issubset).all() and len(arms) >= 3
    assert table.groupby("seed")["teacher"].nunique().eq(1).all()
    assert table["seconds"].gt(0).all() and table["accuracy"].between(0, 1).all()
