"""What the paper says of its figures against made-up rows with known ratios."""

import math

import numpy as np
import pandas as pd
import pytest
from linfair_book import why
from scipy import stats

NORMS = {1.0: (1.0, 3.0), 0.5: (0.5, 3.0), 0.1: (4.0, 12.0)}
"""Gradient norm of majority and minority at each budget."""


def rows(*, seeds: int = 5, spread: float = 0.02) -> pd.DataFrame:
    """Two groups of each role; norms as above times a factor of the seed, margins 0.8 and 0.4."""
    rng = np.random.default_rng(0)
    lines = []
    for seed in range(seeds):
        factor = 2.0**seed
        for budget, norms in NORMS.items():
            for arm in ("original",) if budget == 1 else ("plain", "control"):
                for group in range(4):
                    minority = group >= 2
                    lines.append(
                        {
                            "seed": seed,
                            "arm": arm,
                            "budget": budget,
                            "split": "train",
                            "group": group,
                            "group_name": str(group),
                            "n_train": 10,
                            "n": 10,
                            "role": "minority" if minority else "majority",
                            "gradient_norm": factor * norms[minority] * math.exp(spread * rng.standard_normal()),
                            "margin": (0.4 if minority else 0.8) * math.exp(spread * rng.standard_normal()),
                            "top_eigenvalue": [1.0, 5.0, 4.0, 20.0][group] if arm == "original" else None,
                            "top_eigenvalue_converged": True if arm == "original" else None,
                            "relative_distance": {"original": 0.0, "plain": 0.1 / budget, "control": 0.05}[arm],
                        }
                    )
    return pd.DataFrame(lines)


def test_ratios_are_taken_within_a_seed_whatever_the_seeds_differ_by() -> None:
    """Factors of 1 to 16 between seeds cancel; without noise the interval is a point."""
    found = why.role_ratios(rows(spread=0.0), "gradient_norm", split="train").set_index("budget")
    assert found.index.tolist() == [1.0, 0.5, 0.1]
    for column in ("mean", "low", "high"):
        assert found[column].tolist() == pytest.approx([3, 6, 3])
    moved = why.against_original(rows(spread=0.0), "gradient_norm", split="train").set_index(["role", "budget"])
    assert moved["mean"].to_dict() == pytest.approx(
        {("majority", 0.5): 0.5, ("majority", 0.1): 4, ("minority", 0.5): 1, ("minority", 0.1): 4}
    )


def test_the_interval_is_scipys_t_interval_of_the_logarithm() -> None:
    table = rows(spread=0.3)
    part = table[(table["arm"] == "plain") & (table["budget"] == 0.5)]
    wide = part.groupby(["seed", "role"])["gradient_norm"].mean().unstack()
    interval = stats.ttest_1samp(np.log(wide["minority"] / wide["majority"]), 0).confidence_interval()
    row = why.role_ratios(table, "gradient_norm", split="train").set_index("budget").loc[0.5]
    assert [row["low"], row["high"]] == pytest.approx(np.exp([interval.low, interval.high]).tolist())


def test_a_quantity_that_is_zero_or_missing_has_no_ratio() -> None:
    table = rows(spread=0.0)
    table.loc[table["seed"] == 1, "gradient_norm"] = 0.0
    table.loc[table["seed"] == 2, "gradient_norm"] = math.nan
    found = why.role_ratios(table, "gradient_norm", split="train").set_index("budget")
    assert found["n_seeds"].tolist() == [3, 3, 3] and found["mean"].tolist() == pytest.approx([3, 6, 3])
    assert why.role_ratios(table.assign(margin=0.0), "margin", split="train").empty
    table.loc[(table["seed"] == 0) & (table["group"] == 3), "gradient_norm"] = math.nan  # one of two minority groups
    repaired = table[table["arm"] == "plain"].assign(arm="lagrangian", gradient_norm=1.0)
    found = why.role_ratios(pd.concat([table, repaired]), "gradient_norm", split="train").set_index("budget")
    assert found["n_seeds"].tolist() == [2, 2, 2] and found["mean"].tolist() == pytest.approx([3, 6, 3])
