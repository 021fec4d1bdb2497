"""Original networks trained on another part of the data: no leaks, one normalisation; parts of data sets say so."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from floors import arithmetic
from linfair_book.build import repository
from linfair_book.sweeps import seeds_of_panels

from linfair.cli import main
from linfair.data import DataError, load_data
from linfair.data.core import Collection
from linfair.data.official import SVHN
from linfair.engine.store import Tables
from linfair.study import ResultStore, grid
from linfair.study.cell import Worker
from linfair.study.grids import beside
from linfair.study.jobs import learn_pace
from linfair.study.plan import FIGURES, find_profile, panels_of, plan, read_figure
from linfair.study.results import collect, gather, status
from linfair.training import fit, supervised

LINEARIZED = (0.9,) * 5 + (0.3,) * 5
NATURAL = (1.0,) * 10


@pytest.fixture
def svhn(monkeypatch: pytest.MonkeyPatch) -> Collection:
    """400 training and 100 test images of ten digits in the place of the files: a part of SVHN."""
    rng = np.random.default_rng(0)
    label = np.arange(500) % 10
    images = rng.integers(0, 256, (500, 3, 32, 32), dtype=np.uint8)
    official = np.repeat([0, 1], [400, 100])
    about = {"same": np.arange(500), "official": official, "origin": "SVHN subset, 500 images", "sha256": "0"}
    made = Collection("svhn", images, {"label": label}, **about)
    monkeypatch.setattr("linfair.data.named.read", lambda name, root=None: made)
    return made


def images(data: object, split: str) -> set[bytes]:
    return {one.numpy().tobytes() for one in data.splits[split].x}


def test_kept_fractions_change_the_training_images_alone(svhn: Collection) -> None:
    """36 training images of a digit are left after validation: 32 and 11 are 90 and 30 % of them."""
    whole, part = load_data("svhn", seed=3), load_data("svhn", seed=3, fractions=LINEARIZED)
    for split in ("val", "test"):
        assert torch.equal(whole.splits[split].x, part.splits[split].x)
    assert whole.counts == [36] * 10 and part.counts == [32] * 5 + [11] * 5
    assert images(part, "train") < images(whole, "train")
    assert torch.equal(load_data("svhn", seed=3, fractions=NATURAL).splits["train"].x, whole.splits["train"].x)
    with pytest.raises(DataError, match="needs 10 fractions, one for each digit, got 2"):
        load_data("svhn", fractions=(0.9, 0.3))


def test_students_see_images_as_the_original_network_saw_them(svhn: Collection) -> None:
    whole, part = load_data("svhn", seed=3), load_data("svhn", seed=3, fractions=LINEARIZED)
    assert part.mean != whole.mean
    both = beside(part, whole)
    assert (both.mean, both.std) == (whole.mean, whole.std) and both.splits is part.splits


def test_an_original_that_would_train_on_validation_or_test_images_is_refused(svhn: Collection) -> None:
    """Another seed is another split; CIFAR-10's fractions thin before validation images are drawn."""
    part = load_data("svhn", seed=3, fractions=LINEARIZED)
    with pytest.raises(DataError, match=r"trained on \d+ of 40 images of the students' val split"):
        beside(part, load_data("svhn", seed=4))
    moved = replace(part.splits["test"], x=load_data("svhn", seed=3).splits["train"].x[:100])
    with pytest.raises(DataError, match="trained on 100 of 100 images of the students' test split"):
        beside(replace(part, splits=part.splits | {"test": moved}), load_data("svhn", seed=3))


def cell(**changes: object) -> object:
    options = {"base_data_options": {"fractions": NATURAL}, "data_options": {"fractions": LINEARIZED}} | changes
    [one] = grid("svhn", "mlp", budgets=[0.5], seeds=[3], profile="smoke", method="random", **options)
    return one


def test_the_original_is_trained_on_its_own_part_and_measured_on_the_students(
    svhn: Collection, light: None, one_thread: None, tmp_path: Path
) -> None:
    """Oracle: `fit` on the whole training split; the rows' counts are those of the thinned one."""
    worker = Worker(cell(), ResultStore(tmp_path), False)
    rows = worker.table("original")
    natural = load_data("svhn", seed=3)
    alone = worker.base.untrained("mlp")
    fit(alone, natural, supervised, worker.recipe.base, seeds=[3], stage="base", progress=False)
    ours = worker.teacher.model.state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in alone.state_dict().items())
    assert rows.drop_duplicates("group")["n_train"].tolist() == [32] * 5 + [11] * 5
    fractions = "fractions=0.9 / 0.9 / 0.9 / 0.9 / 0.9 / 0.3 / 0.3 / 0.3 / 0.3 / 0.3"
    assert set(rows["data"]) == {f"svhn subset ({fractions}, base fractions={' / '.join(['1.0'] * 10)})"}
    same = Worker(cell(base_data_options=None), ResultStore(tmp_path), False)
    assert same.name("original") != worker.name("original")


def test_the_released_recipe_can_be_written_in_a_panel_and_the_papers_stays_natural(tmp_path: Path) -> None:
    text = (FIGURES / "fig01.toml").read_text().replace("utkface_age", "svhn")
    path = tmp_path / "mine.toml"
    path.write_text(
        f"{text}data_options = {{ fractions = {list(LINEARIZED)} }}\nbase_data_options = {{ fractions = {[1] * 10} }}\n"
    )
    [job] = plan([read_figure(path)], "paper", seeds=1)
    assert dict(job.cell.data_options) == {"fractions": LINEARIZED}
    assert dict(job.cell.base_data_options) == {"fractions": NATURAL}
    for one in plan([read_figure(FIGURES / "fig11.toml")], "paper", seeds=1):
        assert one.cell.data_options == one.cell.base_data_options == ()
    path.write_text(text + "base_data_options = { fractions = 0.9 }\n")
    with pytest.raises(ValueError, match="base_data_options: svhn: fractions = 0.9 is not allowed; .*finite numbers"):
        read_figure(path)


# Parts of a data set


def test_rows_of_a_part_of_a_data_set_say_so_and_a_whole_one_does_not(
    svhn: Collection, light: None, one_thread: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_data("svhn").provenance["subset"] is True
    assert load_data("digits").provenance.get("subset", False) is False
    monkeypatch.setitem(__import__("linfair.data.named", fromlist=["FULL"]).FULL, "svhn", 500)
    assert load_data("svhn").provenance["subset"] is False
    monkeypatch.setitem(__import__("linfair.data.named", fromlist=["FULL"]).FULL, "svhn", SVHN.images)
    worker = Worker(cell(data_options=None, base_data_options=None), ResultStore(tmp_path), False)
    assert set(worker.table("original")["data"]) == {"svhn subset"}
    assert worker.stored("original") is not None, "what is stored is known again"


def test_describe_says_that_it_is_a_part(svhn: Collection, capsys: pytest.CaptureFixture) -> None:
    main.main(["data", "describe", "svhn"])
    assert capsys.readouterr().out.startswith("svhn subset: ")


def test_the_floors_of_the_page_on_speed_are_those_of_the_part_that_was_counted() -> None:
    names = {number.key for number in arithmetic(repository())}
    assert "grid/paper/svhn subset/resnet18/snl/hours" in names and "grid/paper/svhn/resnet18/snl/hours" not in names


def rows_of(data: str, seeds: int) -> pd.DataFrame:
    """Made-up rows of Fig. 11's first SVHN panel."""
    shared = {"data": data, "network": "resnet18", "profile": "paper", "method": "snl", "options": "", "device": "x"}
    shared |= {"group_name": "0", "role": "majority", "n": 10, "n_train": 10}
    found = []
    for seed in range(seeds):
        for arm, budgets in {"original": (1.0,), "plain": (0.8, 0.6, 0.4, 0.2, 0.02)}.items():
            for budget in budgets:
                method = {"method": "original"} if arm == "original" else {}
                one = {
                    "seed": seed,
                    "arm": arm,
                    "budget": budget,
                    "group": 0,
                    "split": "test",
                    "teacher": f"{data}{seed}",
                }
                found.append(shared | one | {"relative_drop": 1.0, "accuracy": 0.5} | method)
    return pd.DataFrame(found)


def test_a_figure_shows_the_whole_data_set_or_else_its_part_never_both(tmp_path: Path) -> None:
    figure, profile = read_figure(FIGURES / "fig11.toml"), find_profile("paper")
    Tables(tmp_path / "part").write("a", rows_of("svhn subset", 2))
    Tables(tmp_path / "whole").write("a", rows_of("svhn", 1))
    part = gather(figure, "paper", collect([str(tmp_path / "part")]))
    assert set(part["panel"]) == {"svhn subset, resnet18, snl"}
    both = gather(figure, "paper", collect([str(tmp_path / "part"), str(tmp_path / "whole")]))
    assert set(both["panel"]) == {"svhn, resnet18, snl"} and set(both["data"]) == {"svhn"}
    counted = seeds_of_panels(part.assign(arm="control"), figure, "paper")
    assert set(counted) == {panel.title for panel in panels_of(figure, profile)}
    assert status(figure, "paper", collect([str(tmp_path / "part")]), seeds=2).done == 4


def test_the_pace_of_a_part_is_known_for_the_cell_that_asks_for_it() -> None:
    seconds = {f"seconds_{stage}": 1.0 for stage in ("base", "path", "finetune", "measure")}
    pace: dict = {}
    learn_pace(pace, rows_of("svhn subset", 1).assign(**seconds))
    assert pace and {at[1] for at in pace} == {"svhn"}
