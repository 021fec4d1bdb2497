"""Verdicts on the pruning paper against loops over their tables and the inequalities that are proved."""

import copy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from linfair_book import verdicts
from linfair_book.claims import EVIDENCE, Page, load_evidence

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def nets() -> list[verdicts.Net]:
    """Two seeds of either activation."""
    return verdicts.small_networks(range(2))


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """All verdicts at the size of the book."""
    return verdicts.verdicts().set_index("reading")


def test_no_cell_violates_theorem_1_without_its_remainder(table: pd.DataFrame) -> None:
    """REPRODUCTION: 0 of 200, the bound far from tight; only the ReLU networks have kinks on the way."""
    rows = table.loc[["without remainder, tanh", "without remainder, ReLU"]]
    assert rows["cells"].sum() == 200
    assert rows["holds"].all()
    assert (rows["looseness"] > 10).all()
    assert (rows["looseness_90"] > rows["looseness"]).all()
    assert table.loc["twice differentiable on the way, tanh", "violated"] == 0
    assert table.loc["twice differentiable on the way, ReLU", "violated"] > 90
    assert table.loc["the larger bound has the larger R(a)", "cells"] == 100


def test_rows_count_the_cells_of_the_table(nets: list[verdicts.Net]) -> None:
    """Oracle: loops over the table."""
    cells = verdicts.bound_table(nets)
    assert len(cells) == 4 * 7 * 2
    magnitude = cells[(cells["criterion"] == "magnitude") & (cells["share"] != 0.6)]
    found = verdicts.theorem_1(cells).set_index("reading")
    tanh = magnitude[magnitude["bend"] == "tanh"]
    ratios = (tanh["bound"] / tanh["excess"].abs()).to_numpy()
    assert found.loc["without remainder, tanh", "looseness"] == pytest.approx(np.median(ratios))
    assert found.loc["without remainder, tanh", "looseness_90"] == pytest.approx(np.percentile(ratios, 90))
    assert found.loc["twice differentiable on the way, ReLU", "violated"] == sum(
        switched > 0 for switched in magnitude.loc[magnitude["bend"] == "ReLU", "switched"]
    )
    order = 0
    for _, (one, two) in magnitude.groupby(["bend", "seed", "share"])[["excess", "bound"]].apply(np.array).items():
        order += (one[0] > two[0]) != (one[1] > two[1])
    assert found.loc["the larger bound has the larger R(a)", "violated"] == order
    falls, shrinks, steps = 0, 0, 0
    for _, part in magnitude.groupby(["bend", "seed", "group"]):
        ordered = part.sort_values("share")
        falls += sum(later < before for before, later in pairwise(ordered["excess"]))
        shrinks += sum(later < before for before, later in pairwise(ordered["bound"]))
        steps += len(part) - 1
    found = verdicts.corollary_1(cells).set_index("reading")
    assert tuple(found.loc["R(a) itself along nested magnitude masks", ["cells", "violated"]]) == (steps, falls)
    assert tuple(found.loc["bound along nested magnitude masks", ["cells", "violated"]]) == (steps, shrinks)
    negative = (magnitude["excess"] < 0).sum()
    assert tuple(found.loc["R(a) >= 0, magnitude masks", ["cells", "violated"]]) == (len(magnitude), negative)
    keys = ["bend", "seed", "group"]
    random = cells[cells["criterion"] == "random"].set_index(keys)["bound"]
    larger = cells[(cells["criterion"] == "magnitude") & (cells["share"] == 0.6)].set_index(keys)["bound"]
    across = found.loc["bound of random 50 % against magnitude 60 %", "violated"]
    assert across == sum(larger[key] < random[key] for key in random.index)


def test_corollary_1_holds_for_nested_masks_and_not_across_criteria(table: pd.DataFrame) -> None:
    """REPRODUCTION: 160 of 160 steps; 40 of 40 bounds fall though more is pruned; R(a) falls and is negative."""
    assert tuple(table.loc["bound along nested magnitude masks", ["cells", "violated"]]) == (160, 0)
    across = table.loc["bound of random 50 % against magnitude 60 %"]
    assert across["cells"] == 40
    assert across["violated"] > 35
    for reading, cells in ("R(a) itself along nested magnitude masks", 160), ("R(a) >= 0, magnitude masks", 200):
        assert table.loc[reading, "cells"] == cells
        assert 10 < table.loc[reading, "violated"] < cells / 2


def test_proposition_1_holds_for_two_groups_alone(table: pd.DataFrame) -> None:
    """Oracle: A.1's ratio 60 / 20 for two groups; REPRODUCTION: four groups break it in many pairs."""
    two = table.loc["2 groups, weight decay 0"]
    assert tuple(two[["cells", "violated"]]) == (6, 0)
    assert two["looseness"] == pytest.approx(3, rel=1e-6)
    assert two["total"] < 1e-9
    assert table.loc["2 groups, weight decay 0.01", "total"] > 1e-3
    for decay in (0, 0.01):
        four = table.loc[f"4 groups, weight decay {decay}"]
        assert four["cells"] == 36
        assert 5 < four["violated"] < 31
    assert tuple(table.loc["three groups, closed form", ["cells", "violated"]]) == (3, 2)


def test_proposition_2_holds_for_logits_and_not_as_printed(table: pd.DataFrame) -> None:
    """Oracle: Cauchy-Schwarz for the logits; REPRODUCTION: 12 of 40 groups as printed, by either norm."""
    for norm in ("spectral", "Frobenius"):
        assert tuple(table.loc[f"f = logits, {norm} norm", ["cells", "violated"]]) == (40, 0)
        assert 3 < table.loc[f"f = softmax, {norm} norm", "violated"] < 25
    derivative = table.filter(like="f - y is the derivative", axis=0)
    assert derivative["violated"].tolist() == [100, 100, 0]  # the last one is by the logits


def test_theorem_2_fails_as_printed_and_holds_corrected(table: pd.DataFrame) -> None:
    """Oracle: Weyl's inequality for the corrected; REPRODUCTION: as printed nearly all of 96 groups and 2688 inputs."""
    for words, cells in ("group", 48), ("input", 48 * 28):
        for bend in ("tanh", "ReLU"):
            printed, logit, corrected = (
                table.loc[f"{name}, {bend}, by {words}"] for name in ("printed", "logit", "corrected")
            )
            assert printed["cells"] == logit["cells"] == corrected["cells"] == cells
            assert printed["violated"] > 0.9 * cells
            assert logit["violated"] >= (words == "input")
            assert corrected["holds"]
        assert table.loc[f"trace, three classes, by {words}", "holds"]
    assert table.loc["class by class, three classes, by input", "violated"] > 10


def test_proposition_3_is_true_and_its_minimum_out_of_reach(table: pd.DataFrame) -> None:
    """Oracle: 1/4 - (f - 1/2)^2."""
    assert table.loc["f (1 - f) <= 1/4", "holds"]
    assert table.loc["f (1 - f) >= 0", "holds"]
    attained = table.loc["f = sigmoid(h) attains the minimum"]
    assert attained["violated"] == attained["cells"]


def test_every_claim_has_rows_and_each_row_its_verdict(table: pd.DataFrame) -> None:
    claims = {"A-C05", "A-T1", "A-T1b", "A-K1", "A-C06", "A-P1", "A-P2", "A-P2b", "A-T2", "A-T2b", "A-P3"}
    assert set(table["claim"]) == claims
    assert table.index.is_unique
    assert table["holds"].dtype == bool
    assert (table["holds"] == (table["violated"] == 0)).all()
    assert table["violated"].between(0, table["cells"]).all()
    again = verdicts.theorem_1(verdicts.bound_table(verdicts.small_networks([0])))
    assert list(again["cells"]) == [10, 10, 10, 10, 10, 20]


def test_loss_and_accuracy_can_move_alike(nets: list[verdicts.Net]) -> None:
    """Oracle: both of the pruned and of the original network computed anew, for one share and group."""
    cells = verdicts.bound_table(nets)
    bend, seed, original, data = nets[0]
    part = data.splits["train"]
    mine, other = part.a == 1, verdicts.pruned(original, 0.9)
    right = [(net(part.x).argmax(1) == part.y)[mine].double().mean().item() for net in (other, original)]
    losses = [torch.nn.functional.cross_entropy(net(part.x)[mine], part.y[mine]).item() for net in (other, original)]
    at = (cells["bend"] == bend) & (cells["seed"] == seed) & (cells["share"] == 0.9) & (cells["group"] == 1)
    assert cells.loc[at, "gained"].tolist() == pytest.approx([right[0] - right[1]])
    assert cells.loc[at, "excess"].tolist() == pytest.approx([losses[0] - losses[1]])
    magnitude = cells[(cells["criterion"] == "magnitude") & (cells["share"] != 0.6)]
    row = verdicts.theorem_1(cells).set_index("claim").loc["A-C05"]
    alike = sum(one * two > 0 for one, two in zip(magnitude["excess"], magnitude["gained"], strict=True))
    assert row["violated"] == alike


def test_the_numbers_of_the_claims_page_are_the_verdicts(table: pd.DataFrame) -> None:
    """Oracle: the committed evidence; counts of near ties may differ by a few between processors."""
    page = Page("13_pruning", {})
    verdicts.note(page, table.reset_index())
    noted = {row["key"]: row for row in page.rows}
    evidence = load_evidence(ROOT / EVIDENCE)
    there = evidence[evidence.index.str.match("13_pruning#a-")]
    assert set(there.index) == set(noted)
    assert all(noted[row.Index]["n"] == row.n for row in there.itertuples())
    assert all((noted[row.Index]["value"] == 0) == (row.value == 0) for row in there.itertuples())


def test_verdicts_do_not_touch_the_callers_random_numbers_or_networks(nets: list[verdicts.Net]) -> None:
    _, _, original, data = nets[0]
    state, before = torch.get_rng_state(), copy.deepcopy(original.state_dict())
    part = data.splits["train"]
    verdicts.bound_table([("tanh", 0, original, replace(data, splits={"train": part}))])
    verdicts.small_networks([0])
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in original.state_dict().items())
