"""Claims of the third system judged on made tables: sides, keys, what is left out, settings."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from linfair_book.judging import measured
from linfair_book.judging.judge import Verdict, judge
from linfair_book.judging.rules import Measure, Rules
from made_rows import NOTHING

SHARED = {"network": "cnn", "width": 0, "profile": "small", "shared": 0.5, "device": "CPU", "torch": "2"}
SHARED |= {"linfair": "0.1.0", "code": "x", "precision": "float32", "seconds": 1.0}


def swept(gap: dict[str, float], *, data: str = "digits_s", seeds: int = 6) -> pd.DataFrame:
    """Accuracy, mean bias, AUC and score by rule and skew: `gap` says what each gains from 0.5 to 0.95."""
    lines = []
    for seed, (rule, epsilon) in ((s, one) for s in range(seeds) for one in (("sgd", np.inf), ("dp_sgd", 8.0))):
        for skew in (0.5, 0.75, 0.95):
            moved = {name: 0.5 + by * (skew - 0.5) / 0.45 + 0.001 * (seed % 3) for name, by in gap.items()}
            for who in ("all", "conflicting"):
                keys = {"data": data, "seed": seed, "rule": rule, "epsilon": epsilon, "skew": skew, "who": who}
                lines.append(SHARED | keys | moved)
    return pd.DataFrame(lines)


def verdict_of(claim: str, rules: Rules, folder: Path, **tables: pd.DataFrame) -> Verdict:
    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet")
    return judge(rules, folder, NOTHING)[claim]


@pytest.mark.parametrize(("gap", "said"), [(-0.2, "yes"), (0.2, "no"), (0.0, "inconclusive")])
def test_agreement_follows_what_the_skew_costs(gap: float, said: str, rules: Rules, tmp_path: Path) -> None:
    """b-c07: a line for each rule and epsilon, in points, from 0.5 and from 0.75."""
    found = verdict_of("b-c07", rules, tmp_path, digits_s_private=swept({"accuracy": gap}))
    assert (found.agreement, found.setting) == (said, "stand-in")
    cells = found.deciding[0].cells
    assert cells["arm"].tolist() == ["sgd", "dp_sgd"] * 2
    assert cells["estimate"].tolist() == pytest.approx([100 * gap] * 2 + [100 * gap * 4 / 9] * 2, abs=0.01)
    assert cells["budget"].iloc[1].startswith("epsilon 8") and set(cells["n"]) == {6}


def test_the_paper_s_data_decide_and_few_seeds_tell_nothing(rules: Rules, tmp_path: Path) -> None:
    tables = {"digits_s_private": swept({"accuracy": 0.2})}
    few = swept({"accuracy": -0.2}, data="cifar10s", seeds=2)
    found = verdict_of("b-c07", rules, tmp_path, **tables, cifar10s_private=few)
    assert (found.agreement, found.setting) == ("no", "stand-in")
    enough = swept({"accuracy": -0.2}, data="cifar10s", seeds=3)
    found = verdict_of("b-c07", rules, tmp_path, **tables, cifar10s_private=enough)
    assert (found.agreement, found.setting) == ("yes", "thin") and len(found.beside) == 1


def test_each_cell_is_a_line_and_a_missing_quantity_is_not_a_yes(rules: Rules, tmp_path: Path) -> None:
    """b-c08 looks at all images and at those against the skew; without hits at 1 % it cannot be a yes."""
    one = swept({"auc": 0.2})
    found = verdict_of("b-c08", rules, tmp_path, digits_s_private=one)
    assert found.agreement == "inconclusive" and set(found.deciding[0].cells["group"]) == {"all", "conflicting"}
    assert verdict_of("b-c08", rules, tmp_path, digits_s_private=one.assign(tpr_1=one["auc"])).agreement == "yes"


def test_a_study_s_rows_are_pooled_by_images(rules: Rules, tmp_path: Path) -> None:
    """`digits_private`: who is `all` on the natural test, where 3 of 4 images are the majority's."""
    lines = []
    for seed, (rule, right) in ((s, one) for s in range(4) for one in (("dp_sgd", 0.5), ("dp_sat", 0.6))):
        for group, (role, n) in enumerate((("majority", 30), ("minority", 10))):
            keys = {"data": "digits", "arm": "original", "split": "test", "seed": seed, "rule": rule, "epsilon": 8.0}
            own = {"group": group, "group_name": role, "role": role, "n": n, "n_train": 4 * n, "diverged": False}
            lines.append(SHARED | keys | own | {"accuracy": right + (0.1 if role == "minority" else 0.0)})
    rows = pd.DataFrame(lines).drop(columns="shared")
    [context] = measured.contexts(_written(rows, tmp_path), {"digits_private"}, rules.judging)
    whole = context.tables["digits_private"].query("who == 'all'")
    assert sorted(set(whole["accuracy"].round(6))) == [0.525, 0.625] and set(whole["shared"]) == {0.25}
    [check] = [one for one in rules.claims["b-s02"].checks if one.name == "sat-more-accurate"]
    [line] = measured.evaluate(check, context)
    assert line["estimate"] == pytest.approx(10.0) and (line["arm"], line["against"]) == ("dp_sat", "dp_sgd")


def _written(rows: pd.DataFrame, folder: Path) -> Path:
    rows.to_parquet(folder / "digits_private.parquet")
    return folder


def test_lines_that_nothing_tells_apart_are_refused(rules: Rules, tmp_path: Path) -> None:
    rows = swept({"accuracy": 0.0})
    with pytest.raises(measured.tidy.RowsError, match="several lines"):
        verdict_of("b-c07", rules, tmp_path, digits_s_private=pd.concat([rows, rows[rows["skew"] == 0.95]]))


def test_the_figure_of_the_paper_waits_for_a_gpu(rules: Rules, tmp_path: Path) -> None:
    assert verdict_of("b-c02", rules, tmp_path) == Verdict("b-c02", "not run", "")


def test_faces_have_no_skew_and_are_a_second_data_set(rules: Rules, tmp_path: Path) -> None:
    """b-c13 needs two data sets; its skew of 0.95 is asked of digits alone."""
    keys = [(seed, rule, who) for seed in range(10) for rule in ("sgd", "dp_sgd") for who in ("aligned", "conflicting")]
    lines = [{"seed": seed, "rule": rule, "who": who, "epsilon": 8.0} for seed, rule, who in keys]
    right = [0.5 + 0.001 * line["seed"] + (0.2 if line["who"] == "aligned" else 0.0) for line in lines]
    digits = pd.DataFrame(lines).assign(**SHARED | {"data": "digits_s", "skew": 0.95}, accuracy=right)
    faces = digits.drop(columns="skew").assign(data="utkface_gender (group=race)")
    assert verdict_of("b-c13", rules, tmp_path, digits_s_private=digits).agreement == "inconclusive"
    both = {"digits_s_private": digits, "utkface_gender_private": faces}
    assert verdict_of("b-c13", rules, tmp_path, **both).agreement == "yes"


def test_a_seed_without_a_ratio_is_left_out() -> None:
    """A rate of 0 has no logarithm; the other seed's 0.2 is twice 0.1."""
    table = pd.DataFrame({"seed": [0, 0, 1, 1], "rule": ["sgd", "sam"] * 2, "tpr_1": [0.1, 0.2, 0.1, 0.0]})
    value = Measure(["made"], "tpr_1", {"rule": "sam"}, {"rule": "sgd"}, scale="ratio")
    found, _ = measured.differences(value, table)
    assert found["seed"].tolist() == [0] and found["value"].tolist() == [pytest.approx(np.log(2))]
