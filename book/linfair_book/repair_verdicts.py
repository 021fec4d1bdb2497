"""What the page on mitigations concludes, in words, from the tables of `linfair_book.mitigation`: no number is typed.

Each function takes the table and a way to keep a number (`linfair_book.claims.Page.note`: name, value, interval, n ->
text), and returns one paragraph of Markdown. A change is *shown* when its whole 95 % interval, of differences within a
seed, lies on one side of 0 (of 1 for ratios). Where every seed of a way diverged there is no number, and that is said.
"""

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import pandas as pd

from linfair.study.tables import SIDES, finished, over_seeds
from linfair_book import mitigation
from linfair_book.trade import trade

Note = Callable[..., str]

ALGORITHM_1 = "lagrangian"
RIVALS = ("balanced_sampling", "excess_drop", "lagrangian(kd_over_classes=True)")


LEFT = "no number: no seed is left"
_MISSING = SimpleNamespace(mean=math.nan, low=math.nan, high=math.nan, n_seeds=0)


def _key(*words: str) -> str:
    text = "-".join(words)
    for character in " _=.%()":
        text = text.replace(character, "-")
    return "-".join(part for part in text.replace(",", "").split("-") if part)


def _noted(note: Note, row: object, *words: str, unit: str = "points", digits: int = 1) -> str:
    if not row.n_seeds:
        return LEFT
    return note(_key(*words), row.mean, row.low, row.high, n=row.n_seeds, unit=unit, digits=digits)


def _terse(note: Note, table: pd.DataFrame) -> Note:
    """The same note, whose text leaves out an n that is the table's number of seeds."""
    usual = f" (n = {table['seed'].nunique()})"
    return lambda *numbers, **what: note(*numbers, **what).removesuffix(usual)


def _head(table: pd.DataFrame, *words: str, budget: float | None = None) -> str:
    at = [f"{100 * budget:g} % of the ReLUs"] if budget else []
    seeds = f"{table['seed'].nunique()} seeds"
    return f"**Verdict** ({', '.join([*at, *words, seeds])})."


def _side(row: object, zero: float = 0.0) -> str:
    return "up" if row.low > zero else "down" if row.high < zero else SIDES[2]


def _place(split: str) -> str:
    return {"test_balanced": "balanced test", "test": "imbalanced test", "train": "training images"}.get(split, split)


def _sentence(parts: Sequence[str]) -> str:
    text = "; ".join(parts)
    return text[:1].upper() + text[1:]


def _both(found: pd.DataFrame, way: str, budget: float) -> tuple[object, object]:
    at = found[(found["way"] == way) & (found["budget"] == budget)].set_index("group_name")
    rows = {row.Index: row for row in at.itertuples()}
    return rows.get("minority", _MISSING), rows.get("majority", _MISSING)


def _nothing(head: str, way: str = "") -> str:
    of = f" of {mitigation.label(way)}" if way else ""
    return f"{head} Every seed{of} diverged: nothing is left to compare."


def _has(table: pd.DataFrame, way: str, budget: float | None = None) -> bool:
    """Whether a seed of a way did not diverge (at one budget)."""
    rows = mitigation.with_ways(finished(table))
    return bool(((rows["way"] == way) & (budget is None or rows["budget"] == budget)).any())


def algorithm_1(table: pd.DataFrame, note: Note, *, way: str = ALGORITHM_1) -> str:
    """Sec. 6 and Fig. 9: does Algorithm 1 help minorities without harming majorities?"""
    note = _terse(note, table)
    head = _head(table, "Algorithm 1 with mu 0.001", "balanced test", "change against plain within a seed")
    if not _has(table, way):
        return _nothing(head, way)
    points, relative = (mitigation.compared(table, column=column) for column in ("points", "relative"))
    lines, helped, harmed, ats = [], [], [], []
    for budget in sorted(points["budget"].unique(), reverse=True):
        if not ((points["way"] == way) & (points["budget"] == budget)).any():
            continue
        (minority, majority), at = _both(points, way, budget), f"{100 * budget:g}"
        rare, frequent = _both(relative, way, budget)
        ats.append(at)
        helped += [at] * (minority.low > 0)
        harmed += [at] * (majority.high < 0)
        minority_text = _noted(note, minority, way, "minority points at", at)
        majority_text = _noted(note, majority, way, "majority points at", at)
        rare_text = _noted(note, rare, way, "minority relative change at", at, unit="%")
        frequent_text = _noted(note, frequent, way, "majority relative change at", at, unit="%")
        lines.append(
            f"at {at} % of the ReLUs the minority changes by {minority_text}, the majority by {majority_text} "
            f"(by Fig. 9's measure {rare_text} and {frequent_text}; negative is a gain)"
        )
    help_text = f"It helps the minority at {', '.join(helped)} %" if helped else "No gain of the minority is shown"
    harm_text = f"it costs the majority at {', '.join(harmed)} %" if harmed else "no loss of the majority is shown"
    free = [at for at in helped if at not in harmed]
    rest = [at for at in ats if at not in free]
    said = (
        f"The paper's “without detriment to majority groups” holds at {', '.join(free)} %"
        + (f", not at {', '.join(rest)} %." if rest else ".")
        if free
        else "At no budget does it do the one without the other: the paper's “without detriment to majority groups” is "
        "not what is seen here."
    )
    return f"{head} {help_text}, and {harm_text}. {said} {_sentence(lines)}."


def all_ways(table: pd.DataFrame, note: Note, *, budget: float = mitigation.HEADLINE) -> str:
    """The preregistered comparison: each way against plain at one budget, and how many intervals that is."""
    note = _terse(note, table)
    found = mitigation.compared(table)
    found = found[found["budget"] == budget]
    if found.empty:
        return _nothing(_head(table, "balanced test", budget=budget))
    kinds: dict[tuple[bool, bool], list[str]] = {}
    for way in found["way"].unique():
        minority, majority = _both(found, way, budget)
        for role, row in (("minority", minority), ("majority", majority)):
            if way != ALGORITHM_1:
                _noted(note, row, way, f"{role} points at {100 * budget:g}")
        kinds.setdefault((bool(minority.low > 0), bool(majority.high < 0)), []).append(mitigation.label(way))
    names = {
        (True, False): "help the minority, and no loss of the majority is shown",
        (True, True): "help the minority and cost the majority",
        (False, True): "cost the majority without a gain of the minority that is shown",
        (False, False): "change neither by an amount that is shown",
    }
    parts = [f"{len(kinds[kind])} {words} ({'; '.join(kinds[kind])})" for kind, words in names.items() if kind in kinds]
    intervals = len(found)
    return (
        f"{_head(table, 'balanced test', budget=budget)} Of {found['way'].nunique()} ways, "
        f"{'; '.join(parts)}. These are {intervals} intervals; if nothing had any effect, about {0.05 * intervals:.0f} "
        "of them would exclude 0 all the same."
    )


def rivals(
    table: pd.DataFrame, note: Note, *, budget: float = mitigation.HEADLINE, ways: Sequence[str] = RIVALS
) -> str:
    """Other ways against Algorithm 1, paired over seeds."""
    note = _terse(note, table)
    if not _has(table, ALGORITHM_1, budget):
        return _nothing(_head(table, "balanced test", "within a seed", budget=budget), ALGORITHM_1)
    found = mitigation.changes(table, against=ALGORITHM_1)
    found = found[(found["split"] == "test_balanced") & (found["budget"] == budget) & found["way"].isin(ways)]
    means = over_seeds(found, "points", ["way", "budget", "group_name"])
    parts = []
    for way in ways:
        minority, majority = _both(means, way, budget)
        rare = _noted(note, minority, way, f"against lagrangian minority points at {100 * budget:g}")
        frequent = _noted(note, majority, way, f"against lagrangian majority points at {100 * budget:g}")
        parts.append(
            f"{mitigation.label(way)} against Algorithm 1: minority {rare} ({_side(minority)}), majority {frequent} "
            f"({_side(majority)})"
        )
    return f"{_head(table, 'balanced test', 'within a seed', budget=budget)} {_sentence(parts)}."


def released(table: pd.DataFrame, note: Note) -> str:
    """What the released mitigation trains, CE + KD / C without groups: does *it* help without harm?"""
    note = _terse(note, table)
    if not _has(table, "kd_over_c"):
        return _nothing(_head(table, "KD / C", "balanced test", "against plain"), "kd_over_c")
    found = mitigation.compared(table)
    parts, free = [], []
    for budget in sorted(found["budget"].unique(), reverse=True):
        (minority, majority), at = _both(found, "kd_over_c", budget), f"{100 * budget:g}"
        free += [at] * (minority.low > 0 and not majority.high < 0)
        rare = _noted(note, minority, "released minority points at", at)
        frequent = _noted(note, majority, "released majority points at", at)
        parts.append(f"at {at} % minority {rare}, majority {frequent}")
    said = f"It helps the minority, and no loss of the majority is shown, at {', '.join(free)} %: " if free else ""
    pattern = "the pattern that the paper reports, without any term about groups." if free else ""
    return f"{_head(table, 'KD / C', 'balanced test', 'against plain')} {_sentence(parts)}. {said}{pattern}".strip()


def groups(table: pd.DataFrame, note: Note, *, way: str = ALGORITHM_1) -> str:
    """*Consistently enhances accuracy across all groups*: how many single groups gain."""
    found = mitigation.shares_of_groups(table)
    found = found[found["way"] == way]
    if found.empty:
        return _nothing("**Verdict** (single groups, balanced test).", way)
    parts = []
    for row in found.itertuples():
        at = f"{100 * row.budget:g}"
        key = _key(way, row.role, "groups that gain at", at)
        gain = note(key, 100 * row.gain / row.n, n=row.n, of="groups times seeds", unit="%", digits=0)
        parts.append(f"{row.role} at {at} %: {gain} gain, {100 * row.lose / row.n:.0f} % lose")
    return f"**Verdict** (single groups, balanced test). {_sentence(parts)}; the rest stay as they are."


def out_of_sample(table: pd.DataFrame, note: Note, *, budget: float = mitigation.HEADLINE) -> str:
    """Do gains shrink from the training split to the test?"""
    note = _terse(note, table)
    found = mitigation.in_and_out(table, budget=budget)
    if found.empty:
        return _nothing(_head(table, "minority", budget=budget))
    minority = found[found["group_name"] == "minority"]
    gains = minority[minority["of"] == "train"].set_index("way")
    shown = gains[gains["low"] > 0].index
    parts, shrinking = [], 0
    for way in shown:
        rows = {row.of: row for row in minority[minority["way"] == way].itertuples()}
        shrinking += rows["train minus test"].low > 0
        if way in (ALGORITHM_1, "balanced_sampling"):
            inside = _noted(note, rows["train"], way, f"minority points on train at {100 * budget:g}")
            gap = _noted(note, rows["train minus test"], way, f"minority points lost out of sample at {100 * budget:g}")
            parts.append(
                f"{mitigation.label(way)}: {inside} on the training images, {rows['test_balanced'].mean:+.1f} "
                f"[{rows['test_balanced'].low:.1f}, {rows['test_balanced'].high:.1f}] at test, a difference of {gap}"
            )
    told = [f"{'; '.join(parts)}."] if parts else []
    return (
        f"{_head(table, 'minority', budget=budget)} Of the {len(shown)} ways that help the minority on "
        f"its training images, {' '.join([f'{shrinking} help it less at test.', *told])}"
    )


def diagnostics(table: pd.DataFrame, column: str, note: Note, *, split: str, way: str = ALGORITHM_1) -> str:
    """Figs. 13 and 14: gradient norm or margin of a way over plain's, minority and majority.

    The paper expects the minority's gradient norm to fall, and its margin to grow.
    """
    note = _terse(note, table)
    found = mitigation.ratios(table, column, split=split, way=way)
    name, expected = mitigation.QUANTITIES[column], "down" if column == "gradient_norm" else "up"
    head = _head(table, name, _place(split), "over plain at the same budget")
    if found.empty:
        return _nothing(head, way)
    parts = []
    for role in ("minority", "majority"):
        texts = []
        for row in found[found["role"] == role].itertuples():
            key = (way, role, column, split, "ratio at", f"{100 * row.budget:g}")
            texts.append(f"{_noted(note, row, *key, unit='times', digits=2)} at {100 * row.budget:g} %")
        parts.append(f"*{role}* {', '.join(texts)}")
    rare = [row for row in found.itertuples() if row.role == "minority"]
    where = {side: [f"{100 * row.budget:g}" for row in rare if _side(row, 1.0) == side] for side in ("up", "down")}
    other = "up" if expected == "down" else "down"
    agreed = f"goes {expected}, as the paper says, at {', '.join(where[expected])} %"
    if not where[expected]:
        agreed = f"is nowhere shown to go {expected}"
    against = f"; it goes {other} at {', '.join(where[other])} %" if where[other] else ""
    return f"{head} {'; '.join(parts)}. The minority's {name.split(' /')[0]} {agreed}{against}."


def step(table: pd.DataFrame, note: Note, *, budget: float = mitigation.HEADLINE) -> str:
    """Fig. 15: does mu matter within the paper's values, and which seeds diverge?"""
    note = _terse(note, table)
    ways = [ALGORITHM_1 if mu == 0.001 else f"{ALGORITHM_1}(mu={mu!r})" for mu in mitigation.MUS]
    fate = mitigation.lost_seeds(table)
    lost = fate[fate["way"].isin(ways) & (fate["diverged"] > 0)]
    total = int(fate.loc[fate["way"].isin(ways), "diverged"].sum())
    runs = int(fate.loc[fate["way"].isin(ways), "n_seeds"].sum())
    note("diverged-unclipped", total, n=runs, of="fine-tunings", digits=0)
    diverged = "; ".join(
        f"{row.diverged} of {row.n_seeds} at mu {mitigation.label(row.way).rpartition(' ')[2]} "
        f"and {100 * row.budget:g} %"
        for row in lost.itertuples()
    )
    if not _has(table, ways[0]):
        return _nothing(f"{_head(table, 'unclipped')} Diverged: {diverged}, of {runs} fine-tunings.", ways[0])
    found = mitigation.changes(table, against=ways[0])
    found = found[(found["split"] == "test_balanced") & found["way"].isin(ways[1:])]
    means = over_seeds(found, "points", ["way", "budget", "group_name"])
    parts, moved = [], {"minority": {"up": 0, "down": 0}, "majority": {"up": 0, "down": 0}}
    for row in means.itertuples():
        if (side := _side(row)) in ("up", "down"):
            moved[row.group_name][side] += 1
        if row.budget == budget:
            key = (row.way, "against mu 0.0005", row.group_name, f"points at {100 * budget:g}")
            mu = mitigation.label(row.way).rpartition(" ")[2]
            parts.append(f"{row.group_name} at mu {mu}: {_noted(note, row, *key)}")
    each = len(means) // 2
    far = fate[(fate["way"] == f"{ALGORITHM_1}(mu={mitigation.BEYOND!r})")]
    beyond = []
    for row in far.itertuples():
        key = _key("diverged at mu", f"{mitigation.BEYOND:g}", "at", f"{100 * row.budget:g}")
        note(key, row.diverged, n=row.n_seeds, digits=0)
        beyond.append(f"{row.diverged} of {row.n_seeds} at {100 * row.budget:g} %")
    counts = "; ".join(f"{role} up in {one['up']}, down in {one['down']}" for role, one in moved.items())
    return (
        f"{_head(table, 'unclipped')} Diverged: {diverged or '0'}, of {runs} fine-tunings. Larger mu against "
        f"0.0005, at {100 * budget:g} % of the ReLUs: {'; '.join(parts)}. Over all budgets, of {each} such "
        f"differences for each role, shown: {counts}. Diverged at mu {mitigation.BEYOND:g}, far above the paper's: "
        f"{'; '.join(beyond) or 'not run'}."
    )


def selection(table: pd.DataFrame, note: Note, *, budget: float = mitigation.HEADLINE) -> str:
    """Before, after, both: the mitigation in the mask phase against the same one in fine-tuning."""
    note = _terse(note, table)
    found = mitigation.compared(table)
    found = found[found["budget"] == budget]
    parts = []
    for name in mitigation.SELECTED:
        ways = [f"{name}, before", name, f"{name}, both"]
        if not set(ways) <= set(found["way"]):
            continue
        texts = []
        for way, when in zip(ways, ("before", "after", "both"), strict=True):
            minority, majority = _both(found, way, budget)
            texts.append(f"{when} {minority.mean:+.1f} and {majority.mean:+.1f}")
        if not _has(table, name, budget):
            continue
        against = mitigation.changes(table, against=name)
        against = against[(against["split"] == "test_balanced") & (against["way"] == ways[2])]
        means = over_seeds(against[against["budget"] == budget], "points", ["way", "budget", "group_name"])
        minority, majority = _both(means, ways[2], budget)
        rare = _noted(note, minority, ways[2], f"against after minority points at {100 * budget:g}")
        frequent = _noted(note, majority, ways[2], f"against after majority points at {100 * budget:g}")
        parts.append(
            f"*{mitigation.label(name).removesuffix(', mu 0.001')}*, minority and majority: {', '.join(texts)} points; "
            f"both against after alone {rare} ({_side(minority)}) and {frequent} ({_side(majority)})"
        )
    epochs = mitigation.with_ways(table)
    epochs = epochs[epochs["budget"] == budget].groupby("way")["mask_epochs"].mean()
    took = ", ".join(
        f"{epochs[way]:.0f} with {mitigation.label(way).removesuffix(', before')}"
        for way in (f"{name}, before" for name in mitigation.SELECTED)
        if way in epochs
    )
    return (
        f"{_head(table, 'balanced test', 'against plain', budget=budget)} "
        f"{'; '.join(parts) or 'Every seed of one of the three diverged: nothing is left to compare'}. Epochs of mask "
        f"learning up to this budget: {epochs['plain']:.0f} by SNL alone, {took or 'not run otherwise'}."
    )


def trade_off(table: pd.DataFrame, note: Note, *, budget: float = mitigation.HEADLINE) -> str:
    """The Pareto picture: which ways no other one beats in both accuracy and fairness violation."""
    note = _terse(note, table)
    found = trade(table, budget=budget)
    by = found.set_index("way")
    best = found[found["best"]].sort_values("violation")
    head = (
        f"{_head(table, 'balanced test', 'means', budget=budget)} Not beaten in both: "
        f"{'; '.join(mitigation.label(way) for way in best['way'])}."
    )
    if not _has(table, ALGORITHM_1, budget):
        return _nothing(head, ALGORITHM_1)
    changed = []
    for split, words in (("test_balanced", "balanced test"), ("test", "imbalanced test")):
        rows = mitigation.compared(table, split=split, pooled="all")
        rows = rows[(rows["budget"] == budget) & (rows["way"] == ALGORITHM_1)]
        [row] = rows.itertuples()
        text = _noted(note, row, ALGORITHM_1, f"overall points on the {words} at {100 * budget:g}")
        changed.append(f"{text} on the {words}")
    plain, one, first = by.loc["plain"], by.loc[ALGORITHM_1], by.loc["original"]
    rows = mitigation.accuracies(table, pooled="group")
    rows = rows[(rows["split"] == "test_balanced") & (rows["budget"] == budget)]
    spread = 100 * rows.groupby(["way", "seed"])["accuracy"].agg(lambda values: values.max() - values.min())
    paired = (spread[ALGORITHM_1] - spread["plain"]).dropna().rename("change").reset_index().assign(of="violation")
    [fairer] = over_seeds(paired, "change", ["of"]).itertuples()
    narrowed = _noted(note, fairer, ALGORITHM_1, f"violation points at {100 * budget:g}")
    return (
        f"{head} The most accurate way has "
        f"{found.loc[~found['way'].isin(['original', 'control']), 'accuracy'].max():.1f} %, the original network "
        f"{first['accuracy']:.1f} %. Algorithm 1 takes the violation from "
        f"{plain['violation']:.1f} to {one['violation']:.1f} points, by {narrowed} (the original network has "
        f"{first['violation']:.1f}), and changes the accuracy of all images together by {' and '.join(changed)}."
    )
