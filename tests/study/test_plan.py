"""Definitions: the paper's grids are all there, wrong files are named with line, jobs come in the queue's order."""

import csv
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from linfair.data import DATASETS
from linfair.linearizers import LINEARIZERS
from linfair.mitigation import MITIGATIONS, Lagrangian
from linfair.models import NETWORKS
from linfair.study import recipe
from linfair.study.arms import ARMS, canonical, mitigation_of
from linfair.study.plan import (
    FIGURES,
    PROFILE_NAMES,
    DefinitionError,
    figures,
    find,
    find_profile,
    panels_of,
    plan,
    read_figure,
    read_profiles,
    read_queue,
)

ROOT = Path(__file__).parents[2]
GRIDS = {f"fig{number:02}" for number in (1, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15)}


def panels(name: str) -> set[tuple[str, str, str]]:
    return {(panel.data, panel.network, panel.method) for panel in figures()[name].panels}


PAGES = ("cpu", "faces", "private_digits", "pruning", "pruning_thin", "repair", "selection")
"""A queue, and what notebooks show on bundled data or through a thin network: they serve no claim."""


# What is there


def test_every_grid_figure_of_the_paper_is_defined_and_names_claims_that_exist() -> None:
    """Oracle: the list of issue 7 (Figs. 1, 3-9, 11-15) and `book/claims.csv`."""
    assert set(figures()) >= GRIDS
    with (ROOT / "book" / "claims.csv").open(newline="") as file:
        known = {row["id"] for row in csv.DictReader(file)}
    for figure in figures().values():
        assert set(figure.claims) <= known and bool(figure.claims) == (figure.name not in PAGES), figure.name


def test_panels_are_the_papers() -> None:
    """Oracle: section 8 of the reproduction notes, figure by figure."""
    both = ("utkface_age", "utkface_race")
    assert panels("fig01") == panels("fig14") == {("utkface_age", "resnet18", "snl")}
    assert panels("fig03") == panels("fig04") == panels("fig15") == {("utkface_race", "resnet18", "snl")}
    assert panels("fig06") == {
        *((data, "resnet18", "snl") for data in ("svhn", "cifar10", *both)),
        *((data, "resnet34", "snl") for data in both),
        *((data, "resnet18", "deepreduce") for data in both),
    }
    assert panels("fig07") == {(data, network, "snl") for data in both for network in ("vgg19", "wrn22_8")}
    assert panels("fig09") == {(data, "resnet18", method) for data in both for method in ("snl", "deepreduce")}
    assert panels("fig11") == {(d, n, "snl") for d in ("cifar10", "svhn") for n in ("resnet18", "resnet34")}
    [fifteen] = figures()["fig15"].panels
    assert [mitigation_of(arm).mu for arm in fifteen.arms[2:]] == [0.0005, 0.005, 0.01]
    repeated = [dict(panel.data_options) for panel in figures()["pruning_fig14"].panels]
    assert [(one["upsampled"], one["times"]) for one in repeated[1:]] == [
        (who, times) for who in ("female", "male") for times in (5, 10, 20)
    ]
    for figure in find("all"):
        for panel in figure.panels:
            if panel.method == "deepreduce":  # culling and thinning end at 3.3 %; a fixed list has its own budgets
                assert panel.budgets[-1:] == ((0.0333,) if figure.name == "deepreduce_search" else ()), figure.name
            elif panel.method == "prune_magnitude":  # 30, 50, 70, 90 % pruned, where something is and a rate is named
                several = len(panel.arms) > 1 and figure.name != "pruning_tab1"
                assert panel.budgets == ((0.7, 0.5, 0.3, 0.1) if several else (0.5,))
            else:
                assert panel.budgets[-1] == 0.02, (figure.name, panel.title)


def test_every_profile_is_there_and_has_a_recipe_for_every_network_it_uses() -> None:
    assert tuple(read_profiles()) == PROFILE_NAMES
    for profile in read_profiles().values():
        for panel in {one for figure in [*find("all"), *find("cpu")] for one in panels_of(figure, profile)}:
            assert recipe(panel.network, profile.name).base.epochs > 0
            assert (panel.data == "digits") == bool(profile.data)
            narrow = panel.network != "mlp" and panel.width not in (None, NETWORKS[panel.network][2])
            small = panel.network == "cnn" and not profile.data  # it has no narrower form
            full = panel.width or profile.name in ("fast", "paper") or small
            assert bool(panel.stands_for) == (narrow or not full)


def test_stand_ins_are_labelled_and_merged() -> None:
    [panel] = panels_of(figures()["fig07"], find_profile("smoke"))
    assert panel.title.startswith("digits, mlp, snl (stand-in for utkface_age, vgg19; utkface_race, vgg19;")


def test_the_thin_profile_keeps_the_papers_data_and_says_that_its_networks_are_narrow() -> None:
    first, *_, last = panels_of(figures()["fig06"], find_profile("thin"))
    assert first.title == "svhn, resnet18, snl (stand-in for resnet18 of full width)"
    assert first.budgets == (0.4, 0.2, 0.02) and recipe(first.network, "thin").width == 8
    assert last.method == "deepreduce" and last.budgets == (0.4, 0.2), "of the shares that its fixed list keeps"


# Jobs


def test_figures_share_cells_and_an_arm_is_in_one_job_only() -> None:
    jobs = plan(find("all"), "paper")
    pairs = [(job.cell, arm) for job in jobs for arm in job.arms]
    assert len(pairs) == len(set(pairs))
    alone = {
        pair for figure in find("all") for job in plan([figure], "paper") for pair in [(job.cell, a) for a in job.arms]
    }
    assert set(pairs) == alone


def test_jobs_come_in_the_order_of_the_queue_the_first_seeds_of_everything_before_the_others() -> None:
    """Oracle: issue 7's queue, written out; after it the figures of the pruning paper."""
    jobs = plan(find("all"), "fast")
    late = [job.cell.seeds[0] >= 3 for job in jobs]
    assert late == sorted(late) and sum(late) * 3 == 7 * (len(late) - sum(late))
    first = [job.cell for job in jobs if job.cell.seeds == (0,)]
    order = list(dict.fromkeys((cell.network, cell.method, cell.data) for cell in first))
    assert {method for _, method, _ in order[15:]} == {"prune_magnitude"}
    assert order[:15] == [
        *(("resnet18", method, data) for method in ("snl", "deepreduce") for data in PAPER_ORDER),
        *(("resnet34", "snl", data) for data in PAPER_ORDER),
        *((network, "snl", data) for network in ("vgg19", "wrn22_8") for data in ("utkface_age", "utkface_race")),
        *((network, "snl", "svhn") for network in ("resnet18", "resnet34")),
    ]
    figures = [job.figures for job in jobs if job.cell.seeds == (0,) and job.cell.method != "prune_magnitude"]
    assert figures[-3:] == [("label_group",), ("mitigations",), ("deepreduce_search",)]
    mus = next(place for place, job in enumerate(jobs) if "lagrangian(mu=0.005)" in job.arms)
    assert all(jobs[place].cell.data != "svhn" for place in range(mus))


PAPER_ORDER = ("utkface_race", "utkface_age", "cifar10")


def test_seeds_and_device_are_passed_on_and_a_study_needs_a_seed() -> None:
    jobs = plan(find("fig01"), "paper", seeds=2, device="cuda")
    assert [job.cell.seeds for job in jobs] == [(0,), (1,)]
    assert {job.cell.device for job in jobs} == {"cuda"}
    assert plan(find("fig01"), "smoke", seeds=3)[0].cell.seeds == (0, 1, 2)
    for count in (0, -1, 10**9):
        with pytest.raises(DefinitionError, match=f"at (least one seed|most 10,000 seeds), got {count}"):
            plan(find("fig01"), "smoke", seeds=count)


# Arms


def test_arms_are_read_as_written_and_have_one_spelling() -> None:
    assert [mitigation_of(arm) for arm in ARMS] == [None] * 3
    assert mitigation_of("lagrangian(mu=0.01, groups=[0, 2])") == Lagrangian(mu=0.01, groups=(0, 2))
    for name, one in MITIGATIONS.items():
        if name != "plain":
            assert mitigation_of(name) == one.options()
            assert canonical(f"{name}()") == name
    assert canonical("lagrangian(clip=5.0,mu=0.005)") == canonical("lagrangian( mu=5e-3, clip=5.0 )")
    assert mitigation_of(canonical("lagrangian(clip=5.0,mu=0.005)")) == Lagrangian(mu=0.005, clip=5.0)


@pytest.mark.parametrize(
    ("arm", "words"),
    [
        ("lagrangan", r"no arms \['lagrangan'\]; there are original, plain, control, lagrangian"),
        ("lagrangian(nu=1)", "no option 'nu'; did you mean 'mu'|no option 'nu'; there are mu, groups"),
        ("kd_over_c(mu=1)", "no option 'mu'; there are kd"),
        ("none", "the arm of plain fine-tuning is called 'plain'"),
        ("none()", "the arm of plain fine-tuning is called 'plain'"),
        ("plain(mu=1)", "no option 'mu'; there are kd"),
        ("original(kd=0)", "original has no options; write original"),
        ("lagrangian(kd=-1)", "kd is the weight of KD, 0 .* or above, got -1"),
        ("lagrangian(0.1)", r"write a name, or name\(option=value\)"),
        ("lagrangian(mu=", "is not an arm"),
        ("lagrangian(mu=-1)", "mu must not be negative"),
        ("__import__('os').getcwd()", "is not an arm"),
    ],
)
def test_a_wrong_arm_is_refused_with_what_is_allowed(arm: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        mitigation_of(arm)


# Wrong files


GOOD = (FIGURES / "fig01.toml").read_text()


@pytest.mark.parametrize(
    ("old", "new", "key", "words"),
    [
        ('data = "utkface_age"', 'data = "utkface_aeg"', "data", "did you mean 'utkface_age'? allowed are toy, digits"),
        ('network = "resnet18"', 'network = "resnet19"', "network", f"allowed are {', '.join(NETWORKS)}"),
        ('method = "snl"', 'method = "slim"', "method", f"allowed are {', '.join(LINEARIZERS)}"),
        ("budgets = [0.8,", "budgets = [0.1,", "budgets", "descending order"),
        ("budgets = [0.8,", 'budgets = ["0.8",', "budgets", "budgets must hold numbers"),
        ('"plain"', '"plane"', "arms", "there are original, plain, control"),
        ('"original", ', "", "arms", "must name `original`"),
        ('split = "test"', 'split = "tests"', "split", "allowed are train, val, test"),
        ('quantity = "accuracy"', 'quantity = "accurcy"', "quantity", "did you mean 'accuracy'?"),
        ('method = "snl"', 'methods = "snl"', "methods", "unknown key 'methods'; did you mean 'method'?"),
        ('title = "Accuracy of each age group"', "title = 3", "title", "title must be a str, got 3"),
        ("budgets = [0.8,", "budgets = 0.8 #", "budgets", "budgets must be a list, got 0.8"),
    ],
)
def test_a_wrong_value_is_named_with_file_line_and_what_is_allowed(
    old: str, new: str, key: str, words: str, tmp_path: Path
) -> None:
    """Oracle: the line on which the key stands, found by reading the file."""
    assert old in GOOD
    path = tmp_path / "fig01.toml"
    path.write_text(GOOD.replace(old, new))
    line = next(n for n, text in enumerate(path.read_text().splitlines(), start=1) if text.startswith(f"{key} ="))
    with pytest.raises(DefinitionError) as caught:
        read_figure(path)
    message = str(caught.value)
    assert message.startswith(f"{path}, line {line}: ")
    assert words in message


WRONG = [
    ("data", "['cifar10']"),
    ("quantity", "[]"),
    ("network", "{ name = 'resnet18' }"),
    ("method", "3"),
    ("split", "nan"),
    ("budgets", "[]"),
    ("budgets", "[20]"),
    ("budgets", "[0.5, 0.5]"),
    ("budgets", "[-0.1]"),
    ("budgets", "[nan]"),
    ("budgets", "[inf, 0.5]"),
    ("budgets", "[true, 0.5]"),
    ("budgets", f"[1{'0' * 400}]"),
    ("budgets", f"[{', '.join(str(1 - n / 5000) for n in range(5000))}]"),
    ("arms", "[]"),
    ("arms", "['original', 'plain', 'plain']"),
    ("arms", "['original', 'lagrangian', 'lagrangian(mu=0.001)']"),
    ("arms", "['original', 'lagrangian(mu=nan)']"),
    ("arms", "['original', 3]"),
    ("seeds", "0"),
    ("seeds", "-3"),
    ("seeds", "1_000_000_000"),
    ("seeds", "[0, 0]"),
    ("width", "10_000_000_000"),
    ("width", "true"),
    ("curvature", "['all']"),
    ("options", "3"),
    ("options", "{ lasso = nan }"),
    ("options", f"{{ lasso = 1{'0' * 400} }}"),
    ("data_options", "{ label = ['age'] }"),
    ("title", f"['{'x' * 100_000}']"),
]


@pytest.mark.parametrize(("key", "value"), WRONG, ids=[f"{key} {value[:20]}" for key, value in WRONG])
def test_every_wrong_value_is_one_short_line_with_the_key(key: str, value: str, tmp_path: Path) -> None:
    path = tmp_path / "fig01.toml"
    lines = [line for line in GOOD.splitlines() if not line.startswith(f"{key} =")]
    place = lines.index("[[panel]]")
    lines.insert(place if key in ("quantity", "split", "title") else len(lines), f"{key} = {value}")
    path.write_text("\n".join(lines))
    with pytest.raises(DefinitionError) as caught:
        read_figure(path)
    message = str(caught.value)
    assert re.match(rf"{re.escape(str(path))}, line \d+: ", message) and "\n" not in message and len(message) < 1500
    assert (key if key != "arms" else "arm") in message
    assert "0.2" in message or value != "[20]"


FILES: dict[str, Callable[[Path], object]] = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "nothing": lambda path: None,
    "a link to itself": lambda path: path.symlink_to(path),
    "too large": lambda path: path.write_bytes(b"#\n" * 10**6),
    "empty": Path.touch,
    "no UTF-8": lambda path: path.write_bytes(b'title = "\xe9"'),
    "UTF-16": lambda path: path.write_text(GOOD, encoding="utf-16"),
    "lists in lists": lambda path: path.write_text("x = " + "[" * 100_000),
    "tables in tables": lambda path: path.write_text("x = " + "{a = " * 100_000),
    "many digits": lambda path: path.write_text("x = " + "9" * 10_000),
    "no list of panels": lambda path: path.write_text(GOOD.replace("[[panel]]", "[panel]")),
    "no panel": lambda path: path.write_text(f"{GOOD[: GOOD.index('[[panel]]')]}panel = []"),
}


@pytest.mark.parametrize("kind", FILES)
def test_what_is_no_definition_is_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "fig01.toml"
    FILES[kind](path)
    with pytest.raises(DefinitionError) as caught:
        read_figure(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "text", ["smoke = 3", "[[smoke]]", "[smoke]\nabout = 'x'\nseeds = 2\nnetworks = { resnet18 = ['mlp'] }"]
)
def test_a_profile_that_is_no_table_or_has_lists_for_names_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "profiles.toml"
    path.write_text(text)
    with pytest.raises(
        DefinitionError, match=rf"{re.escape(str(path))}, line \d+: (smoke must be a table|networks has resnet18)"
    ):
        read_profiles(path)


def test_a_definition_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "fig01.toml"
    path.write_text(GOOD, encoding="utf-8-sig")
    assert read_figure(path) == figures()["fig01"]


def test_the_second_panel_has_its_own_lines(tmp_path: Path) -> None:
    path = tmp_path / "two.toml"
    second = GOOD[GOOD.index("[[panel]]") :].replace("snl", "slim")
    path.write_text(f"{GOOD}\n{second}")
    line = path.read_text()[: path.read_text().index("slim")].count("\n") + 1
    with pytest.raises(DefinitionError, match=rf"line {line}: method = 'slim'"):
        read_figure(path)


def test_missing_keys_and_broken_toml_are_named(tmp_path: Path) -> None:
    path = tmp_path / "fig01.toml"
    path.write_text(GOOD.replace('network = "resnet18"\n', ""))
    panel = GOOD[: GOOD.index("[[panel]]")].count("\n") + 1
    with pytest.raises(DefinitionError, match=rf"fig01.toml, line {panel}: network is missing"):
        read_figure(path)
    path.write_text(GOOD + "\nx = = 1")
    with pytest.raises(DefinitionError, match=r"fig01.toml: no valid TOML: .*line"):
        read_figure(path)


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        (
            "profiles",
            "[smoke]",
            "[smok]",
            r"line \d+: no profile 'smok'; allowed are smoke, small, quick, thin, cpu, fast",
        ),
        (
            "profiles",
            'resnet18 = "mlp", resnet34 = "mlp"',
            'resnet18 = "mpl"',
            r"line 9: networks has resnet18 = 'mpl'",
        ),
        ("profiles", "seeds = 2", "seeds = 0", "line 7: seeds must be at least 1, got 0"),
        ("queue", 'data = "svhn"', 'data = "shvn"', "did you mean 'svhn'"),
        ("queue", 'figure = "fig15"', 'figure = "fig16"', "did you mean 'fig1"),
        ("queue", "first_seeds = 3", "", "first_seeds is missing"),
    ],
)
def test_wrong_profiles_and_queues_are_named(file: str, old: str, new: str, words: str, tmp_path: Path) -> None:
    text = (FIGURES / f"{file}.toml").read_text()
    assert old in text
    path = tmp_path / f"{file}.toml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DefinitionError, match=words):
        read_profiles(path) if file == "profiles" else read_queue(path, figures())


def test_unknown_names_are_refused_with_the_closest() -> None:
    with pytest.raises(DefinitionError, match="no figure 'fig6'; did you mean 'fig0?6'"):
        find("fig6")
    with pytest.raises(DefinitionError, match="no profile 'big'; there are smoke, small, thin, cpu, fast, paper"):
        find_profile("big")
    assert set(DATASETS) >= {panel.data for figure in find("all") for panel in figure.panels}


def test_panels_can_be_chosen_and_what_is_not_there_is_named() -> None:
    only = {"data": "utkface_race", "network": "resnet18", "method": "snl"}
    jobs = plan(find("fig06"), "thin", only=only)
    assert [(job.cell.data, job.cell.network, job.cell.method) for job in jobs] == [tuple(only.values())] * 5
    assert set(jobs) < set(plan(find("fig06"), "thin"))
    with pytest.raises(DefinitionError, match="no panel has data 'utkface'; there are cifar10, svhn, utkface_age"):
        plan(find("fig06"), "thin", only={"data": "utkface"})
    with pytest.raises(DefinitionError, match="no panel has data svhn, network resnet34 together"):
        plan(find("fig06"), "thin", only={"data": "svhn", "network": "resnet34"})
