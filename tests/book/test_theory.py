"""Theory on trained networks: tables against loops by hand, checks against tables whose outcome is known."""

import pandas as pd
import pytest
import torch
from linfair_book import checks, claims, piecewise, propositions, theory
from scipy import stats

from linfair import study
from linfair.gates import kept_units
from linfair.metrics import wilson
from linfair.theory import hessian, optimality
from linfair.theory.bound import excess_bound
from linfair.theory.pieces import on_line, pieces


@pytest.fixture(scope="module")
def nets(tmp_path_factory, one_thread):
    (cell,) = study.grid("digits", "mlp", budgets=(0.5, 0.02), seeds=(0, 1), profile="smoke")
    store = study.ResultStore(tmp_path_factory.mktemp("store"))
    found = theory.trained(cell, store=store, progress=False)
    again = theory.trained(cell, networks=1, store=store, progress=False)
    assert [one.seed for one in again] == [0]
    weights = [next(one[0].linearized[0.5].parameters()) for one in (found, again)]
    assert torch.equal(*weights)  # read, not trained anew
    return found


def test_a_masked_network_has_the_originals_weights_and_the_linearized_ones_mask(nets):
    one = nets[1]
    for budget in (0.5, 0.02):
        masked, tuned = one.masked[budget], one.linearized[budget]
        assert kept_units(masked).tolist() == kept_units(tuned).tolist()
        named = dict(masked.named_parameters())
        for name, value in one.original.named_parameters():
            assert torch.equal(named[name], value)


def test_lines_are_between_inputs_of_different_labels_and_the_same_for_all_budgets(nets):
    table = theory.line_table(nets[:1], lines=3)
    assert table.groupby("budget").size().to_dict() == {1.0: 3, 0.5: 3, 0.02: 3}
    assert (table["pieces"] >= 1).all()
    pairs = list(theory._pairs_of_labels(torch.tensor([0, 0, 1]), 20, torch.Generator().manual_seed(0)))
    assert {frozenset(pair) for pair in pairs} == {frozenset({0, 2}), frozenset({1, 2})}


def test_a_line_table_counts_the_logit_difference_of_the_two_labels(nets, monkeypatch):
    monkeypatch.setattr(theory, "_pairs_of_labels", lambda labels, count, generator: [(0, 5)])
    one = nets[0]
    part = one.data.splits["test"]
    x = one.data.normalise(part.x).flatten(1)
    weights = [0.0] * 10
    weights[int(part.y[0])], weights[int(part.y[5])] = 1.0, -1.0
    expected = pieces(on_line(one.original, x[0], x[5]), (0.0, 1.0), output=weights).count
    table = theory.line_table([one], lines=1)
    assert table.loc[table["budget"] == 1.0, "pieces"].tolist() == [expected]


@pytest.fixture(scope="module")
def bounds(nets):
    return theory.bound_table(nets[:1], [0.02])


def test_the_bound_table_holds_the_rows_of_each_reading(nets, bounds):
    table = bounds
    assert table.groupby("variant").size().to_dict() == dict.fromkeys(theory.VARIANTS, 10)
    one = nets[0]
    expected = excess_bound(one.masked[0.02], one.original, one.data, alpha=True)
    found = table[table["variant"] == "mask gates"]
    assert found["bound"].tolist() == pytest.approx([row.bound for row in expected])
    mask = table[table["variant"] == "mask"]
    assert (mask["bound"] == 0).all() and (mask["holds"] == (mask["excess"] <= 0)).all()
    ranks = theory.rank_table(table)
    assert set(ranks["variant"]) == {"weights", "gates", "mask gates"}  # the bound of 'mask' is 0 for all groups
    own = table[table["variant"] == "weights"]
    rho = stats.spearmanr(own["bound"], own["excess"]).statistic
    assert len(ranks) == 9 and ranks["mean"].iloc[0] == pytest.approx(rho)


def test_summary_counts_by_hand():
    rows = [
        {"variant": "weights", "budget": 0.5, "seed": 0, "excess": e, "holds": h, "looseness": ls, "remainder": r}
        for e, h, ls, r in [(1.0, True, 3.0, 0.5), (2.0, False, 0.5, 2.0), (-1.0, True, float("nan"), -3.0)]
    ]
    (row,) = theory.bound_summary(pd.DataFrame(rows)).to_dict("records")
    assert (row["rows"], row["violated"], row["losing"], row["looseness"], row["remainder"]) == (3, 1, 2, 1.75, 1.0)


def losses(values):
    """Rows of one budget: for each seed the excess of two majority and two minority groups."""
    return pd.DataFrame(
        [
            {"split": split, "budget": 0.2, "seed": seed, "group": group, "role": role, "excess": excess}
            for split in ("test", "train")
            for seed, found in enumerate(values)
            for group, (role, excess) in enumerate(zip(["majority"] * 2 + ["minority"] * 2, found, strict=True))
        ]
    )


def test_loss_shares_by_hand():
    shares = theory.loss_shares(losses([(1, 0, 2, 2), (1, -1, 3, 3), (1, -2, -1, 2)]))
    assert shares["split"].tolist() == ["train"] * 3 + ["test"] * 3
    train = shares[shares["split"] == "train"].set_index("who")
    assert train["mean"].to_dict() == pytest.approx({"majority": 2 / 3, "minority": 5 / 6, "all": 1 / 3})
    assert (train["n"] == 3).all() and train["low"].min() >= 0 and train["high"].max() <= 1
    assert tuple(train.loc["all", ["low", "high"]]) == wilson(1 / 3, 3)


def test_the_hessian_table_holds_the_rows_of_each_network():
    data = optimality.counterexample()
    table = theory.hessian_table({"all": data.original, "none": data.linearized}, data.data)
    rows = hessian.hessian_bound(data.original, data.data)
    assert table["network"].tolist() == ["all"] * 2 + ["none"] * 2
    assert table["group"].tolist() == ["majority", "minority"] * 2
    assert table["corrected"].tolist()[:2] == pytest.approx([row.corrected.total for row in rows])


def outcomes(rows):
    """Outcome by key, of rows of checks."""
    return {row["key"]: row["outcome"] for row in rows if row["key"]}


def values(rows):
    return {row["key"]: row["value"] for row in rows if row["key"]}


def test_checks_on_segments_turn_with_the_fits():
    rates = propositions.rates(propositions.rate_table([4, 8, 16]))
    rows = theory.check_approximation(rates)
    assert values(rows)["exponent-of-square"] == pytest.approx(-2)
    assert values(rows)["exponent-root-even"] == pytest.approx(-0.5)
    assert {row["outcome"] for row in rows} == {"holds", ""}
    slower = outcomes(theory.check_approximation(rates.assign(last_order=-1.0)))
    assert slower["exponent-lowest"] == slower["exponent-highest"] == "does not hold"


def test_checks_on_pieces_count_what_is_above_a_bound():
    counts = piecewise.counts_of_random_networks([(2, 2)], shares=(1.0, 0.5), seeds=range(4))
    lines = pd.DataFrame({"budget": [1.0, 0.1], "pieces": [7, 2]})
    rows = theory.check_pieces(counts, piecewise.reached([(3,), (3, 3)]), [3, 2], lines, 0.1)
    found = values(rows)
    assert (found["counts-above-a-bound"], found["fig-10-pieces"], found["constructions-at-the-product"]) == (0, 3, 2)
    assert found["pieces-on-a-segment-at-100"] == 7 and found["pieces-on-a-segment-at-10"] == 2
    assert outcomes(rows)["counts-above-a-bound"] == "holds"
    broken = counts.assign(pieces=counts["bound"] + 1)
    rows = theory.check_pieces(broken, piecewise.reached([(3,)]), [3, 2], lines, 0.1)
    assert outcomes(rows)["counts-above-a-bound"] == "does not hold"


def test_checks_on_losing_groups_turn_with_the_table():
    shares = theory.loss_shares(losses([(1, 0, 2, 2), (1, -1, 3, 3)]))
    rows = theory.check_losing(shares, optimality.counterexample())
    assert values(rows)["no-group-gains-train-at-20"] == 50
    assert outcomes(rows)["no-group-gains-train-at-20"] == "does not hold"
    assert values(rows)["counterexample-minority"] == pytest.approx(-0.8109, abs=1e-4)
    assert outcomes(rows)["counterexample-all"] == "holds"
    every = theory.check_losing(theory.loss_shares(losses([(1, 0, 2, 2)] * 2)), optimality.counterexample())
    assert outcomes(every)["no-group-gains-test-at-20"] == "cannot tell"  # two of two networks


def test_checks_on_the_bound_turn_with_the_violations(bounds):
    table = bounds
    summary, ranks = theory.bound_summary(table), theory.rank_table(table)
    rows = theory.check_excess(summary, ranks)
    mask = int((table[table["variant"] == "mask"]["excess"] > 0).sum())
    assert values(rows)["violated-mask"] == mask > 0
    assert outcomes(rows)["violated-mask"] == "does not hold"
    assert {"violated-weights", "violated-mask-gates", "looseness-weights", "rank-of-the-bound"} <= set(values(rows))
    worse = outcomes(theory.check_excess(summary.assign(violated=1), ranks))
    assert worse["violated-weights"] == "does not hold"


def test_checks_on_hessians_and_stationary_points():
    broken = pd.DataFrame(
        {"reading": ["printed", "logit", "corrected", "printed sum"], "n": 9, "violations": [9, 1, 0, 2]}
    )
    both = pd.DataFrame({"network": ["a", "a"], "n": [9, 1], "eigenvalue": [1.0, 5.0]})
    rows = theory.check_hessian(broken, both)
    assert (outcomes(rows)["violations-printed"], outcomes(rows)["violations-corrected"]) == ("does not hold", "holds")
    found = values(rows)
    assert (found["violations-printed-sum"], found["minority-has-the-larger-eigenvalue"]) == (2, 1)
    cases = pd.DataFrame(
        {
            "variant": ["plain", "decay", "mixture"],
            "applies": [True, False, False],
            "ratio": [4.0, 5.0, 0.0],
            "predicted": [4.0, 4.0, 4.0],
            "holds": [True, True, False],
        }
    )
    rows = theory.check_stationarity(cases)
    assert outcomes(rows)["ratio-error-where-it-applies"] == "holds"
    assert values(rows)["ratio-error-elsewhere"] == pytest.approx(62.5) and values(rows)["reversed-elsewhere"] == 1


def test_checks_are_noted_with_their_evidence_and_shown_with_their_outcome():
    page = claims.Page("03_theory", {})
    rows = [
        checks.check("known", 1.0, 0.5, 1.5, n=4, key="one", within=(0, 1)),
        checks.check("beside it", 2, n=1, of="networks", digits=0),
    ]
    shown = checks.keep(page, rows)
    assert shown.to_numpy().tolist() == [
        ["known", "1.00 [0.50, 1.50] (seeds: 4)", "cannot tell"],
        ["beside it", "2 (networks: 1)", ""],
    ]
    assert [(row["key"], row["low"], row["n"]) for row in page.rows] == [("03_theory#one", 0.5, 4)]
