"""A user's folder: columns, skips, copies, sizes and modes; what is wrong with the table is said."""

import io
import os
import socket
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from linfair.data import load_data
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
    with pytest.raises(DataError, match="labels.csv does not exist: a folder needs a table labels.csv"):
        read_folder(mine)


# --- files that are no picture, or that would cost too much ---------------------------------------------------


def png(width: int, height: int) -> bytes:
    """A PNG of few bytes that says it is this large."""
    header = b"IHDR" + struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(10**6))
    chunks = [struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in (header, data)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def drawn(form: str, mode: str = "RGB", size: tuple[int, int] = (8, 8), **how: object) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, form, **how)
    return buffer.getvalue()


FRAMES = {"save_all": True, "append_images": [Image.new("RGB", (8, 8), "red")]}
UNUSABLE = {
    "a bomb of 60,000 x 60,000 pixels": (png(60_000, 60_000), "pixels"),
    "a bomb of 10,000 x 10,000 pixels": (png(10_000, 10_000), "10000x10000 pixels, and at most"),
    "a GIF that says it is huge": (drawn("GIF")[:6] + b"\xff\xff\xff\xff" + drawn("GIF")[10:], "pixels"),
    "a BMP that says it is huge": (drawn("BMP")[:18] + struct.pack("<2i", 10**5, 10**5) + drawn("BMP")[26:], "pixels"),
    "an animated GIF": (drawn("GIF", **FRAMES), "several frames"),
    "an animated WebP": (drawn("WEBP", **FRAMES), "several frames"),
    "a TIFF of two pages": (drawn("TIFF", **FRAMES), "several frames"),
    "16 bits": (drawn("PNG", "I;16"), "8 bits"),
    "floats": (drawn("TIFF", "F"), "8 bits"),
    "an icon": (drawn("ICO", size=(16, 16)), "no readable image"),
    "a text": (b"hello", "no readable image"),
    "a page": (b"<!DOCTYPE html><html></html>", "no readable image"),
    "nothing": (b"", "empty"),
    "a PNG cut short": (drawn("PNG", size=(64, 64))[:60], "no readable image"),
    "a JPEG cut short": (drawn("JPEG", size=(64, 64))[:300], "no readable image"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_an_image_that_cannot_be_used_is_skipped_and_costs_nothing(case: str, mine: Path) -> None:
    """Whatever its name says; no bomb is unpacked."""
    content, why = UNUSABLE[case]
    (mine / "bad.png").write_bytes(content)
    table(mine, "file,label\na.png,dog\nc.png,cat\nbad.png,dog\n")
    tracemalloc.start()
    (skipped,) = read_folder(mine).skipped
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (skipped.name, skipped.kind) == ("bad.png", "unreadable")
    assert why in skipped.why
    assert peak < 2e7


@pytest.mark.parametrize(("mode", "form"), [("CMYK", "JPEG"), ("P", "PNG"), ("P", "GIF"), ("1", "PNG"), ("LA", "PNG")])
def test_unusual_modes_are_read_as_pillow_converts_them(mode: str, form: str, mine: Path) -> None:
    transparent = {"transparency": b"\x00\x80"} if (mode, form) == ("P", "PNG") else {}
    (mine / "a.png").write_bytes(drawn(form, mode, **transparent))
    table(mine, "file,label\na.png,dog\nc.png,cat\n")
    read = read_folder(mine, size=8)
    with Image.open(mine / "a.png") as file:
        np.testing.assert_array_equal(
            read.images[0].transpose(1, 2, 0), np.asarray(file.convert("RGBA").convert("RGB"))
        )


def test_pipes_sockets_and_devices_among_images_are_skipped_and_never_waited_for(mine: Path) -> None:
    os.mkfifo(mine / "pipe.png")
    (mine / "device.png").symlink_to("/dev/zero")
    (mine / "round.png").symlink_to("round.png")
    (mine / "folder.png").mkdir()
    names = ["pipe", "device", "round", "folder", "socket"]
    table(mine, "file,label\na.png,dog\nc.png,cat\n" + "".join(f"{name}.png,dog\n" for name in names))
    with socket.socket(socket.AF_UNIX) as one:
        before = os.getcwd()
        os.chdir(mine)
        one.bind("socket.png")
        os.chdir(before)
        why = {one.name: one.why for one in read_folder(mine, links="anywhere").skipped}
    assert "is a pipe" in why["pipe.png"]
    assert "is a device" in why["device.png"]
    assert "is a folder" in why["folder.png"]
    assert "is a socket" in why["socket.png"]
    assert "cannot be read" in why["round.png"]


def test_links_out_of_the_folder_are_skipped_unless_asked_for(mine: Path, tmp_path: Path, write_image: Writer) -> None:
    """The folder may be reached by a link itself, and links inside it are fine."""
    write_image(tmp_path / "outside" / "x.png", 9)
    (mine / "in.png").symlink_to(mine / "sub" / "b.jpg")
    (mine / "out.png").symlink_to(tmp_path / "outside" / "x.png")
    (mine / "away").symlink_to(tmp_path / "outside")
    table(mine, "file,label\na.png,dog\nin.png,cat\nout.png,dog\naway/x.png,cat\n")
    (tmp_path / "mine-too").symlink_to(mine)
    for folder in (mine, tmp_path / "mine-too"):
        read = read_folder(folder)
        assert [one.name for one in read.skipped] == ["out.png", "away/x.png"]
        assert str(tmp_path / "outside" / "x.png") in read.skipped[0].why
        assert "links anywhere" in read.skipped[0].why
    assert read_folder(mine, links="anywhere").skipped == ()
    with pytest.raises(DataError, match="links must be one of inside, anywhere, got 'all'"):
        read_folder(mine, links="all")
    (mine / "labels.csv").rename(tmp_path / "labels.csv")
    (mine / "labels.csv").symlink_to(tmp_path / "labels.csv")
    with pytest.raises(DataError, match="a link leads out of the folder"):
        read_folder(mine)
    assert read_folder(mine, links="anywhere").skipped == ()


def test_links_to_folders_are_followed_as_links_to_files_are(tmp_path: Path, write_image: Writer) -> None:
    """Oracle: 6 images of each label as torchvision's ImageFolder finds them, none twice where a link turns back."""
    root, outside = tmp_path / "mine", tmp_path / "outside"
    for number in range(18):
        place = (root / "cat", outside, root / "owl")[number % 3]
        write_image(place / f"{number}.png", number, size=(8, 8))
    (root / "dog").symlink_to(outside)
    (root / "owl" / "up").symlink_to(root)
    (root / "fox").symlink_to(tmp_path / "gone")
    (root / "cat" / "lost.png").symlink_to(tmp_path / "gone.png")
    near, far = read_folder(root), read_folder(root, links="anywhere")
    assert near.names["label"] == ("cat", "owl") and [one.name for one in near.skipped] == [
        "cat/lost.png",
        "dog",
        "fox",
    ]
    assert str(outside) in near.skipped[1].why and "links anywhere" in near.skipped[1].why
    assert far.names["label"] == ("cat", "dog", "owl") and np.bincount(far.fields["label"]).tolist() == [6, 6, 6]
    assert [one.name for one in far.skipped] == ["cat/lost.png", "fox"]


def test_images_by_any_of_their_formats_endings_are_found(tmp_path: Path, write_image: Writer) -> None:
    """A label is a folder, so that one whose files have another ending would be missed without a word."""
    for number, ending in enumerate((".png", ".ppm", ".PGM", ".jfif", ".jpe")):
        image = Image.fromarray(write_image(tmp_path / "drawn.png", number, size=(8, 8)))
        place = tmp_path / "mine" / f"of{ending}" / f"1{ending}"
        place.parent.mkdir(parents=True)
        image.save(place, format="PPM" if ending in (".ppm", ".PGM") else "PNG" if ending == ".png" else "JPEG")
    assert read_folder(tmp_path / "mine").names["label"] == ("of.PGM", "of.jfif", "of.jpe", "of.png", "of.ppm")


def test_a_changed_file_is_read_anew_whatever_its_name(tmp_path: Path, write_image: Writer) -> None:
    found = []
    for number in (0, 100):
        for image in range(30):
            write_image(tmp_path / "drawn.png", image + number * (image == 7), size=(8, 8))
            (tmp_path / "drawn.png").replace(tmp_path / f"image{image}")
        table(tmp_path, "file,label\n" + "".join(f"image{image},{'xy'[image % 2]}\n" for image in range(30)))
        found.append(load_data(f"folder:{tmp_path}").content)
    assert found[0] != found[1]


def test_names_that_are_no_text_are_escaped_or_skipped(tmp_path: Path, write_image: Writer) -> None:
    for number in range(40):
        write_image(tmp_path / ("cat" if number % 2 else "d\x1b[31mog") / f"{number}.png", number, size=(8, 8))
    for number, name in enumerate((b"caf\xe9.png", b"line\nbreak.png", b"\x1b[31m.png")):
        write_image(tmp_path / "cat" / f"new{number}.png", 100 + number, size=(8, 8))
        os.rename(tmp_path / "cat" / f"new{number}.png", os.path.join(os.fsencode(tmp_path / "cat"), name))
    (tmp_path / "cat" / "bad\nname.png").write_bytes(b"")
    data = load_data(f"folder:{tmp_path}")
    assert data.label_names == ("cat", r"d\x1b[31mog")
    assert sum(map(len, data.splits.values())) == 42
    assert data.provenance["skipped"] == [
        (r"cat/bad\nname.png", "the file is empty"),
        ("cat/caf\ufffd.png", "there is no such file, or its name is not UTF-8"),
    ]


def test_a_folder_of_everything_is_refused(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("linfair.data.images.MOST", 5)
    (mine / "labels.csv").unlink()
    with pytest.raises(DataError, match="5 files or more; name the folder that has the images"):
        load_data(f"folder:{mine}")
