"""Sweeps of notebook 08: what is read, what is said about it, and the figure that shows it."""

import io

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from linfair_book import sweeps
from linfair_book.figures.sweeps import sweep_lines
from linfair_book.notebooks import find as find_notebook

from linfair import plots
from linfair.study.plan import PROFILE_NAMES, figures, find, find_profile, panels_of, plan
from linfair.study.results import Found, status


def rows(arms: tuple[str, ...] = ("original", "plain"), seeds: int = 3) -> pd.DataFrame:
    """Rows of one panel: two majority and two minority groups, accuracies in a pattern that can be averaged by hand."""
    found = []
    for seed in range(seeds):
        for group in range(4):
            role = "majority" if group < 2 else "minority"
            for arm in arms:
                for budget in (1.0,) if arm == "original" else (0.5, 0.2):
                    accuracy = 0.9 - 0.1 * group - (0.1 if budget < 1 else 0.0) * group + 0.01 * seed
                    found.append((seed, group, f"g{group}", role, arm, budget, accuracy))
    names = ["seed", "group", "group_name", "role", "arm", "budget", "accuracy"]
    fixed = {"panel": "cifar10, resnet18, snl", "split": "test", "n": 100, "n_train": 10, "teacher": "t"}
    fixed |= {"data": "cifar10", "network": "resnet18", "profile": "fast", "diverged": False}
    return pd.DataFrame(found, columns=names).assign(**fixed)


def png(figure: plt.Figure) -> bytes:
    """The figure drawn in full: constrained layout warns, and warnings are errors, where things do not fit."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=50)
    return file.getvalue()


def test_the_notebook_offers_every_figure_and_every_profile() -> None:
    """Oracle: the definition files."""
    notebook = find_notebook("08_gpu_sweeps")
    assert set(notebook["figure"].choices) == {figure.name for figure in find("all")}
    assert notebook["profile"].choices == PROFILE_NAMES


def test_a_roles_mean_is_that_of_its_groups_within_a_seed_then_over_seeds() -> None:
    """By hand: accuracy of groups 2 and 3 at 20 % is 0.5 and 0.3, plus 0.01 a seed."""
    figure = next(one for one in figures().values() if one.quantity == "accuracy" and one.split == "test")
    means = sweeps.by_role(rows(), figure).set_index(["arm", "budget", "role"])
    assert means.loc[("plain", 0.2, "minority"), "mean"] == pytest.approx(100 * (0.4 + 0.01))
    assert means.loc[("original", 1.0, "majority"), "mean"] == pytest.approx(100 * (0.85 + 0.01))
    assert set(means["n_seeds"]) == {3}


def test_seeds_that_diverged_are_left_out_and_counted() -> None:
    figure = find("fig06")[0]
    table = rows()
    lost = (table["seed"] == 2) & (table["arm"] == "plain")
    means = sweeps.by_role(table.assign(diverged=lost, accuracy=table["accuracy"].where(~lost)), figure)
    assert dict(means.groupby("arm")["n_seeds"].max()) == {"original": 3, "plain": 2}


def test_the_figure_has_a_plot_an_arm_with_seeds_roles_and_the_note_on_what_is_missing() -> None:
    plots.style()
    means = sweeps.by_role(rows(("original", "plain", "control")), find("fig06")[0])
    figure = sweep_lines(means, label="relative drop (%)", note="incomplete: 3 of 10 seeds have every arm")
    assert [ax.get_title() for ax in figure.axes] == ["plain\n3 seeds", "control\n3 seeds"]
    assert "incomplete: 3 of 10 seeds" in figure.get_suptitle() and "relative drop (%)" in figure.get_suptitle()
    majority, minority = (bars[0].get_ydata().tolist() for bars in figure.axes[0].containers)
    at = means[(means["arm"].isin(["original", "plain"])) & (means["role"] == "minority")]
    assert minority == pytest.approx(at.sort_values("budget", ascending=False)["mean"].tolist())
    assert len(majority) == 3 and png(figure)


def test_panels_of_which_only_the_originals_are_there_are_counted_not_drawn() -> None:
    """Panels that share a teacher share its rows: DeepReDuce's panel is not begun because SNL's is."""
    figure = find("fig06")[0]
    title = "utkface_race, resnet18, snl (stand-in for resnet18 of full width)"
    [other] = [
        one.title
        for one in panels_of(figure, find_profile("thin"))
        if (one.data, one.method) == ("utkface_race", "deepreduce")
    ]
    table = rows(("original", "plain", "control")).assign(panel=title)
    table = pd.concat([table, table[table["arm"] == "original"].assign(panel=other)])
    assert set(sweeps.by_role(table, figure)["panel"]) == {title}
    counts = sweeps.seeds_of_panels(table, figure, "thin")
    assert (counts[title], counts[other], len(counts)) == (3, 0, 8)
    assert set(sweeps.seeds_of_panels(None, figure, "thin").values()) == {0}


def test_original_networks_alone_are_one_plot() -> None:
    figure = next(one for one in figures().values() if one.quantity == "accuracy" and one.split == "test")
    drawn = sweep_lines(sweeps.by_role(rows(("original",)), figure), label="accuracy (%)")
    assert [ax.get_title() for ax in drawn.axes] == ["original\n3 seeds"]


@pytest.mark.usefixtures("forked")
def test_a_smoke_grid_is_computed_read_and_complete_and_more_seeds_are_incomplete(tmp_path) -> None:
    said: list[str] = []
    failed = sweeps.compute("fig01", "smoke", tmp_path, seeds=2, progress=False, say=said.append)
    assert failed == [] and "0 failed, 0 left" in said[-1]
    table, how_far = sweeps.read("fig01", "smoke", tmp_path, seeds=2)
    assert sweeps.how_complete(how_far, 2).startswith("complete: 2 seeds, profile smoke, CPU")
    assert set(table["figure"]) == {"fig01"} and table["diverged"].dtype == bool
    more = sweeps.how_complete(sweeps.read("fig01", "smoke", tmp_path, seeds=3)[1], 3)
    assert more.startswith("incomplete: seeds with every arm: 2 of 3")


def test_without_minutes_nothing_is_computed_and_nothing_is_there(tmp_path) -> None:
    assert sweeps.compute("fig06", "fast", tmp_path, seeds=2, minutes=0) == []
    table, how_far = sweeps.read("fig06", "fast", tmp_path, seeds=2)
    assert table is None and list(tmp_path.iterdir()) == []
    assert sweeps.how_complete(how_far, 2).startswith("incomplete: seeds with every arm: 0 of 2; arms: 0 there")


@pytest.mark.usefixtures("forked")
def test_a_cell_whose_data_are_not_here_is_reported_and_does_not_stop_the_page(tmp_path, monkeypatch) -> None:
    """`fast` on a CPU without the paper's data: every cell fails, the page goes on and says which."""
    for name in ("LINFAIR_DATA", "LINFAIR_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    failed = sweeps.compute("fig01", "fast", tmp_path, seeds=1, progress=False, say=lambda line: None)
    assert failed and "failed" in failed[0]
    assert "failed; profile fast" in sweeps.how_complete(sweeps.read("fig01", "fast", tmp_path, seeds=1)[1], 1)


def test_the_results_folder_is_the_one_that_is_named_or_one_in_the_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LINFAIR_CACHE", str(tmp_path))
    assert tmp_path in sweeps.results_folder("").parents
    assert sweeps.results_folder(str(tmp_path / "mine")) == tmp_path / "mine"


def test_panels_that_only_share_originals_are_not_begun() -> None:
    rows = pd.DataFrame({"panel": ["a", "a", "b"], "arm": ["original", "plain", "original"]})
    assert sweeps.begun(rows)["panel"].tolist() == ["a", "a"]
    assert len(sweeps.begun(rows[rows["arm"] == "original"])) == 2


def test_rows_without_what_a_figure_shows_are_none_of_its() -> None:
    """Fig. 4 shows eigenvalues: of three originals one has it, one was computed without, and one diverged."""
    figure = figures()["fig04"]
    [job] = plan([figure], "small", seeds=3)
    known = {
        "data": job.cell.data,
        "network": job.cell.network,
        "method": "original",
        "options": "",
        "arm": "original",
        "width": 0,
        "base": "",
    }
    found = pd.DataFrame({"seed": [0, 1, 2], "top_eigenvalue": [3.0, None, None], "diverged": [False, False, True]})
    found = found.assign(**known, profile="small", budget=1.0, device="CPU")
    state = status(figure, "small", Found(found, frozenset()), seeds=3)
    assert (state.done, state.missing, state.seeds) == (2, 1, (0, 2))
