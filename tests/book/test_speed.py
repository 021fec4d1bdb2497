"""The page on speed against its table, its table against the arithmetic, and the measuring on the smallest sizes."""

import re
from pathlib import Path

import pandas as pd
import pytest
import torch
from linfair_book import speed
from linfair_book.floors import H200, SHAPE
from linfair_book.speed import STEPS, Asking, generated, in_turns, ladder, side_by_side, stages, table_of
from linfair_book.speedpage import PAGE, TABLE, blocks, fill

from linfair.models import build
from linfair.training import Distill, Source, predict

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def committed() -> pd.DataFrame:
    return pd.read_parquet(ROOT / TABLE)


def test_the_page_shows_the_numbers_of_the_committed_table(committed: pd.DataFrame) -> None:
    """Oracle: filled again, it is the same page."""
    page = (ROOT / PAGE).read_text()
    assert fill(page, blocks(committed)) == page


def test_a_changed_number_changes_the_page(committed: pd.DataFrame) -> None:
    page = (ROOT / PAGE).read_text()
    for key in (
        "ladder/bf16/gain",
        "stage/base/seconds",
        "grid/fast/all/hours",
        "ensemble/gain",
        "ceiling/bf16/operations",
    ):
        assert (
            fill(page, blocks(committed.assign(value=committed["value"].where(committed["key"] != key, 77.0)))) != page
        )


def test_outside_of_the_filled_parts_the_page_states_no_measured_number() -> None:
    """What stands in the prose: the H200's two ceilings, from `floors`, counts of seeds, points and assumed epochs."""
    prose = re.sub(r"% begin (\w+)\n.*?% end \1\n", "", (ROOT / PAGE).read_text(), flags=re.DOTALL)
    numbers = set(re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?: [TG]\S+/s)?", prose))
    assert f"{H200.operations / 1e12:g} TFLOP/s" in numbers and f"{H200.bytes / 1e12:g} TB/s" in numbers
    assert numbers <= {"790 TFLOP/s", "4.3 TB/s", "300", "95", "2", "1"}, numbers


def test_the_committed_floors_are_those_of_the_present_code(committed: pd.DataFrame) -> None:
    """Oracle: the arithmetic done again."""
    again = table_of(speed.arithmetic(ROOT)).set_index("key")["value"]
    before = committed.set_index("key")["value"]
    assert set(again.index) == {key for key in before.index if key.startswith(("cell/", "grid/"))}
    for key, value in again.items():
        assert before[key] == pytest.approx(value, rel=1e-9), f"{key}: run python -m linfair_book.speedpage fill"


def test_no_row_claims_to_be_measured_on_a_gpu(committed: pd.DataFrame) -> None:
    """Until one was measured there: either this CPU, or a GPU's ceilings with the word that nothing ran on it."""
    for device in committed["device"].unique():
        assert device.startswith("CPU") or device == "H200's ceilings, not run"


def test_a_page_without_a_place_for_a_part_is_refused() -> None:
    with pytest.raises(ValueError, match="the page has 0 places for 'ladder'"):
        fill("nothing here\n", {"ladder": "| a |"})


def test_in_turns_warms_up_once_and_then_times_every_run_in_every_turn() -> None:
    called: list[str] = []
    seconds = in_turns({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, 2)
    assert called == ["a", "b"] * 3
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}


def test_asking_the_teacher_gives_the_logits_that_are_kept() -> None:
    """Oracle: the cache of `Distill`."""
    data, teacher = generated(8), build("resnet18", SHAPE, 10, width=2)
    batch = Source(data, "train").take(torch.arange(8).unsqueeze(0))
    asked, kept = Asking(teacher, data), Distill(teacher, data)
    torch.testing.assert_close(asked.teacher_logits(batch), kept.teacher_logits(batch))
    assert asked._cache is None and torch.equal(kept._cache, predict(teacher, data, "train"))


def test_the_ladder_has_seconds_and_a_floor_for_every_step_and_a_gain_for_all_but_the_first() -> None:
    steps = [name for name in STEPS if name != "torch.compile"]
    values = {one.key: one.value for one in ladder(width=2, images=8, batch_size=4, turns=1, steps=steps)}
    for name in steps:
        assert values[f"ladder/{name}/seconds"] > 0 and values[f"ladder/{name}/floor"] > 0
        assert (f"ladder/{name}/gain" in values) is (name != steps[0])
    first, kept = (values[f"ladder/{name}/floor"] for name in steps[:2])
    assert first > kept  # the teacher's forward passes


def test_networks_side_by_side_and_the_stages_of_a_cell_are_timed() -> None:
    values = {one.key: one.value for one in side_by_side(members=2, epochs=1, turns=1)}
    ratio = values["ensemble/one by one/seconds"] / values["ensemble/ensemble/seconds"]
    assert values["ensemble/gain"] == pytest.approx(ratio)
    values = {one.key: one.value for one in stages(profile="smoke", seeds=2)}
    for stage in ("base", "path", "control", "finetune"):
        assert values[f"stage/{stage}/floor"] > 0 and values[f"stage/{stage}/seconds"] > 0
    assert "stage/measure/floor" not in values
