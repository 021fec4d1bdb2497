"""Tables as spreadsheets and programs write them: one content in every dress; the oracle is the plain table."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from linfair.data import DataError, load_data
from linfair.data.folder import read_folder

PLAIN = "file,label,site\na.png,dog,Łódź\nsub/b.png,cat,Rome\nc.png,dog,Rome\n"


@pytest.fixture
def mine(tmp_path: Path, write_image: Callable[..., np.ndarray]) -> Path:
    """Three images, one of them in a folder."""
    for number, name in enumerate(("a.png", "sub/b.png", "c.png")):
        write_image(tmp_path / name, number, size=(8, 8))
    return tmp_path


def content(folder: Path, raw: bytes) -> tuple[object, ...]:
    (folder / "labels.csv").write_bytes(raw)
    read = read_folder(folder, columns=("label", "site"))
    return read.names, {name: values.tolist() for name, values in read.fields.items()}, read.sha256, read.skipped


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_delimiters_codings_and_line_ends_do_not_matter(delimiter: str, coding: str, end: str, mine: Path) -> None:
    dressed = PLAIN.replace(",", delimiter).replace("\n", end)
    assert content(mine, dressed.encode(coding)) == content(mine, PLAIN.encode())


@pytest.mark.parametrize(
    "text",
    [
        'sep=;\r\n"file";"label";"site"\r\n"a.png";"dog";"Łódź"\r\nsub/b.png;cat;Rome\r\nc.png;dog;Rome\r\n',
        "file;label;site\na.png;dog;Łódź\nsub\\b.png;cat;Rome\n.\\c.png;dog;Rome\n",
        "file,label,site\n./a.png,dog,Łódź\nsub//b.png,cat,Rome\nC.PNG,dog,Rome\n",
        "file,label,site\n\na.png,dog,Ło\u0301dz\u0301\n,,\nsub/b.png, cat ,Rome\nc.png,dog,Rome\n\n\n",
        'site,"file",label\nŁódź,a.png,dog\nRome,sub/b.png,cat\nRome,c.png,dog\n',
        '"file", label,site\r\n"a.png", dog,Łódź\r\n\r\nsub/b.png,cat,Rome\r\nc.png,dog,Rome\r\n',
    ],
    ids=[
        "excel",
        "backslashes",
        "spellings of a path",
        "blanks and accents apart",
        "order of columns",
        "blanks before names",
    ],
)
def test_quotes_slashes_blanks_and_accents_do_not_matter(text: str, mine: Path) -> None:
    assert content(mine, text.encode()) == content(mine, PLAIN.encode())


def test_a_quoted_cell_may_hold_delimiters_and_line_breaks(mine: Path) -> None:
    (mine / "labels.csv").write_text('file,label,note\na.png,"dog, old","one\ntwo"\nc.png,cat,"x;y"\n')
    read = read_folder(mine, columns=("label", "note"))
    assert read.names == {"label": ("cat", "dog, old"), "note": ("one two", "x;y")}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("file;label\na.png;Hündin\n".encode("latin1"), "is not UTF-8 text .*save it as CSV in UTF-8"),
        ("file,label\na.png,dog\n".encode("utf-16-le"), "zero bytes.*save it as CSV in UTF-8"),
        ("file,label\na.png,dog\n".encode("utf-16")[:-1], "is not UTF-16.* text"),
        (b"file:label\na.png:dog\n", "no column file; there are file:label"),
        (b"picture;label\na.png;dog\n", "no column file; there are picture, label"),
    ],
)
def test_what_cannot_be_read_is_one_line_that_says_why(raw: bytes, message: str, mine: Path) -> None:
    (mine / "labels.csv").write_bytes(raw)
    with pytest.raises(DataError, match=message) as caught:
        read_folder(mine)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"file,label" + b",x" * 10**6 + b"\n", "line 1 has 1,000,002 cells.*at most 1,000"),
        (b"file,label" + b"".join(b",c%d" % i for i in range(10**6)), "line 1 has"),
        (b"file,label\na.png" + b"," * 10**6, "line 2 has 1,000,001 cells"),
        (b"file,label\na.png," + b"x" * 10**8 + b"\n", "at most 67,108,864 are read"),
        (b"file,label\na.png," + b"x" * 10**7 + b"\n", "cell very long"),
        (b"file,label\na.png," + b"x" * 5000 + b"\n", "line 2 has 2 cells, the longest of 5,000 characters"),
        (b"x" * 10**7, "cell very long"),
        (b'file,label\n"a.png,dog\n' + b"b.png,cat\n" * 10**5, "quote not closed"),
        (b"PK\x03\x04\x14\x00\x08\x08\xf0\x9f\xff" * 20, "is not UTF-8|zero bytes"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" * 20, "is not UTF-8"),
        (b"file,label\na.png,do\0g\n", "zero bytes"),
        (bytes(1000), "zero bytes"),
        (b"a.png,dog\nc.png,cat\n", "no column file; there are a.png, dog"),
        (b"\n" * 10**6, "no lines below its header"),
    ],
)
def test_a_table_of_any_size_and_content_is_one_short_line(raw: bytes, message: str, mine: Path) -> None:
    (mine / "labels.csv").write_bytes(raw)
    with pytest.raises(DataError, match=message) as caught:
        load_data(f"folder:{mine}")
    assert len(str(caught.value)) < 1000
    assert "\n" not in str(caught.value)


def test_a_table_that_is_no_file_is_named_and_never_waited_for(mine: Path) -> None:
    place = mine / "labels.csv"
    os.mkfifo(place)
    with pytest.raises(DataError, match="labels.csv is a pipe, not a file: a folder needs a table"):
        load_data(f"folder:{mine}")
    place.unlink()
    place.mkdir()
    with pytest.raises(DataError, match="labels.csv is a folder, not a file"):
        load_data(f"folder:{mine}")
    place.rmdir()
    place.symlink_to("/dev/zero")
    with pytest.raises(DataError, match="out of the folder"):
        load_data(f"folder:{mine}")
    with pytest.raises(DataError, match="is a device"):
        load_data(f"folder:{mine}", links="anywhere")


def test_many_files_that_are_not_there_are_an_error_of_one_line(mine: Path) -> None:
    (mine / "labels.csv").write_text("file,label\n" + "".join(f"images\\{i:04}.png,dog\n" for i in range(120)))
    with pytest.raises(DataError, match="no image can be used, 120 skipped.*... 114 more") as caught:
        read_folder(mine)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "path", ["../a.png", "..\\a.png", "sub/../../a.png", "/etc/hostname", "C:\\a.png", "\\a.png", "."]
)
def test_no_spelling_of_a_path_leaves_the_folder(path: str, mine: Path) -> None:
    (mine / "labels.csv").write_text(f"file;label\n{path};dog\n")
    with pytest.raises(DataError, match="labels.csv, line 2: .* is no file in the folder"):
        read_folder(mine)


# --- folders as labels -------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path, write_image: Callable[..., np.ndarray]) -> Callable[..., Path]:
    """Writes so many images into each folder."""

    def write(counts: dict[str, int]) -> Path:
        for number, (place, n) in enumerate(counts.items()):
            for i in range(n):
                write_image(tmp_path / "tree" / place / f"{i}.png", 1000 * number + i, size=(8, 8))
        return tmp_path / "tree"

    return write


def test_folders_are_labels_where_there_is_no_table(tree: Callable[..., Path]) -> None:
    folder = tree({"cats": 20, "dogs/old": 10, "dogs": 10, ".cache": 3, "__MACOSX/cats": 2})
    data = load_data(f"folder:{folder}")
    assert data.label_names == data.group_names == ("cats", "dogs")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 28, "val": 4, "test": 8}
    assert data.provenance["skipped"] == []


@pytest.mark.parametrize(
    "words", [("train", "val", "test"), ("Training", "valid", "testing"), ("train", "dev", "test")]
)
def test_folders_called_like_splits_are_the_users_splits(
    words: tuple[str, str, str], tree: Callable[..., Path]
) -> None:
    counts = {
        f"{word}/{label}": n for word, n in zip(words, (6, 3, 4), strict=True) for label in ("1.0", "2.0", "10.0")
    }
    data = load_data(f"folder:{tree(counts)}", seed=3)
    assert data.label_names == ("1.0", "2.0", "10.0")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 18, "val": 9, "test": 12}
    assert data.provenance["drawn"] == {}


def test_a_split_that_the_folders_do_not_have_is_drawn(tree: Callable[..., Path]) -> None:
    data = load_data(f"folder:{tree({'train/a': 20, 'train/b': 20, 'val/a': 5, 'val/b': 5})}")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 32, "val": 10, "test": 8}
    assert list(data.provenance["drawn"]) == ["test"]


def test_a_label_may_be_called_like_a_split(tree: Callable[..., Path]) -> None:
    data = load_data(f"folder:{tree({'bus': 20, 'car': 20, 'train': 20})}")
    assert data.label_names == ("bus", "car", "train")


def test_a_table_goes_before_folders(tree: Callable[..., Path]) -> None:
    folder = tree({"cats": 10, "dogs": 10})
    lines = [f"{place}/{i}.png,{'xy'[i % 2]}" for place in ("cats", "dogs") for i in range(10)]
    (folder / "labels.csv").write_text("file,label\n" + "\n".join(lines))
    assert load_data(f"folder:{folder}").label_names == ("x", "y")


@pytest.mark.parametrize(
    ("counts", "options", "message"),
    [
        ({"train/a": 3, "test/a": 3, "extra/a": 3}, {}, "folders test, train are splits, extra are not"),
        ({"train": 4, "test": 4}, {}, "without a folder for each label"),
        ({"val/a": 4, "val/b": 4, "test/a": 4}, {}, "gives no image to train; it has test, val"),
        ({".": 5, "sub": 2}, {}, "no labels.csv in"),
        ({"a": 5, "b": 5}, {"group": "site"}, "has no column site; there are label"),
    ],
)
def test_folders_that_say_too_little_are_refused(
    counts: dict[str, int], options: dict[str, str], message: str, tree: Callable[..., Path]
) -> None:
    folder = tree(counts)
    with pytest.raises(DataError, match=message) as caught:
        load_data(f"folder:{folder}", **options)
    assert "\n" not in str(caught.value)


# --- a user's own splits -----------------------------------------------------------------------------------


def own_splits(folder: Path, write_image: Callable[..., np.ndarray], words: list[str]) -> Path:
    lines = ["file,label,split"]
    for number in range(40):
        write_image(folder / f"{number}.png", number, size=(8, 8))
        lines.append(f"{number}.png,{'ab'[number % 2]},{words[number // 2 % len(words)]}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize("word", ["val", "valid", "Validation", "dev", "development"])
def test_a_users_validation_images_are_the_validation_split(
    word: str, tmp_path: Path, write_image: Callable[..., np.ndarray]
) -> None:
    folder = own_splits(tmp_path / "mine", write_image, ["train", "training", word, "test", "Testing"])
    data = load_data(f"folder:{folder}")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 16, "val": 8, "test": 16}
    assert data.provenance["drawn"] == {}
    again = load_data(f"folder:{folder}", seed=7)
    assert again.provenance["sha256"] == data.provenance["sha256"], "no seed decides a split that is given"


def test_validation_images_identical_to_training_images_are_left_out(
    tmp_path: Path, write_image: Callable[..., np.ndarray]
) -> None:
    folder = own_splits(tmp_path / "mine", write_image, ["train", "train", "val", "test"])
    (folder / "4.png").write_bytes((folder / "0.png").read_bytes())  # of validation and of training
    (folder / "7.png").write_bytes((folder / "5.png").read_bytes())  # of test and of validation
    read = read_folder(folder)
    assert [(one.name, one.why) for one in read.skipped] == [
        ("4.png", "identical to a training image"),
        ("7.png", "identical to a validation image"),
    ]


def test_an_unknown_split_names_the_known_ones(tmp_path: Path, write_image: Callable[..., np.ndarray]) -> None:
    folder = own_splits(tmp_path / "mine", write_image, ["train", "holdout"])
    with pytest.raises(DataError, match="found ..holdout..; allowed: train or training; test or testing; val or valid"):
        read_folder(folder)
