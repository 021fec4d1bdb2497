"""Original networks trained under a rule of gradients: names, rows, stages, figures, and what is refused."""

import math
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest

from linfair.engine import ResultStore, Stages
from linfair.ledger import Guarantee
from linfair.study import grid, run
from linfair.study.cell import Worker
from linfair.study.grids import about
from linfair.study.jobs import cell_id, words
from linfair.study.plan import figures, find_profile, panels_of
from linfair.study.recipes import PROFILES, recipe

HOW = {"method": "prune_magnitude", "budgets": (0.5,), "seeds": (0, 1), "profile": "smoke", "curvature": "none"}
FIXED = {"scale": "fixed", "shift": 0}


def cells(**how: object) -> list:
    return grid("digits", "mlp", **HOW | {"data_options": FIXED} | how)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Both arms of a private original network, and the original of plain gradients on the same schedule."""
    store = ResultStore(tmp_path_factory.mktemp("rules"))
    private = run(cells(base_rule="dp_sgd(epsilon=3)"), arms=("original", "plain"), store=store, progress=False)
    return pd.concat([private, run(cells(base_rule="sgd"), arms=("original",), store=store, progress=False)])


def test_rows_say_the_rule_and_what_is_left_of_its_guarantee(rows: pd.DataFrame) -> None:
    """A private network holds its guarantee; fine-tuning on the same images ends it; plain gradients have none."""
    told = rows.groupby(["rule", "arm"])[["epsilon", "delta", "guarantee", "base"]].agg(lambda of: of.unique().tolist())
    assert told.loc[("dp_sgd", "original")].tolist() == [[3.0], [1e-5], ["holds"], ["dp_sgd(epsilon=3.0)"]]
    assert told.loc[("sgd", "original")].tolist() == [[math.inf], [0.0], [""], ["sgd"]]
    assert told.loc[("dp_sgd", "plain"), "guarantee"] != ["holds"]
    assert rows[rows["arm"] == "original"].groupby("rule")["teacher"].nunique().tolist() == [1, 1]


def test_cells_without_a_rule_have_no_such_columns_and_keep_their_names(tmp_path: Path) -> None:
    (plain,), (private,), (group,) = cells(), cells(base_rule="dp_sgd"), cells(norm="group")
    names = {Worker(one, ResultStore(tmp_path), False).name("original") for one in (plain, private, group)}
    assert len(names) == 3 and len({cell_id(one) for one in (plain, private, group)}) == 3
    assert set(plain.known_by) == set(asdict(plain)) - {"base_mitigation", "base_rule", "norm", "standardised"}
    assert [about(one)["base"] for one in (plain, private, group)] == ["", "dp_sgd", "group norm"]
    assert "original under dp_sgd" in words(private)


def test_a_network_of_the_store_knows_its_guarantee(tmp_path: Path) -> None:
    """Trained and read again: the same guarantee, and weights that differ from those of plain gradients."""
    worker = Worker(cells(base_rule="dp_sgd(epsilon=3)")[0], ResultStore(tmp_path), False)
    trained, again = worker.teacher, Worker(worker.cell, ResultStore(tmp_path), False).teacher
    assert isinstance(again.guarantee, Guarantee) and again.guarantee == trained.guarantee
    assert again.guarantee.holds and 0 < 3.0 - again.guarantee.epsilon < 0.05 and again.digest == trained.digest
    stages = Stages(worker.sets, worker.cell.seeds, ResultStore(tmp_path), count=1, progress=False)
    assert stages.teacher("mlp", worker.recipe.private, rule="sgd").digest != trained.digest


def test_rules_are_written_in_one_way_and_refused_with_what_there_is() -> None:
    assert cells(base_rule="dp_sgd( epsilon = 8 )")[0].base_rule == "dp_sgd"
    with pytest.raises(ValueError, match="no rule 'dpsgd'.*dp_sgd"):
        cells(base_rule="dpsgd")
    with pytest.raises(ValueError, match="base_mitigation=.*base_rule='sam'.*leave one of them out"):
        cells(base_rule="sam", base_mitigation="lagrangian")
    with pytest.raises(ValueError, match="mine.safetensors is trained already: base_rule='sam'"):
        cells(base_rule="sam", teacher="mine.safetensors")
    with pytest.raises(ValueError, match="scale = 'mine' is not allowed; it is own or fixed"):
        cells(data_options={"scale": "mine"})


def test_every_profile_has_a_private_schedule_and_the_papers_has_2496_steps() -> None:
    """Oracle: De et al. (2022), batches of 4,096 of about 50,000 images, some 2,500 steps, without momentum."""
    for profile in PROFILES:
        assert recipe("cnn", profile).private.epochs > 0
    paper = recipe("wrn16_4", "paper").private
    assert round(49_500 / paper.batch_size) * paper.epochs == 2496 and paper.momentum == 0
    private = figures()["private_cifar10"].panels
    assert {(one.network, one.norm, one.standardised) for one in private} == {("wrn16_4", "group", True)}
    assert all("multiplicity=16" in one.base_rule and "average=0.9999" in one.base_rule for one in private)


def test_a_stand_in_keeps_its_fixed_scale() -> None:
    """Without it no guarantee would hold."""
    for panel in panels_of(figures()["private_cifar10"], find_profile("smoke")):
        assert panel.data == "digits" and panel.data_options == (("scale", "fixed"),)
