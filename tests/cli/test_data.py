"""`linfair data ...` on small files in the true formats; with the real packs where `LINFAIR_DATA` names them."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from linfair_book.data_pages import markdown, read_rows
from PIL import Image

from linfair.cli import main
from linfair.data import DATASETS, EMBEDDED, DataError, describe, load_data
from linfair.data.core import Collection
from linfair.data.describe import SHEETS, sheet_of
from linfair.data.official import NAMES
from linfair.data.packs import write_pack

REAL = Path(os.environ.get("LINFAIR_DATA", "/nowhere"))
needs_packs = pytest.mark.skipif(
    not all((REAL / name).is_file() for name in ("cifar10.npz", "svhn10k.npz", "utkface32.npz")),
    reason="the real packs are not there: set LINFAIR_DATA to their folder",
)


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No data anywhere: an empty current folder, which is also the cache; LINFAIR_DATA not set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LINFAIR_DATA", raising=False)
    monkeypatch.setenv("LINFAIR_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def faces(empty: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a UTKFace pack of 400 drawn images: ages 0-99, four of five race 0, gender by turns."""
    rng = np.random.default_rng(0)
    number = np.arange(400)
    fields = {"age": number % 100, "gender": number % 2, "race": np.where(number % 5 < 4, 0, number // 5 % 4 + 1)}
    images = rng.integers(0, 256, (400, 3, 32, 32), dtype=np.uint8)
    collection = Collection("utkface", images, fields, same=number, official=None, origin="drawn", sha256="0" * 64)
    write_pack(collection, empty / "packs" / "utkface.npz")
    monkeypatch.setenv("LINFAIR_DATA", str(empty / "packs"))
    return empty / "packs"


@pytest.fixture
def pictures(empty: Path) -> Path:
    """200 drawn images in a folder with labels.csv: two labels, one group in five small; one image is empty."""
    rng = np.random.default_rng(1)
    folder = empty / "mine"
    folder.mkdir()
    lines = ["file,kind,site"]
    for number in range(200):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{'ab'[number % 2]},{'far' if number % 5 == 0 else 'near'}")
    (folder / "bad.png").write_bytes(b"")
    (folder / "labels.csv").write_text("\n".join([*lines, "bad.png,a,near"]) + "\n")
    return folder


def linfair(capsys: pytest.CaptureFixture, *words: str) -> tuple[int, str, str]:
    """Run the command: exit code, output, errors."""
    code = main.main(list(words))
    return code, *capsys.readouterr()


# --- the registry ------------------------------------------------------------------------------------------


def test_every_data_set_has_a_sheet_and_the_papers_groups_are_ours() -> None:
    for name in DATASETS:
        assert sheet_of(name) is SHEETS["utkface" if name.startswith("utkface") else name]
    assert set(EMBEDDED) < set(DATASETS)
    for sheet in SHEETS.values():
        assert set(sheet.paper) <= set(DATASETS)
        for paper in sheet.paper.values():
            assert abs(sum(paper.shares) - 100) < 0.02
            if paper.counts:
                shares = [100 * count / sum(paper.counts) for count in paper.counts]
                assert np.allclose(shares, paper.shares, atol=0.006)


@pytest.mark.parametrize("name", SHEETS)
def test_a_sheet_says_everything_a_page_needs(name: str) -> None:
    sheet, page = SHEETS[name], markdown(name)
    for text in (sheet.what, sheet.publication, sheet.terms, sheet.obtain, sheet.split, sheet.labels_are_not):
        assert text and text in page
    assert sheet.faults and all(fault in page for fault in sheet.faults)


def test_names_and_options_that_do_not_exist_are_refused_by_name() -> None:
    with pytest.raises(DataError, match="did you mean 'cifar10'"):
        load_data("cifar")
    with pytest.raises(DataError, match="digits has no option 'group'; there are majority_fraction"):
        load_data("digits", group="x")


# --- describe ----------------------------------------------------------------------------------------------


def test_describe_digits_prints_the_counts_of_the_split(capsys: pytest.CaptureFixture) -> None:
    """Arithmetic: 120 images to train on, of which 90 % or 10 % stay and a sixth validates: 90 + 18 or 10 + 2."""
    code, out, _ = linfair(capsys, "data", "describe", "digits", "--seed", "4")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    groups = [line for line in lines if len(line) == 6 and line[0].isdigit()]
    assert sorted(tuple(line[1:4]) for line in groups) == [("majority", "90", "18")] * 5 + [("minority", "10", "2")] * 5
    assert "files skipped: 0" in out and "all" in out


def test_group_table_of_the_papers_data_by_hand() -> None:
    """Two groups of 3 and 1 training images, beside a paper that says 75 and 25 %."""
    data = load_data("toy", majority=30, minority=10, test_per_group=5)
    rows = describe.count_rows(data)
    table = describe.group_table(rows)
    assert table["group"].tolist() == ["majority", "minority", "all"]
    assert table["train"].tolist() == [30, 10, 40]
    assert table["test_balanced"].tolist() == [5, 5, 10]
    crossed = describe.label_table(rows)
    assert crossed.iloc[:, 1:].to_numpy().tolist() == [[30, 0], [0, 10]]


def test_describe_faces_by_hand_with_groups_apart_from_labels(faces: Path, capsys: pytest.CaptureFixture) -> None:
    """Ages 0-99, four of each: 2-12 has 44 images, 13-17 20, 18-64 188, 65+ 140; 8 are left out."""
    code, out, _ = linfair(capsys, "data", "describe", "utkface_age", "--json")
    assert code == 0
    rows = pd.DataFrame(json.loads(out)["rows"])
    assert rows.groupby("group_number")["n"].sum().tolist() == [44, 20, 188, 140]
    code, out, _ = linfair(capsys, "data", "describe", "utkface_age", "--group", "gender")
    assert code == 0 and "label age, group gender" in out
    assert "Training images by group and label" in out and "paper" not in out.split("source:")[0]
    assert "Self-described" in out
    code, out, _ = linfair(capsys, "data", "describe", "utkface_race")
    assert code == 0 and "42.51" in out and "7.14" in out and "drawn" in out


def test_describe_writes_rows_that_replace_their_own_kind_only(faces: Path, capsys: pytest.CaptureFixture) -> None:
    file = faces / "counts.parquet"
    for words in (["utkface_race"], ["utkface_race", "--group", "gender"], ["utkface_race", "--seed", "1"]):
        assert linfair(capsys, "data", "describe", *words, "--write", str(file))[0] == 0
    table = pd.read_parquet(file)
    assert set(map(tuple, table[["group", "seed"]].drop_duplicates().to_numpy())) == {("race", 1), ("gender", 0)}
    assert table.loc[table["group"] == "gender", "n"].sum() == 400


def test_describe_a_folder_lists_what_is_left_out_and_strict_refuses(
    pictures: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ["data", "describe", "folder:mine", "--label", "kind", "--group", "site"]
    code, out, _ = linfair(capsys, *words)
    assert code == 0
    assert "files skipped: 1" in out and "bad.png: " in out
    assert [line.split()[:2] for line in out.splitlines() if line.strip().startswith(("far", "near"))][:2] == [
        ["far", "minority"],
        ["near", "majority"],
    ]
    code, out, err = linfair(capsys, *words, "--strict")
    assert code == 2 and out == "" and "bad.png" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["describe", "utkface_ages"], ["'utkface_age'"]),
        (["describe", "cifar10"], ["linfair data fetch cifar10"]),
        (["describe", "utkface_age", "--label", "height"], ["linfair data"]),
        (["describe", "folder:nowhere"], ["nowhere"]),
        (["describe", "digits", "--label", "kind"], ["digits has no option 'label'"]),
        (["pack", "cifar", "--out", "x.npz"], ["'cifar10'"]),
        (["pack", "svhn", "--out", "x.npz"], ["linfair data fetch svhn"]),
        (["fetch", "digits"], ["cifar10, cifar100, mnist, svhn, utkface, celeba"]),
        (["fetch", "utkface"], ["research"]),
    ],
)
def test_wrong_requests_exit_2_with_one_line_and_leave_nothing(
    words: list[str], said: list[str], empty: Path, capsys: pytest.CaptureFixture
) -> None:
    code, out, err = linfair(capsys, "data", *words)
    assert code == 2 and out == ""
    assert err.startswith("linfair: ") and err.count("\n") == 1
    for word in said:
        assert word in err
    assert [path for path in empty.rglob("*") if path.is_file()] == []


# --- status ------------------------------------------------------------------------------------------------


def test_status_without_data_says_where_it_looked_and_what_to_do(empty: Path, capsys: pytest.CaptureFixture) -> None:
    code, out, _ = linfair(capsys, "data", "status")
    assert code == 0
    assert out.count("not found in") == 6 and str(empty / "cache" / "data") in out
    assert "linfair data fetch cifar10" in out


def test_status_counts_a_pack_without_decoding_it(
    faces: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("an image was decoded")

    monkeypatch.setattr("linfair.data.packs._decode", fail)
    code, out, _ = linfair(capsys, "data", "status", "--json")
    assert code == 0
    found = json.loads(out)["utkface"]
    assert found["found"] and found["kind"] == "pack" and found["checksum"] == "checksum ok"
    assert found["images"] == 400
    assert found["groups"]["age"] == dict(zip(NAMES["age"], (44, 20, 188, 140), strict=True))
    code, out, _ = linfair(capsys, "data", "status")
    assert "400 images, checksum ok" in out and "(left out: 8)" in out


def test_a_truncated_pack_is_one_line_that_says_what_to_do(faces: Path, capsys: pytest.CaptureFixture) -> None:
    whole = (faces / "utkface.npz").read_bytes()
    (faces / "utkface.npz").write_bytes(whole[: len(whole) // 2])
    for words in (["status"], ["describe", "utkface_race"], ["pack", "utkface", "--out", str(faces / "again.npz")]):
        code, _, err = linfair(capsys, "data", *words)
        assert code == 2
        assert err.startswith("linfair: ") and err.count("\n") == 1
        assert "cut short" in err and "copy it again" in err
    assert not (faces / "again.npz").exists()


# --- pack --------------------------------------------------------------------------------------------------


def test_a_folder_packed_reads_back_with_its_checksum(pictures: Path, capsys: pytest.CaptureFixture) -> None:
    code, out, _ = linfair(capsys, "data", "pack", "folder:mine", "--out", "mine.npz")
    assert code == 0 and "200 images, files skipped: 1" in out
    with np.load("mine.npz") as pack:
        assert pack["site"].sum() == 160 and sorted(pack["names_site"]) == ["far", "near"]
    assert linfair(capsys, "data", "pack", "folder:mine", "--out", "strict.npz", "--strict")[0] == 2
    assert not Path("strict.npz").exists()


# --- linearize ---------------------------------------------------------------------------------------------


def test_linearize_a_folder_and_a_changed_image_starts_anew(pictures: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["linearize", "--data", "folder:mine", "--label", "kind", "--group", "site", "--network", "mlp"]
    words += ["--width", "8", "--method", "random", "--budgets", "0.5", "--profile", "smoke", "--no-control"]
    code, out, err = linfair(capsys, *words, "--out", "once")
    assert code == 0, err
    assert "far" in out and "near" in out and err.count("computed") == 2
    again = linfair(capsys, *words, "--out", "twice")[2]
    assert again.count(": read") == 2 and "computed" not in again
    Image.fromarray(np.zeros((20, 24, 3), np.uint8)).save(pictures / "7.png")
    changed = linfair(capsys, *words, "--out", "thrice")[2]
    assert changed.count("computed") == 2


def test_linearize_refuses_another_group_than_its_teachers_and_data_that_are_not_there(
    pictures: Path, capsys: pytest.CaptureFixture
) -> None:
    words = [
        "linearize",
        "--method",
        "random",
        "--budgets",
        "0.5",
        "--profile",
        "smoke",
        "--no-control",
        "--width",
        "8",
    ]
    mine = ["--data", "folder:mine", "--label", "kind", "--group", "site"]
    assert linfair(capsys, *words, *mine, "--out", "first")[0] == 0
    teacher = ["--teacher", "first/teacher.safetensors"]
    code, out, _ = linfair(capsys, *words[:-2], *teacher, "--out", "second")
    assert code == 0 and "far" in out
    code, _, err = linfair(capsys, *words[:-2], *teacher, "--group", "kind", "--out", "third")
    assert code == 2 and "--group kind" in err and "site" in err
    for wrong in (["--data", "folder:nowhere"], ["--data", "cifar10"], [*mine[:4], "--group", "sight"]):
        code, _, err = linfair(capsys, *words, *wrong, "--out", "fourth")
        assert code == 2 and err.splitlines()[-1].startswith("linfair: ") and "Traceback" not in err
    assert not Path("third").exists() and not Path("fourth").exists()


def test_every_command_that_reads_a_folder_takes_its_choices_and_says_what_was_met(
    pictures: Path, capsys: pytest.CaptureFixture
) -> None:
    """Of the 40 far images one is listed again, as near; groups of site and half occur as four combinations."""
    text = (pictures / "labels.csv").read_text().splitlines()
    halves = [f"{line},{'half' if i == 0 else 'low' if i <= 100 else 'high'}" for i, line in enumerate(text)]
    (pictures / "labels.csv").write_text("\n".join([*halves, "./0.png,a,near,low"]))
    choices = ["--label", "kind", "--group", "site,half", "--merge", "site=far, half=low+site=far, half=high"]
    choices += ["--min-images", "80"]
    code, out, _ = linfair(capsys, "data", "describe", "folder:mine", *choices)
    assert code == 0 and "listed with conflicting values" in out and "groups left out" in out
    run = ["linearize", "--data", "folder:mine", *choices, "--width", "8", "--method", "random", "--budgets", "0.5"]
    run += ["--profile", "smoke", "--no-control", "--conflicts", "first"]
    code, out, err = linfair(capsys, *run, "--out", "once")
    assert code == 0, err
    assert "data: groups left out for having too few images: 1, 40 images" in err
    assert "data: files listed more than once: 1" in err
    teacher = ["linearize", "--teacher", "once/teacher.safetensors", "--method", "random", "--budgets", "0.5"]
    teacher += ["--profile", "smoke", "--no-control"]
    code, out, err = linfair(capsys, *teacher, *choices, "--conflicts", "first", "--out", "again")
    assert code == 0 and "site=near, half=low" in out, err
    code, _, err = linfair(capsys, *teacher, "--min-images", "3", "--out", "third")
    assert code == 2 and "--min-images 3" in err and "was trained with" in err
    code, _, err = linfair(capsys, "data", "describe", "digits", "--min-images", "3")
    assert code == 2 and "digits has no option 'min_images'" in err


def test_describe_keeps_the_rows_of_another_folder(pictures: Path, capsys: pytest.CaptureFixture) -> None:
    """Oracle: the sum of what was written."""
    shutil.copytree(pictures, pictures.with_name("other"))
    for name in ("mine", "other", "mine"):
        words = [f"folder:{name}", "--label", "kind", "--group", "site", "--write", "counts.parquet"]
        assert linfair(capsys, "data", "describe", *words)[0] == 0
    counts = pd.read_parquet("counts.parquet").groupby("data")["n"].sum()
    assert counts.to_dict() == {"folder mine": 200, "folder other": 200}


def test_files_skipped_for_one_reason_share_a_line(pictures: Path, capsys: pytest.CaptureFixture) -> None:
    with (pictures / "labels.csv").open("a") as file:
        file.write("".join(f"gone{i}.png,a,near\n" for i in range(120)))
    code, out, _ = linfair(capsys, "data", "describe", "folder:mine", "--label", "kind")
    assert code == 0 and "files skipped: 121 (121 not readable)" in out
    assert "there is no such file: 120 files, gone0.png, gone1.png" in out and out.count("no such file") == 1


# --- the real packs ----------------------------------------------------------------------------------------


@needs_packs
def test_status_of_the_real_packs(capsys: pytest.CaptureFixture) -> None:
    """Oracle: the counts that the packs were published with."""
    code, out, _ = linfair(capsys, "data", "status", "--json")
    assert code == 0
    found = json.loads(out)
    assert {name: one["images"] for name, one in found.items() if one["found"]} == {
        "cifar10": 60_000,
        "svhn": 10_288,
        "utkface": 23_705,
    }
    assert {one["checksum"] for one in found.values() if one["found"]} == {"checksum ok"}
    assert list(found["utkface"]["groups"]["race"].values()) == [10078, 4526, 3434, 3975, 1692]
    assert list(found["utkface"]["groups"]["age"].values()) == [2290, 820, 17514, 1958]
    assert list(found["utkface"]["groups"]["gender"].values()) == [12391, 11314]


@needs_packs
@pytest.mark.parametrize("name", ["utkface_age", "utkface_race", "utkface_gender", "cifar10", "cifar10s", "svhn"])
def test_the_books_counts_are_those_of_the_data(name: str, capsys: pytest.CaptureFixture) -> None:
    """Oracle: the data, split again."""
    committed = read_rows(name, group="domain" if name == "cifar10s" else None)
    rows = describe.count_rows(load_data(name, seed=int(committed["seed"].iloc[0])))
    same = ["split", "group_name", "label_name", "n", "source_sha256", "source"]
    assert committed[same].reset_index(drop=True).equals(rows[same])
