"""A user's folder: columns, skips, copies, sizes and modes; what is wrong with the table is said."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from linfair.data.core import DataError, Skipped
from linfair.data.folder import read_folder

Writer = Callable[..., np.ndarray]


def table(folder: Path, text: str, **how: object) -> None:
    (folder / "labels.csv").write_text(text, **({"encoding": "utf-8"} | how))


@pytest.fixture
def mine(tmp_path: Path, write_image: Writer) -> Path:
    """Images of mixed sizes and modes, one of them twice."""
    folder = tmp_path / "mine"
    write_image(folder / "a.png", 1, size=(50, 30))
    write_image(folder / "sub" / "b.jpg", 2, size=(32, 32))
    write_image(folder / "c.png", 3, mode="L")
    write_image(folder / "d.png", 4, mode="RGBA", size=(64, 64))
    (folder / "again.png").write_bytes((folder / "a.png").read_bytes())
    table(
        folder,
        "file,label,site,age\na.png,dog,Łódź,10\nsub/b.jpg,cat,Rome,9\nc.png,dog,Rome,9\nd.png,cat,Łódź,100\n"
        "again.png,cat,Rome,10\n",
    )
    return folder


def test_columns_become_numbers_with_names_in_order(mine: Path) -> None:
    read = read_folder(mine, columns=("label", "site", "age"))
    assert read.names == {"label": ("cat", "dog"), "site": ("Rome", "Łódź"), "age": ("9", "10", "100")}
    assert read.fields["label"].tolist() == [1, 0, 1, 0, 0]
    assert read.fields["site"].tolist() == [1, 0, 0, 1, 0]
    assert read.fields["age"].tolist() == [1, 0, 0, 2, 1]
    assert read.same.tolist() == [0, 1, 2, 3, 0]
    assert (read.official, read.skipped, read.images.shape) == (None, (), (5, 3, 32, 32))


@pytest.mark.parametrize("size", [8, 32, 64])
def test_pixels_are_pillows_bilinear_resize_of_the_rgb_image(mine: Path, size: int) -> None:
    read = read_folder(mine, size=size)
    for name, image in zip(["a.png", "sub/b.jpg", "c.png", "d.png", "again.png"], read.images, strict=True):
        with Image.open(mine / name) as file:
            expected = file.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(image.transpose(1, 2, 0), np.asarray(expected))


def test_unusable_lines_are_skipped_and_listed_or_errors(mine: Path) -> None:
    (mine / "empty.png").write_bytes(b"")
    (mine / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing more")
    with (mine / "labels.csv").open("a", encoding="utf-8") as file:
        file.write("gone.png,dog,Rome,1\nempty.png,dog,Rome,1\nbad.png,dog,Rome,1\nc.png,,Rome,1\n,dog,Rome,1\n")
    read = read_folder(mine)
    reasons = {one.name: one.why for one in read.skipped}
    assert reasons["gone.png"] == "there is no such file"
    assert reasons["empty.png"] == "the file is empty"
    assert reasons["bad.png"].startswith("no readable image")
    assert reasons["c.png"] == "no label in labels.csv"
    assert reasons["line 11"] == "no file in labels.csv"
    assert (len(reasons), len(read)) == (5, 5)
    with pytest.raises(DataError, match=r"5 skipped \(c.png: no label.*--strict"):
        read_folder(mine, strict=True)


def test_values_of_skipped_lines_do_not_become_names(mine: Path) -> None:
    with (mine / "labels.csv").open("a", encoding="utf-8") as file:
        file.write("gone.png,horse,Rome,1\n")
    assert read_folder(mine).names["label"] == ("cat", "dog")


def test_a_split_column_is_the_official_split_and_copies_of_training_images_leave_the_test(mine: Path) -> None:
    table(
        mine,
        "file,label,split\na.png,dog,train\nsub/b.jpg,cat,Test\nc.png,dog,train\nd.png,cat,test\nagain.png,cat,test\n",
    )
    read = read_folder(mine)
    assert read.official.tolist() == [0, 1, 0, 1]
    assert read.skipped == (Skipped("again.png", "identical to a training image"),)
    with pytest.raises(DataError, match="again.png: identical to a training image"):
        read_folder(mine, strict=True)


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("file,label\na.png,dog\n", ("labell",), r"no column labell; there are label \(did you mean label\?\)"),
        ("file,label,site\na.png,dog,x\n", ("label", "group"), "no column group; there are label, site$"),
        ("image,label\na.png,dog\n", ("label",), "no column file; there are image, label"),
        ("image;label\na.png;dog\n", ("label",), "no column file; there are image, label"),
        ("file,label\n", ("label",), "no lines below its header"),
        ("", ("label",), "no lines below its header"),
        ("file,label,label\na.png,dog,cat\n", ("label",), "column 'label' twice"),
        ("file,label\na.png,dog,cat\n", ("label",), "line 2: 3 cells, the header has 2"),
        ("file,label\n\n\na.png\n", ("label",), "line 4: 1 cells, the header has 2"),
        ('file,label\n"a.png,dog\n', ("label",), "cannot be read: unexpected end of data"),
        ("file,label,split\na.png,dog,held\n", ("label",), "column split holds train, val and test, found ..held.."),
        ("file,label\ngone.png,dog\n", ("label",), "no image can be used, 1 skipped: gone.png: there is no such file"),
    ],
)
def test_a_table_that_cannot_be_used_is_described(
    text: str, columns: tuple[str, ...], message: str, mine: Path
) -> None:
    table(mine, text)
    with pytest.raises(DataError, match=message) as caught:
        read_folder(mine, columns=columns)
    assert "\n" not in str(caught.value)


def test_no_table_and_no_size(mine: Path) -> None:
    with pytest.raises(DataError, match=r"size=0"):
        read_folder(mine, size=0)
    (mine / "labels.csv").unlink()
    with pytest.raises(DataError, match="there is no .*labels.csv: a folder needs a table labels.csv"):
        read_folder(mine)
