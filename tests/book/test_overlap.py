"""Overlap of masks against enumeration, a closed form, and the linearizers run by hand."""

from itertools import combinations

import pandas as pd
import pytest
from linfair_book import overlap

from linfair.engine import stages
from linfair.study import ResultStore, cell, grid
from linfair.study.cell import Worker

PANEL = {"budgets": (0.5, 0.2), "seeds": (0, 1), "profile": "smoke"}


@pytest.fixture(scope="module")
def store(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> ResultStore:
    return ResultStore(tmp_path_factory.mktemp("store"))


def panel(name: str) -> list[cell.Cell]:
    return grid(
        "digits", "mlp", method=name, options={"exact": True, "check_every": 1} if name == "snl" else None, **PANEL
    )


@pytest.mark.parametrize(("kept", "total"), [(1, 1), (1, 4), (2, 5), (3, 4), (3, 6)])
def test_expected_jaccard_equals_the_mean_over_all_pairs_of_masks(kept: int, total: int) -> None:
    """Enumeration of every pair of subsets."""
    masks = [set(mask) for mask in combinations(range(total), kept)]
    found = [len(a & b) / len(a | b) for a in masks for b in masks]
    assert overlap.expected_jaccard(kept, total) == pytest.approx(sum(found) / len(found))


@pytest.mark.parametrize("share", [0.4, 0.2, 0.1])
def test_expected_jaccard_of_many_units_is_b_over_two_minus_b(share: float) -> None:
    total = 491_520
    assert overlap.expected_jaccard(round(share * total), total) == pytest.approx(share / (2 - share), rel=1e-4)


@pytest.mark.parametrize(("name", "alike"), [("random", False), ("snl", False), ("negative_part", True)])
def test_overlap_is_the_mean_jaccard_of_runs_with_other_seeds(name: str, alike: bool, store: ResultStore) -> None:
    """Recomputed with the linearizer itself; a method without randomness finds the same mask every time."""
    found = overlap.mask_overlap(panel(name), store=store, progress=False)
    worker = Worker(panel(name)[0], store, progress=False)
    runs = [
        worker.linearizer.run(
            worker.teacher.model,
            worker.stages.data,
            PANEL["budgets"],
            seeds=[seed + step * overlap.MASK_SEED_STEP for seed in PANEL["seeds"]],
            options=worker.options,
            progress=False,
        )
        for step in range(3)
    ]
    for number, budget in enumerate(PANEL["budgets"]):
        for member, seed in enumerate(PANEL["seeds"]):
            masks = [run[number].masks[member] for run in runs]
            expected = sum(a.jaccard(b) for a, b in combinations(masks, 2)) / 3
            row = found[(found["budget"] == budget) & (found["seed"] == seed)].iloc[0]
            assert row["jaccard"] == pytest.approx(expected)
            assert (row["jaccard"] == 1) == alike
            assert (row["kept"], row["total"]) == (masks[0].kept, 128)


def test_paths_with_other_seeds_are_kept(store: ResultStore, monkeypatch: pytest.MonkeyPatch) -> None:
    first = overlap.mask_overlap(panel("random"), store=store, progress=False)
    monkeypatch.setattr(stages, "resumable", None)  # called where something is trained
    pd.testing.assert_frame_equal(overlap.mask_overlap(panel("random"), store=store, progress=False), first)
