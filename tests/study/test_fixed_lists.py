"""Fixed lists of configurations in panels: counts, budgets, options in TOML, what rows say, what is gathered."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from linfair.cli import main
from linfair.data import DATASETS, EMBEDDED, input_shape, load_data
from linfair.engine.store import Tables
from linfair.linearizers import PAPER_CONFIGURATIONS
from linfair.linearizers.configurations import fixed_list
from linfair.study import ResultStore, grid, run
from linfair.study.grids import listed, pairs
from linfair.study.plan import FIGURES, DefinitionError, figures, find, find_profile, panels_of, plan, read_figure
from linfair.study.results import brief, collect, gather, status

COUNTS = {
    "2,3": 294_912,
    "1": 229_376,
    "1,4": 196_608,
    "1,3": 163_840,
    "1,3,4": 131_072,
    "1,2": 98_304,
    "1,2,4": 65_536,
    "1,2,3": 32_768,
}
"""The paper's configurations of ResNet18 at 32x32, of 491,520 units: the reproduction notes."""
GOOD = (FIGURES / "fig01.toml").read_text()
LIST = '["2,3", "1", "1,4", "1,3", "1,3,4", "1,2", "1,2,4", "1,2,3"]'


def written(tmp_path: Path, options: str, *, network: str = "resnet18", budgets: bool = False) -> Path:
    """A figure with one panel of DeepReDuce with these options."""
    text = GOOD.replace('method = "snl"', f'method = "deepreduce"\noptions = {options}')
    text = text.replace('network = "resnet18"', f'network = "{network}"')
    if not budgets:
        text = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("budgets"))
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


# Counts and budgets


@pytest.mark.parametrize("name", ["fig05", "fig06", "fig09"])
def test_study_show_prints_the_eight_counts_of_the_papers_deepreduce(name: str, capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("LINFAIR_DATA", str(tmp_path))  # names need the data, counts do not
    monkeypatch.setenv("LINFAIR_CACHE", str(tmp_path))
    main.main(["study", "show", name, "--profile", "paper", "--seeds", "1", "--method", "deepreduce"])
    shown = capsys.readouterr().out
    for configuration, count in COUNTS.items():
        assert f"culled {configuration:8} keeps {count:>9,} of 491,520 units" in shown
    panels = [panel for panel in figures()[name].panels if panel.method == "deepreduce"]
    assert shown.count("culled ") == 8 * len(panels)


def test_the_papers_panels_have_the_fixed_list_a_fresh_start_and_no_fine_tuning_and_the_search_is_a_variant() -> None:
    for name in ("fig05", "fig06", "fig09"):
        for panel in panels_of(figures()[name], find_profile("paper")):
            if panel.method == "deepreduce":
                options = {"configurations": PAPER_CONFIGURATIONS, "finetuning": False, "start": "fresh"}
                assert dict(panel.options) == options
                assert [round(budget * 491_520) for budget in panel.budgets] == list(COUNTS.values())
    [search] = figures()["deepreduce_search"].panels
    assert search.options == () and search.budgets == (0.6, 0.4, 0.2, 0.0667, 0.0333)


def test_a_fixed_list_of_resnet34_is_ordered_by_what_it_keeps_there() -> None:
    """Stages of 393,216, 262,144, 196,608 and 49,152 units: 3, 4, 6 and 3 blocks of two ReLUs."""
    stages = {1: 393_216, 2: 262_144, 3: 196_608, 4: 49_152}
    kept = {one: sum(n for stage, n in stages.items() if str(stage) not in one.split(",")) for one in COUNTS}
    found = fixed_list("resnet34", (3, 32, 32), None, PAPER_CONFIGURATIONS)
    assert [(name, count) for name, count, _ in found] == sorted(kept.items(), key=lambda item: -item[1])
    assert {total for _, _, total in found} == {901_120}


@pytest.mark.parametrize("width", [None, 8])
def test_shares_do_not_depend_on_the_width(width: int | None) -> None:
    found = fixed_list("resnet18", (3, 32, 32), width, PAPER_CONFIGURATIONS)
    assert [count / total for _, count, total in found] == [count / 491_520 for count in COUNTS.values()]


@pytest.mark.parametrize("data", DATASETS)
def test_the_shape_of_an_input_is_known_without_the_images(data: str) -> None:
    expected = {"toy": (2,), "digits": (1, 12, 12), "digits_s": (3, 12, 12), "mnist": (1, 28, 28)}.get(
        data, (3, 32, 32)
    )
    assert input_shape(data) == expected
    if data in EMBEDDED:
        assert load_data(data).input_shape == expected


def test_a_fixed_list_with_budgets_takes_the_nearest_and_the_planner_plans_it(tmp_path: Path) -> None:
    """The case that ended in `TypeError: unhashable type: 'list'`."""
    figure = read_figure(written(tmp_path, f"{{ configurations = {LIST} }}", budgets=True))
    jobs = plan([figure], "paper", seeds=2)
    assert len(jobs) == 2 and len(set(jobs)) == 2
    assert jobs[0].cell.budgets == (0.8, 0.6, 0.4, 0.2, 0.02)
    assert [name for name, _, _ in listed(jobs[0].cell)] == ["2,3", "2,3", "1,4", "1,2", "1,2,3"]


def test_stand_ins_take_what_their_network_can_have(tmp_path: Path) -> None:
    """An mlp of two equal layers has stages 1 and 2; culling both leaves nothing."""
    figure = read_figure(written(tmp_path, f"{{ configurations = {LIST} }}"))
    [panel] = panels_of(figure, find_profile("smoke"))
    assert (panel.network, panel.budgets) == ("mlp", (0.5,))
    assert dict(panel.options)["configurations"] == ("1",)
    assert [job.cell.budgets for job in plan([figure], "smoke")] == [(0.5,)]


# Options in TOML


@pytest.mark.parametrize(
    ("options", "network", "words"),
    [
        ('{ configurations = "1,4" }', "resnet18", ["configurations = '1,4'", "takes a list of text"]),
        ("{ configurations = [1, 4] }", "resnet18", ["configurations = [1, 4]", "takes a list of text"]),
        ('{ configurations = [["1"]] }', "resnet18", ["configurations = [['1']]", "takes a list of text"]),
        ('{ configurations = { a = "1" } }', "resnet18", ["configurations = {'a': '1'}", "takes a list of text"]),
        ('{ configurations = ["1;4"] }', "resnet18", ["'1;4'", "reads '1,4' or '1,4+thin'"]),
        ('{ configurations = ["1", "1,5"] }', "resnet18", ["resnet18", "4 stages", "1,5", "it can have 1"]),
        (f"{{ configurations = {LIST} }}", "wrn22_8", ["wrn22_8", "3 stages", "1,4 / 1,3,4 / 1,2,4", "2,3 / 1 / 1,3"]),
        (f"{{ configurations = {LIST} }}", "vgg19", ["vgg19", "2,3 / 1 (172,032)", "1,3 / 1,2 (106,496)", "leave all"]),
        ('{ configurations = ["3"] }', "mlp", ["mlp", "2 stages", "none of the list"]),
        ('{ start = "cold" }', "resnet18", ["start = 'cold'", "teacher, fresh"]),
        ("{ finetuning = 0 }", "resnet18", ["finetuning = 0", "takes true or false"]),
        ("{ kd_weight = 2 }", "resnet18", ["kd_weight = 2", "[0, 1]"]),
        ('{ mitigation = "lagrangan" }', "resnet18", ["lagrangan", "did you mean 'lagrangian'?"]),
        ("{ schedule = { lr = 0.1 } }", "resnet18", ["schedule = {'lr': 0.1}", "made in Python"]),
        ('{ configuration = ["1"] }', "resnet18", ["no option 'configuration'", "did you mean 'configurations'?"]),
    ],
)
def test_a_wrong_option_is_refused_with_file_line_panel_option_value_and_what_is_allowed(
    options: str, network: str, words: list[str], tmp_path: Path
) -> None:
    path = written(tmp_path, options, network=network, budgets='"1' not in options)
    line = next(n for n, text in enumerate(path.read_text().splitlines(), start=1) if text.startswith("options ="))
    with pytest.raises(DefinitionError) as caught:
        read_figure(path)
    message = str(caught.value)
    assert message.startswith(f"{path}, line {line}: panel 1 (utkface_age, {network}, deepreduce): options: ")
    assert all(word in message for word in words), message


def test_wrong_data_options_are_refused_in_the_same_way(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    for options, words in {
        "{ group = 3 }": "group = 3 is not allowed; group takes text",
        "{ test = [0.2] }": r"test = \[0.2\] is not allowed",
        "{ groups = 'race' }": "did you mean 'group'",
        "{ seed = 3 }": "no option 'seed'",
    }.items():
        path.write_text(GOOD + f"data_options = {options}\n")
        with pytest.raises(DefinitionError, match=rf"panel 1 \(utkface_age, resnet18, snl\): data_options: .*{words}"):
            read_figure(path)


def test_without_a_fixed_list_budgets_are_needed(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="budgets is missing; only a fixed list"):
        read_figure(written(tmp_path, "{ exponent = 0.1 }"))
    with pytest.raises(ValueError, match="budgets are missing: snl has a fixed list only"):
        grid("digits", "mlp", seeds=[0])


def test_a_grid_of_python_has_the_same_options_as_one_of_toml(tmp_path: Path) -> None:
    """A list becomes a tuple there too, and a fixed list has its own budgets."""
    options = {"configurations": ["1"], "start": "fresh"}
    [cell] = grid("digits", "mlp", method="deepreduce", seeds=[0], options=options)
    assert cell.options == (("configurations", ("1",)), ("start", "fresh")) and cell.budgets == (0.5,)
    hash(cell)
    with pytest.raises(ValueError, match="deepreduce: start = 3 is not allowed; start takes text"):
        grid("digits", "mlp", method="deepreduce", budgets=[0.5], seeds=[0], options={"start": 3})


# Rows


@pytest.fixture(scope="module")
def rows(one_thread: None, light: None, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The smoke stand-in of the paper's panel, with a mitigation, two seeds."""
    store = ResultStore(tmp_path_factory.mktemp("fixed"))
    options = {"configurations": ("1",), "start": "fresh", "finetuning": False}
    cells = grid("digits", "mlp", method="deepreduce", seeds=[0, 1], profile="smoke", options=options)
    return run(cells, arms=["original", "plain", "control", "kd_over_c"], store=store, progress=False)


def test_rows_carry_the_configuration_and_the_share_that_is_kept(rows: pd.DataFrame) -> None:
    one = rows.drop_duplicates(["arm", "seed"]).set_index(["arm", "seed"])
    for seed in (0, 1):
        assert one.loc[("plain", seed), ["configuration", "kept", "total"]].tolist() == ["1", 64, 128]
        assert one.loc[("control", seed), ["configuration", "kept", "total"]].tolist() == ["", 128, 128]
        assert one.loc[("original", seed), ["configuration", "kept", "total"]].tolist() == ["", 128, 128]
    assert set(one["mask_epochs"]) == {0, 2}, "the whole run is DeepReDuce's own: no fine-tuning epochs beside it"


def test_rows_with_other_options_are_not_taken_for_a_figure(rows: pd.DataFrame, tmp_path: Path) -> None:
    """A panel's rows are those computed with its options: not those of another start, nor of a search."""
    figure = read_figure(written(tmp_path, '{ configurations = ["1"], start = "fresh", finetuning = false }'))
    other = read_figure(written(tmp_path, '{ configurations = ["1"], start = "teacher", finetuning = false }'))
    Tables(tmp_path / "results").write("one", rows)
    found = collect([str(tmp_path / "results")])
    assert set(gather(figure, "smoke", found, seeds=2)["arm"]) == {"original", "plain", "control"}
    assert status(figure, "smoke", found, seeds=2).missing == 0
    assert set(gather(other, "smoke", found, seeds=2)["arm"]) == {"original"}
    assert status(other, "smoke", found, seeds=2).missing == 4
    for one in (figure, other):
        assert status(one, "smoke", brief(found), seeds=2) == status(one, "smoke", found, seeds=2)


def test_results_without_the_column_options_were_computed_without_any(rows: pd.DataFrame, tmp_path: Path) -> None:
    old = rows.drop(columns=["options", "configuration", "total"])
    Tables(tmp_path / "results").write("old", old)
    found = collect([str(tmp_path / "results")]).rows
    assert set(found["options"]) == {""}
    [cell] = grid("digits", "mlp", method="deepreduce", budgets=[0.5], seeds=[0], profile="smoke")
    assert pairs(cell.options) == ""


def test_titles_tell_panels_with_other_options_apart() -> None:
    titles = [panel.title for figure in find("all") for panel in panels_of(figure, find_profile("paper"))]
    by_title = {panel.title: panel for figure in find("all") for panel in panels_of(figure, find_profile("paper"))}
    assert by_title["utkface_race, resnet18, deepreduce"].options == ()
    assert "utkface_race, resnet18, deepreduce, 8 configurations, finetuning False, start fresh" in titles
    assert replace(by_title["utkface_race, resnet18, deepreduce"]).budgets[0] == 0.6
