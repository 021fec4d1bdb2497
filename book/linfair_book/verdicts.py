"""What the theory page concludes, in words, from its tables: no number is typed.

Each function takes the tables of one statement and a way to keep a number (`linfair_book.claims.Page.note`: name,
value, interval, n -> text), and returns one paragraph of Markdown.
"""

from collections.abc import Callable, Sequence

import pandas as pd

from linfair.theory.optimality import Counterexample

Note = Callable[..., str]


def approximation(rates: pd.DataFrame, note: Note) -> str:
    """Of Prop. 4.1, from `linfair.theory.approximation.rates`."""
    by = rates.set_index("function")
    square, points = by.loc["square"], int(rates["points"].iloc[0])
    fit = {"n": points, "of": "numbers of segments", "digits": 3}
    ends = {"n": len(rates), "of": "functions", "digits": 3}
    off = (rates["scaled"] / rates["limit"] - 1).abs().max()
    holds = bool(rates["last_order"].between(-2.2, -1.8).all())
    return (
        f"**Verdict.** It {'holds for all' if holds else 'does not hold for all'} {len(rates)} functions. For $x^2$ "
        f"the exponent is {note('exponent-of-square', square['order'], **fit)} and $8 n^2 E_n$ is "
        f"{8 * square['scaled']:.6f}, where the closed form $1/(8n^2)$ says 1. From the two largest n the exponents "
        "run from "
        f"{note('exponent-lowest', rates['last_order'].min(), **ends)} to "
        f"{note('exponent-highest', rates['last_order'].max(), **ends)}; $n^2 E_n$ is within {100 * off:.1f} % of its "
        "limit. Free ends matter: equally spaced, $-\\sqrt{x}$ has the exponent "
        f"{note('exponent-root-even', by.loc['root', 'even_order'], **fit)}."
    )


def pieces(
    counts: pd.DataFrame, reached: pd.DataFrame, example: Sequence[int], lines: pd.DataFrame, budget: float, note: Note
) -> str:
    """Of Prop. 4.2.

    Args:
        counts: From `linfair.theory.networks.counts_of_random_networks`.
        reached: From `linfair.theory.networks.reached`.
        example: Pieces of Fig. 10's two networks.
        lines: From `linfair_book.theory.line_table`.
        budget: Share of ReLUs kept to quote beside 100 %.
        note: Keeps a number.
    """
    above = int(((counts["pieces"] > counts["bound_kept"]) | (counts["pieces"] > counts["bound"])).sum())
    misused = int((counts["pieces"] > counts["printed_with_kept"]).sum())
    more = int((counts["pieces"] > counts["pieces_full"]).sum())
    sharp = int((reached["pieces"] == reached["bound_kept"]).sum())
    full = counts[counts["share"] == 1.0]
    deepest = full[full["bound"] == full["bound"].max()]
    mean = lines.groupby("budget")["pieces"].mean()
    each = {"n": len(counts), "of": "networks", "digits": 0}
    segment = {"n": len(lines) // lines["budget"].nunique(), "of": "segments", "digits": 1}
    typical = note("mean-pieces-of-the-deepest", deepest["pieces"].mean(), n=len(deepest), of="networks", digits=1)
    return (
        f"**Verdict.** Both bounds {'hold' if above == 0 else 'fail'}: counts above one of them: "
        f"{note('counts-above-a-bound', above, **each)}. The product is sharp: constructions that reach it: "
        f"{note('constructions-at-the-product', sharp, n=len(reached), of='constructions', digits=0)}. Of these the "
        f"printed bound is reached by {int((reached['pieces'] == reached['bound']).sum())}, with one hidden layer. "
        f"Typical networks are far from both: random ones with layers {deepest['widths'].iloc[0]} have {typical} "
        f"pieces where the printed bound allows {int(deepest['bound'].iloc[0])}. Linearizing units added pieces in "
        f"{note('counts-raised', more, **each)} cases. With kept counts put for the widths the printed formula is "
        f"wrong, as a layer without ReLUs makes it 0: {note('counts-above-printed-with-kept', misused, **each)} counts "
        f"are above it. App. B.1's example has {note('fig-10-pieces', example[0], n=1, of='networks', digits=0)} and, "
        f"linearized, {note('fig-10-pieces-linearized', example[1], n=1, of='networks', digits=0)} pieces. In the "
        f"trained networks a segment has {note('pieces-on-a-segment-at-100', mean[1.0], **segment)} pieces with all "
        f"ReLUs and {note(f'pieces-on-a-segment-at-{100 * budget:g}', mean[budget], **segment)} at {100 * budget:g} %."
    )


def losing(shares: pd.DataFrame, example: Counterexample, note: Note) -> str:
    """Of Prop. 4.3, from `linfair_book.theory.loss_shares` and the closed-form counterexample."""
    every = shares[shares["who"] == "all"]
    said = []
    for budget in sorted({every["budget"].max(), every["budget"].min()}, reverse=True):
        for row in every[every["budget"] == budget].itertuples():
            share = note(
                f"no-group-gains-{row.split}-at-{100 * budget:g}",
                100 * row.mean,
                100 * row.low,
                100 * row.high,
                n=row.n,
                unit="%",
                digits=0,
            )
            said.append(f"{share} at {100 * budget:g} % of the ReLUs ({row.split})")
    refuted = bool((every["mean"] < 1).any()) or min(example.excess) < 0
    exact = {"n": 1, "of": "constructions", "unit": "nats"}
    return (
        f"**Verdict.** {'Not as stated' if refuted else 'Not refuted here'}. Networks in which no group gains: "
        f"{'; '.join(said)}. And optimality does not save the statement: in the counterexample, in closed form, the "
        f"whole sample loses {note('counterexample-all', example.overall, **exact)} and the minority's R(a) is "
        f"{note('counterexample-minority', min(example.excess), **exact)}: it gains."
    )


def excess(summary: pd.DataFrame, ranks: pd.DataFrame, note: Note) -> str:
    """Of Theorem 4.4, from `linfair_book.theory.bound_summary` and `rank_table`."""
    by = summary.groupby("variant")[["violated", "rows"]].sum()
    lowest = summary["budget"].min()
    last = summary[(summary["variant"] == "weights") & (summary["budget"] == lowest)].iloc[0]

    def violated(variant: str) -> str:
        row = by.loc[variant]
        what = {"of": "groups times networks times budgets", "digits": 0}
        return note(f"violated-{variant}".replace(" ", "-"), row["violated"], n=int(row["rows"]), **what)

    fails = by.loc[["weights", "gates"], "violated"].sum() > 0
    loose = note(
        "looseness-weights",
        last["looseness"],
        n=int(last["losing"]),
        of="groups times networks",
        unit="times",
        digits=0,
    )
    rank = ranks[(ranks["variant"] == "weights") & (ranks["budget"] == lowest) & (ranks["term"] == "bound")]
    order = "".join(
        f" As an order of the groups: its rank correlation with R(a) at {100 * lowest:g} % is "
        f"{note('rank-of-the-bound', row.mean, row.low, row.high, n=row.n, of='networks')}."
        for row in rank.itertuples(index=False)
    )
    return (
        f"**Verdict.** For fine-tuned networks it {'fails without' if fails else 'holds even without'} the remainder; "
        f"violations by weights: {violated('weights')}; with alphas: {violated('gates')}. It is loose: at "
        f"{100 * lowest:g} % of the ReLUs the right side is in the median {loose} R(a). Where only the mask is put on, "
        "the weights are unchanged, the right side is 0, and the statement fails wherever a group loses: "
        f"{violated('mask')}; the paper's remark foresees this. With alphas among the parameters: "
        f"{violated('mask gates')}.{order}"
    )


def hessian(broken: pd.DataFrame, trained: pd.DataFrame, note: Note) -> str:
    """Of Prop. 4.5, from `linfair.theory.hessian.violations` and `linfair_book.theory.hessian_table`."""
    counts = {
        row.reading: note(
            f"violations-{row.reading}".replace(" ", "-"), row.violations, n=row.n, of="networks", digits=0
        )
        for row in broken.itertuples()
    }
    networks = [part for _, part in trained.groupby("network")]
    larger = sum(
        part.loc[part["n"].idxmin(), "eigenvalue"] > part.loc[part["n"].idxmax(), "eigenvalue"] for part in networks
    )
    false = broken.set_index("reading").loc["printed", "violations"] > 0
    return (
        f"**Verdict.** As printed it is {'false' if false else 'not refuted here'}. Random networks that break it: "
        f"{counts['printed']} with 1/|S|, {counts['printed sum']} without. With the logit inside {counts['logit']}, "
        f"with the largest absolute eigenvalue too {counts['corrected']}. In the trained toy networks the smaller "
        "group has the larger eigenvalue in "
        f"{note('minority-has-the-larger-eigenvalue', larger, n=len(networks), of='networks', digits=0)}."
    )


def stationarity(table: pd.DataFrame, note: Note) -> str:
    """Of App. A.1, from `linfair.theory.stationarity.stationarity_table`."""
    exact, other = table[table["applies"]], table[~table["applies"]]
    off = (exact["ratio"] / exact["predicted"] - 1).abs().max()
    wrong = (other["ratio"] / other["predicted"] - 1).abs()
    reversed_ = other[~other["holds"].astype(bool)]
    elsewhere = note("ratio-error-elsewhere", 100 * wrong.median(), n=len(other), of="cases", unit="%", digits=0)
    named = ", ".join(dict.fromkeys(reversed_["variant"]))
    return (
        f"**Verdict.** Where its assumptions hold, the ratio of the norms is the inverse ratio of the sizes, to "
        f"{note('ratio-error-where-it-applies', 100 * off, n=len(exact), of='cases', unit='%', digits=4)}. Where one "
        f"does not, the ratio is off by {elsewhere} "
        "in the median, and the smaller group has the *smaller* gradient in "
        f"{note('reversed-elsewhere', len(reversed_), n=len(other), of='cases', digits=0)}"
        f"{f' ({named})' if named else ''}."
    )
