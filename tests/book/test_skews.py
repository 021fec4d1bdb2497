"""`linfair_book.skews`: who is tested and attacked, that tables are resumed, and that rules see the same images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from linfair_book import skews
from linfair_book.judging.measured import KEYS, NAMES

from linfair.data import Split, load_data
from linfair.schedule import Schedule

QUICK = replace(
    skews.SWEEPS["digits_s"], members=4, rules=("sgd", "dp_sgd"), skews=(0.95,), schedule=Schedule(2, 100, lr=0.02)
)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return pd.concat([skews.rows(QUICK, rule, 0.95) for rule in QUICK.rules], ignore_index=True)


def test_rows_have_what_the_rules_of_the_claims_read(rows: pd.DataFrame) -> None:
    """A line for each member, rule and cell; networks have seen as many images, tested on each in both forms."""
    assert {*NAMES, "rule", "epsilon", "skew", "attack", "shadows", "who", "shared", "device", "code"} <= set(rows)
    assert not rows.duplicated(["seed", *(key for key in KEYS if key in rows)]).any() and len(rows) == 2 * 4 * 3
    assert rows.groupby("who")["n"].first().to_dict() == {"aligned": 540, "all": 1080, "conflicting": 540}
    assert set(rows["n_train"]) == {500} and set(rows["shared"]) == {540 / 500}
    assert rows.groupby("rule")["guarantee"].unique().map(list).to_dict() == {"sgd": [""], "dp_sgd": ["holds"]}
    assert rows.groupby("rule")["epsilon"].first().to_dict() == {"sgd": np.inf, "dp_sgd": 8.0}


def test_accuracy_is_the_mean_of_its_cells_and_the_score_that_of_its_parts(rows: pd.DataFrame) -> None:
    wide = rows.pivot(index=["rule", "seed"], columns="who", values="accuracy")
    assert np.allclose(wide["all"], (wide["aligned"] + wide["conflicting"]) / 2)
    whole = rows[rows["who"] == "all"]
    for row in whole.itertuples():
        assert row.score == pytest.approx(skews.score(row.accuracy, row.auc, row.mean_bias))
    assert rows[rows["who"] != "all"]["score"].isna().all()


def test_a_sweep_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: pd.DataFrame) -> None:
    monkeypatch.setitem(skews.SWEEPS, "digits_s", QUICK)
    rows[rows["rule"] == "sgd"].to_parquet(tmp_path / "a.parquet")
    asked = []
    monkeypatch.setattr(skews, "rows", lambda sweep, rule, skew: asked.append(rule) or rows[rows["rule"] == rule])
    assert len(skews.compute("digits_s", tmp_path / "a.parquet")) == len(rows) and asked == ["dp_sgd"]


def test_data_with_an_imbalance_of_their_own_have_no_skew_and_three_groups_no_mean_bias(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Four in five digits of class c are in group c % 3: what is aligned, and how many, is counted by hand."""
    plain = load_data("digits", scale="fixed", shift=0)
    parts = {}
    for name, part in plain.splits.items():
        group = torch.where(torch.arange(len(part)) % 5 == 0, (part.y + 1) % 3, part.y % 3)
        parts[name] = Split(part.x, part.y, group)
    imbalanced = replace(plain, splits=parts, group_names=("a", "b", "c"))
    monkeypatch.setattr(skews, "load_data", lambda *given, **how: imbalanced)
    one = replace(QUICK, options={"group": "side"}, pool=300)
    assert skews.loaded(one, None, 0).aligned == tuple(label % 3 for label in range(10))
    found = skews.rows(one, "sgd", None)
    assert set(found["data"]) == {"digits_s (group=side)"} and "skew" not in found
    assert set(found["n_train"]) == {150} and set(found["shared"]) == {len(parts["test"]) / 150}
    sizes, n = found.groupby("who")["n"].first(), len(parts["test"])
    assert sizes["conflicting"] == len(range(0, n, 5)) and sizes["aligned"] == n - len(range(0, n, 5))
    assert found["mean_bias"].isna().all() and "score" not in found
