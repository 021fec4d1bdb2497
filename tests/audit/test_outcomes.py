"""Reports, tables and figures with every outcome forced: what is said follows from the numbers put in."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from linfair_book.reading import across_seeds
from made_audits import UNITS, made
from test_audit import Page

from linfair import audit as package
from linfair import plots
from linfair.audit import Audit, answer, caveats, figures, findings, html, repair, words, write_report
from linfair.audit.findings import check_table, rows_of
from linfair.audit.shown import minus
from linfair.ledger import Guarantee

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks/11_audit.ipynb"
LOST = {"lagrangian": "a multiplier is 9, above its limit 8", "group_dro": "the loss is not finite"}
TEN = (0.9,) * 10
FALLS = {0.5: (0.85, *[0.8] * 9), 0.05: (0.8, 0.2, *[0.6] * 8)}

OUTCOMES = {
    "a repair is chosen": {},
    "a repair is chosen and one diverged": {"diverged": LOST},
    "a repair is chosen and does worse on test": {"repaired": (0.7, 0.1)},
    "no repair gains": {"ends": "as before"},
    "every repair is worse": {"ends": "worse"},
    "every repair loses too much": {"ends": "all lose too much"},
    "the best gain is noise": {"ends": "within noise"},
    "noise is taken on request": {"ends": "within noise", "significance": 1.0},
    "every repair diverged": {"ends": "only plain", "diverged": LOST},
    "plain is the only arm": {"ends": "only plain"},
    "no repair was asked for": {"ends": None},
    "no gap at all": {"plain": {0.5: (0.9, 0.9), 0.05: (0.5, 0.5)}},
    "nothing is lost": {"plain": {0.5: (0.9, 0.9), 0.05: (0.9, 0.9)}},
    "everybody gains": {"original": (0.6, 0.6), "plain": {0.05: (0.9, 0.9)}},
    "all are right, then all are wrong": {"original": (1.0, 1.0), "plain": {0.05: (0.0, 0.0)}},
    "one budget": {"plain": {0.05: (0.8, 0.5)}},
    "all budgets fail": {"plain": {0.5: (0.5, 0.5), 0.05: (0.5, 0.4)}},
    "the budget is missed": {"kept": 346},
    "no search": {"converged": (None, None)},
    "no search converged": {"converged": (False, False)},
    "one search converged": {"converged": (True, False)},
    "with a control": {"control": (0.9, 0.8)},
    "the control loses as much": {"control": (0.8, 0.5)},
    "ten groups": {"original": TEN, "plain": FALLS, "control": TEN},
    "the original has not learned": {"original": (0.5, 0.5), "warnings": ("mine.py:build is right on 50.0 %",)},
}


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture(params=OUTCOMES.values(), ids=OUTCOMES)
def found(request: pytest.FixtureRequest) -> Audit:
    return made(**request.param)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch, house_style: None) -> None:
    """Figures are made, but not written as SVG, which takes most of a report's time; `test_audit` looks at theirs."""
    monkeypatch.setattr(figures, "svg", lambda figure, name, alt: f'<svg role="img" aria-label="{alt}"></svg>')


@pytest.fixture
def unplotted(monkeypatch: pytest.MonkeyPatch, undrawn: None) -> None:
    """No figure is made at all: the report's tests make those of every outcome."""
    for module, names in ((figures, ("slopes", "why_dots")), (plots, ("cost_parts",))):
        for name in names:
            monkeypatch.setattr(module, name, lambda *given: None)


def test_the_report_stands_and_shows_the_numbers(found: Audit, undrawn: None) -> None:
    """Oracle: the numbers put in. Every group in every table, no nan, no name of an arm that is not there."""
    written = html(found, command="linfair audit", files=["groups.parquet"])
    page = Page(re.sub(r"<style.*?</style>", "", written, flags=re.DOTALL))
    text = flat("".join(page.text))
    named, names = found.plan.named, list(found.subject.data.group_names)
    plain = rows_of(found, "plain", named)
    shown = page.frame("Accuracy in %, with its 95 % interval")
    assert list(shown["group"]) == names
    expected = [f"{100 * r.accuracy:.1f} [{100 * r.low:.0f}, {100 * r.high:.0f}]" for r in plain.itertuples()]
    assert list(shown[f"{100 * named:g} %"]) == expected
    assert not re.search(r"\b(nan|none|inf)\b", text, re.IGNORECASE)
    assert not re.search(r"kd_over_c|excess_drop|group_dro|lagrangian|test_balanced|best of \d", text), "names of ours"
    assert page.tags.count("svg") == 3 + (found.mitigated is not None and found.mitigated.choice.chosen != "plain")
    for sentence in answer(found):
        assert minus(sentence) in text
    assert not re.search(r"(?<![\w.)])-\d", text)


def test_a_repair_is_presented_as_a_fix_only_if_it_gained_more_than_noise(found: Audit) -> None:
    sentence = answer(found)[2]
    if found.mitigated is None:
        assert sentence == "No repair was tried (--no-mitigate)."
    elif found.mitigated.choice.helped:
        assert sentence.startswith("A helps on validation images, where it was chosen")
    else:
        starts = ("Nothing that was tried helps measurably", "Every repair that was tried diverged", "No repair was")
        assert sentence.startswith(starts)


def test_the_repair_table_has_the_repair_where_one_was_chosen(found: Audit) -> None:
    table = findings.repair_table(found)
    chosen = "plain" if found.mitigated is None else found.mitigated.choice.chosen
    rest = [] if chosen == "plain" else [chosen, "change"]
    assert list(table) == ["group", "role", "n", "plain fine-tuning", *rest]
    assert list(table["group"]) == [*found.subject.data.group_names, "all"]
    arms = repair.arm_table(found.mitigated)
    assert len(arms) == (0 if found.mitigated is None else len(found.mitigated.choice.candidates))


def test_each_check_has_the_outcome_of_its_interval(found: Audit) -> None:
    """Oracle: the ends of the interval; a repair's gain is judged by its p-value, a broken network not at all."""
    table = check_table(found).set_index(["name", "budget"])
    sides = {(True, False): "holds", (False, True): "does not hold", (False, False): "cannot tell"}
    for (name, budget), one in table.iterrows():
        if name == "a repair gains on validation images":
            assert (one["outcome"] == "holds") == (found.mitigated.choice.chosen != "plain" and one["p"] <= 0.05)
        elif (
            name == "groups lose differently" and table.loc[("the network beats one fixed answer", budget), "low"] <= 0
        ):
            assert one["outcome"] == "cannot tell"
        elif name == findings.WITHIN and table.loc[("the network beats one fixed answer", budget), "low"] <= 0:
            assert one["outcome"] in ("cannot tell", "does not hold")
        else:
            assert one["low"] <= one["value"] <= one["high"]
            assert one["outcome"] == sides[one["low"] > 0, one["high"] < 0]
    shown = findings.shown_checks(check_table(found))
    assert len(shown) == len(table) and not shown["points"].str.contains("nan").any()


def test_notebook_11_shows_every_outcome(found: Audit, tmp_path: Path, unplotted: None) -> None:
    """Every cell after the audit, run on a made one; the page always tries repairs."""
    if found.mitigated is None:
        return
    cells = [c for c in json.loads(NOTEBOOK.read_text())["cells"] if c["cell_type"] == "code"]
    sources = ["".join(cell["source"]) for cell in cells]
    (start,) = [number for number, text in enumerate(sources) if "found = audit.audit(" in text]
    (imports,) = [text for text in sources if text.startswith("import re")]
    space = {"found": found, "plan": {}, "subjects": [found.subject] * 2, "place": tmp_path, "mymodel": ""}
    exec(imports.split("settings = ")[0], space)
    space["audit"] = SimpleNamespace(**vars(package) | {"audit": lambda *given, **options: found})
    assert len(sources) - start > 10
    for text in sources[start + 1 :]:
        exec(text, space)
    assert (tmp_path / "report/index.html").stat().st_size > 5_000


def test_the_written_tables_are_those_of_the_audit(tmp_path: Path, unplotted: None) -> None:
    for number, ends in enumerate(("chosen", "only plain")):
        found = made(ends=ends)
        folder = write_report(found, tmp_path / str(number)).parent
        pd.testing.assert_frame_equal(pd.read_parquet(folder / "groups.parquet"), found.groups)


# What is said, by hand


def sentences(**options: object) -> tuple[str, str, str]:
    return answer(made(**options))


def test_who_pays_most_is_said_only_where_groups_differ_by_more_than_noise() -> None:
    assert "group g1 (minority, 60 training images) pays most" in sentences()[0]
    equal = sentences(plain={0.05: (0.5, 0.5)}, original=(0.9, 0.9), control=(0.9, 0.9))[0]
    assert "no longer works" in equal
    alike = sentences(plain={0.05: (0.7, 0.7)})[0]
    assert "lose most and least are not measurably apart" in alike and "pays most" not in alike
    assert "gap of 0.0 [" in alike
    near = sentences(plain={0.05: (0.7, 0.68)})[0]
    assert "lose most and least are not measurably apart" in near and "gap of 2.0 [" in near
    assert "no group measurably loses accuracy" in sentences(plain={0.05: (0.9, 0.89)})[0]


@pytest.mark.parametrize("control", [None, (0.9, 0.9)])
def test_a_group_that_certainly_loses_is_found_beside_one_that_may_lose_more(control: tuple[float, ...] | None) -> None:
    """Oracle: the intervals. Group g1 loses 20 points, but of so few images that it may as well gain."""
    found = made(plain={0.05: (0.8, 0.7)}, control=control)
    few = found.groups["group"] == 1
    wide = {"low": 0.3, "high": 1.0, "drop_low": -5.0, "drop_high": 45.0}
    groups = found.groups.assign(**{name: found.groups[name].mask(few, end) for name, end in wide.items()})
    found = replace(found, groups=groups)
    checks = check_table(found).set_index("name")
    for name in ["a group loses accuracy", *["a group loses against the control"] * (control is not None)]:
        assert (checks["outcome"][name], checks["group"][name]) == ("holds", "g0") and checks["low"][name] > 0
    said = answer(found)[0]
    assert "no group measurably loses" not in said and "are not measurably apart" in said


def test_from_which_budget_on_groups_differ_by_more_than_noise() -> None:
    assert sentences()[1] == "Groups fare measurably differently from 5 % of the ReLUs downwards."
    assert sentences(plain={0.5: (0.9, 0.5), 0.05: (0.9, 0.3)})[1].startswith("Groups fare measurably differently fro")
    mixed = {0.5: (0.9, 0.5), 0.2: (0.8, 0.8), 0.05: (0.9, 0.3), 0.02: (0.5, 0.1)}  # at 2 % nothing works
    apart = "Groups fare measurably differently at 50 %, 5 % of the ReLUs. At 20 %, 2 % that cannot be told."
    assert sentences(plain=mixed)[1] == apart
    assert sentences(plain={0.05: (0.7, 0.7)})[1].startswith("At no budget is the largest difference between")
    failed = sentences(plain={0.5: (0.5, 0.5), 0.05: (0.5, 0.4)})
    assert failed[1] == "The linearized network no longer works at any of the budgets."
    assert "says nothing about groups" in failed[0]


def test_a_change_that_rounds_to_0_has_no_minus() -> None:
    """Plain fine-tuning is right on (80 + 50) / 2 = 65 %, the repair on (70 + 59.92) / 2 = 64.96 %."""
    assert "Overall accuracy changes by +0.0 points." in sentences(repaired=(0.7, 0.5992))[2]


def test_every_headline_gives_the_share_kept_and_says_where_it_misses_the_budget(unplotted: None) -> None:
    assert sentences()[0].startswith("With 5 % of the ReLUs left (50 of 1,000), ")
    assert sentences(kept=49)[0].startswith("With 5 % of the ReLUs left (49 of 1,000), ")
    missed = sentences(plain={0.5: (0.8, 0.5)}, kept=346)[0]
    assert missed.startswith("With 34.6 % of the ReLUs left (346 of 1,000; the budget of 50 % was missed), ")
    when = sentences(plain={0.5: (0.8, 0.5)}, kept=346)[1]
    assert "from 34.6 % (budget 50 %) of the ReLUs" in when
    report = flat(html(made(plain={0.5: (0.8, 0.5)}, kept=346)))
    assert "At 34.6 % (budget 50 %) the same network" in report
    assert "the original network (open) and 34.6 % (budget 50 %) of the ReLUs" in report
    near = sentences(plain={0.5: (0.8, 0.5)}, kept=490)[0]
    assert near.startswith(f"With 49 % of the ReLUs left (490 of {UNITS:,}), ")


@pytest.mark.parametrize(
    ("ends", "why"),
    [
        ("as before", "no repair makes the worst group better on validation images"),
        ("worse", "no repair makes the worst group better on validation images"),
        ("all lose too much", "every repair loses more than 1 point overall on validation images"),
        ("within noise", "5.0 points with a, is within noise (p = 0.5)"),
    ],
)
def test_nothing_helped_says_why_and_where_the_worst_group_stays(ends: str, why: str) -> None:
    sentence = sentences(ends=ends)[2]
    assert sentence.startswith("Nothing that was tried helps measurably: ") and why in sentence
    assert "the worst group at 5 %, group g1, is right on 50.0 [40.4, 59.6] %" in sentence


def test_every_repair_diverged_is_said_with_their_number(unplotted: None) -> None:
    found = made(ends="only plain", diverged=LOST)
    assert answer(found)[2].startswith("Every repair that was tried diverged (2 of 2). With plain fine-tuning ")
    report = flat(html(found))
    assert "fine-tuned in 3 ways" in report and "Algorithm 1 diverged and is left out" in report
    assert answer(made(ends="only plain"))[2].startswith("No repair was tried. ")


def test_the_test_result_stands_beside_the_choice_whichever_way_it_goes() -> None:
    """By hand: 50 of 100 right, then 80, 45 or 10; a difference of Wilson intervals (MOVER)."""
    better, same, worse = (sentences(repaired=(0.9, one))[2] for one in (0.8, 0.45, 0.1))
    start = "the worst group at 5 % goes from 50.0 [40.4, 59.6] % (group g1) to "
    assert f"{start}80.0 [71.1, 86.7] % (group g1), a change of 30.0 [" in better and "the gain holds there" in better
    assert "a change of -5.0 [" in same and "not confirmed there, it is within test noise" in same
    assert "a change of -40.0 [" in worse and "does not hold there, the worst group loses" in worse
    assert "Overall accuracy changes by +20.0 points" in better


@pytest.mark.parametrize(
    ("plain", "tolerance", "outcome", "budget", "group"),
    [
        ({0.5: (0.9, 0.9), 0.05: (0.9, 0.5)}, 9, "holds", 0.5, "g0"),
        ({0.5: (0.9, 0.9), 0.05: (0.85, 0.85)}, 20, "holds", 0.05, "g0"),
        ({0.5: (0.9, 0.88), 0.2: (0.9, 0.9), 0.05: (0.9, 0.5)}, 2, "cannot tell", 0.5, "g1"),
        ({0.5: (0.9, 0.6), 0.05: (0.9, 0.5)}, 2, "does not hold", 0.5, "g1"),
        ({0.5: (0.7, 0.7), 0.05: (0.5, 0.5)}, 100, "holds", 0.5, "g0"),
    ],
)
def test_the_light_is_the_lowest_budget_within_the_tolerance(
    plain: dict, tolerance: float, outcome: str, budget: float, group: str
) -> None:
    """By hand: 90 of 100 right before; no change has the interval [-8.7, 8.7]. A network that fails is never green."""
    found = made(plain=plain)
    found = replace(found, plan=replace(found.plan, tolerance=tolerance))
    light = findings.headline(found)
    assert (light.outcome, light.budget, light.group) == (outcome, budget, group)
    said = words(found, "light")
    start = {"holds": "Yes", "cannot tell": "Cannot tell", "does not hold": "No"}[outcome]
    assert said.startswith(start) and f"{tolerance:g} point" in said and f"{100 * budget:g} %" in said
    for name, row in rows_of(found, "plain", light.budget).set_index("group_name").iterrows():
        assert row["drop_high"] <= tolerance or outcome != "holds"
        if name == group:
            assert f"[{row['drop_low']:z.1f}, {row['drop_high']:z.1f}]" in said


def test_noise_taken_on_request_is_called_noise() -> None:
    found = made(ends="within noise", significance=1.0)
    sentence, marks = answer(found)[2], repair.arm_table(found.mitigated)
    assert sentence.startswith("Nothing that was tried helps measurably: the gain of a on validation images")
    assert "because --significance is 1." in sentence
    assert list(marks[""]) == ["", "chosen, gain within noise"]


def test_searches_that_did_not_converge_put_no_group_in_order() -> None:
    assert "largest top Hessian eigenvalue of 2 groups" in words(made(), "standing")
    for converged, count in (((False, False), 2), ((True, False), 1)):
        found = made(converged=converged)
        where = words(found, "standing")
        assert "top Hessian eigenvalue of" not in where and f"did not converge in {count} of 2 groups" in where
        assert list(findings.why_table(found)["top Hessian eigenvalue"].str.contains("not converged")) == [
            not one for one in converged
        ]
    without = made(converged=(None, None))
    assert "eigenvalue" not in words(without, "standing") and "top Hessian eigenvalue" not in findings.why_table(
        without
    )


def test_what_is_left_of_a_guarantee_stands_below_the_answer(unplotted: None) -> None:
    promise = Guarantee(3.0, 1e-5, "rdp", 1.0, 1.0, 0.1, 100)
    assert f"Privacy of the training images: {promise.text()}." in flat(
        html(replace(made(), guarantees={("plain", 0.05): promise}))
    )
    assert "Privacy of the training" not in html(made())


def test_the_control_says_what_training_alone_did() -> None:
    assert "it changes by -10.0 [" in words(made(control=(0.9, 0.8)), "control")
    assert "the linearized network is 0.0 [" in words(made(control=(0.8, 0.5)), "control")
    assert "No control was trained" in words(made(), "control")
    hidden = sentences(original=(0.6, 0.6), plain={0.05: (0.9, 0.65)}, control=(0.95, 0.95))[0]
    assert "is 30.0 [" in hidden and "points better in group g1" in hidden


def test_several_seeds_are_a_line_each_whatever_they_found() -> None:
    table = across_seeds([made(**options) for options in OUTCOMES.values()])
    assert len(table) == len(OUTCOMES) and not table.isna().any().any()


def test_figures_draw_groups_by_number_not_by_place(house_style: None) -> None:
    """Rows in any order give the same picture: a line for each group, and one to each name."""
    found = made(original=TEN, plain=FALLS, ends=None)
    mixed = found.groups.sample(frac=1, random_state=0)
    lines = []
    for table in (found.groups, mixed):
        networks = {str(at): rows_of(replace(found, groups=table), *at) for at in (("original", 1.0), ("plain", 0.05))}
        lines.append([line.get_ydata().tolist() for line in figures.slopes(networks, 1).axes[0].lines])
    assert lines[0] == lines[1] and len(lines[0]) == 20


def test_lines_that_were_skipped_are_counted_in_the_caveats() -> None:
    found = made()
    found.subject.data.provenance["skipped"] = [("a.png", "unreadable"), ("b.png", "unreadable")]
    assert dict(caveats(found))["Skipped files"].startswith("2 lines of labels.csv could not be used")


def test_nonlinearities_that_no_number_holds_are_named_and_counted(unplotted: None) -> None:
    found = made()
    others = "2,048 LeakyReLU in 1; 512 MaxPool outputs (3 comparisons each) in 2"
    named = replace(found, cost=found.cost.assign(others=others))
    said = f"Nonlinearities that stay and are in no number here, for one image: {others}."
    assert said in html(named)
    assert said in dict(caveats(named))["Cost"]
    assert said not in html(found)
    worse = replace(named, cost=named.cost.assign(dominant="GELU (8 MB against 0.3 MB)"))
    assert "Removing ReLUs will not help" in " ".join(dict(caveats(worse))["Cost"].split())
    assert "less than GELU (8 MB against 0.3 MB). Replace" in " ".join(html(worse).split())
    assert "will not help" not in html(named)
