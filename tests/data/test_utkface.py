"""UTKFace from original files: names, skips, copies, modes; torchvision as oracle of the resizing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from linfair.data.core import DataError, Skipped
from linfair.data.official import fields_of, holds_faces, read_utkface
from linfair.data.sources import read
from linfair.data.torchvision import torchvision

Writer = Callable[..., np.ndarray]
DATE = "20170116174525125"


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        (f"26_1_3_{DATE}.jpg.chip.jpg", (26, 1, 3)),
        (f"116_0_4_{DATE}.jpg.chip.jpg", (116, 0, 4)),
        (f"0_0_0_{DATE}.JPG", (0, 0, 0)),
        ("55_0_0_20170116232725357jpg.chip.jpg", (55, 0, 0)),
        ("44_1_4_20170116235150272.pg.chip.jpg", (44, 1, 4)),
        ("39_1_20170116174525125.jpg.chip.jpg", (39, -1, -1)),
        ("61_1_20170109142408075.jpg.chip.jpg", (61, -1, -1)),
        ("61_1_20170109150557335.jpg.chip.jpg", (61, -1, -1)),
        (f"61_{DATE}.jpg", (61, -1, -1)),
        (f"61__2_{DATE}.jpg", (61, -1, 2)),
        (f"61_1__{DATE}.jpg", (61, 1, -1)),
    ],
)
def test_names_of_the_release_and_those_with_slips(name: str, fields: tuple[int, int, int]) -> None:
    """Real names among them: the three that lack a field, the two with a slip in the extension."""
    assert tuple(fields_of(name).values()) == fields


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (f"117_0_0_{DATE}.jpg", r"age is 117, not in 0\.\.116"),
        (f"-1_0_0_{DATE}.jpg", r"age is -1, not in 0\.\.116"),
        (f"26_2_0_{DATE}.jpg", r"gender is 2, not in 0\.\.1"),
        (f"26_1_5_{DATE}.jpg", r"race is 5, not in 0\.\.4"),
        (f"26_9_{DATE}.jpg", r"gender is 9, not in 0\.\.1"),
        (f"_0_0_{DATE}.jpg", "no age"),
        (f"{DATE}.jpg", "no age"),
        (f"old_0_0_{DATE}.jpg", "age is 'old', not a number"),
        (f"٢_0_0_{DATE}.jpg", "age is '٢', not a number"),
        (f"1_0_0_0_{DATE}.jpg", "4 fields before the date, not 3"),
        ("26_1_3.jpg", "no date"),
        ("holiday.jpg", "no date"),
    ],
)
def test_absurd_and_missing_fields_are_said(name: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        fields_of(name)


@pytest.fixture
def faces(tmp_path: Path, write_image: Writer) -> Path:
    """Six usable files, one for age only, and six kinds of trouble."""
    folder = tmp_path / "UTKFace"
    write_image(folder / f"26_1_3_{DATE}.jpg.chip.jpg", 1)
    write_image(folder / "part2" / f"30_0_1_{DATE}.jpg.chip.JPG", 2)
    write_image(folder / f"31_0_2_{DATE}.jpg.chip.png", 3)
    write_image(folder / f"80_1_2_{DATE}.jpg.chip.png", 3)
    write_image(folder / f"40_0_0_{DATE}.jpg.chip.jpg", 4, mode="L")
    write_image(folder / f"41_0_0_{DATE}.jpg.chip.png", 5, mode="RGBA", size=(150, 90))
    write_image(folder / f"39_1_{DATE}.jpg.chip.jpg", 6)
    write_image(folder / f"200_1_1_{DATE}.jpg.chip.jpg", 7)
    write_image(folder / f"50_1_9_{DATE}.jpg.chip.jpg", 8)
    (folder / f"51_1_1_{DATE}.jpg.chip.jpg").write_bytes(b"")
    (folder / f"52_1_1_{DATE}.jpg.chip.jpg").write_bytes(b"no image")
    whole = (folder / f"26_1_3_{DATE}.jpg.chip.jpg").read_bytes()
    (folder / f"53_1_1_{DATE}.jpg.chip.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "part2" / f"26_1_3_{DATE}.jpg.chip.jpg").write_bytes(whole)
    (folder / "README.txt").write_text("not an image")
    (folder / f"._26_1_3_{DATE}.jpg").write_bytes(b"a Mac was here")
    return folder


def test_usable_files_are_read_and_the_others_listed_with_the_reason(faces: Path) -> None:
    read = read_utkface(faces)
    assert read.fields["age"].tolist() == [26, 31, 39, 40, 41, 80, 30]
    assert read.fields["race"].tolist() == [3, 2, -1, 0, 0, 2, 1]
    assert read.fields["gender"].tolist() == [1, 0, -1, 0, 0, 1, 0]
    assert read.same.tolist() == [0, 1, 2, 3, 4, 1, 5], "the two PNG files are one picture"
    assert read.official is None
    reasons = {one.name: one.why for one in read.skipped}
    assert reasons.pop(f"39_1_{DATE}.jpg.chip.jpg") == "no gender and race in the name; used for age only"
    assert reasons.pop(f"200_1_1_{DATE}.jpg.chip.jpg") == "age is 200, not in 0..116"
    assert reasons.pop(f"50_1_9_{DATE}.jpg.chip.jpg") == "race is 9, not in 0..4"
    assert reasons.pop(f"51_1_1_{DATE}.jpg.chip.jpg") == "the file is empty"
    assert "cannot identify" in reasons.pop(f"52_1_1_{DATE}.jpg.chip.jpg")
    assert "truncated" in reasons.pop(f"53_1_1_{DATE}.jpg.chip.jpg")
    assert reasons.pop(f"part2/26_1_3_{DATE}.jpg.chip.jpg") == "the same file is in another subfolder"
    assert not reasons


def test_pixels_are_torchvisions_resize_of_the_rgb_image(faces: Path) -> None:
    """Oracle: torchvision.transforms.Resize((32, 32)) of what Pillow converts to RGB; shapes and modes mixed."""
    resize = torchvision().transforms.Resize((32, 32))
    read = read_utkface(faces)
    assert read.images.shape == (7, 3, 32, 32)
    for age, image in zip(read.fields["age"], read.images, strict=True):
        path = next(faces.rglob(f"{age}_*"))
        with Image.open(path) as file:
            expected = np.asarray(resize(file.convert("RGB"))).transpose(2, 0, 1)
        np.testing.assert_array_equal(image, expected)
    assert torch.from_numpy(read.images.copy()).float().std() > 10


def test_pictures_that_differ_only_at_full_size_are_not_the_same(tmp_path: Path) -> None:
    """One pixel in 200x200, gone at 32x32: two sets."""
    for age, value in ((20, 100), (21, 101)):
        pixels = np.full((200, 200, 3), 100, np.uint8)
        pixels[0, 0, 0] = value
        Image.fromarray(pixels).save(tmp_path / f"{age}_0_0_{DATE}.png")
    read = read_utkface(tmp_path)
    np.testing.assert_array_equal(*read.images)
    assert read.same.tolist() == [0, 1]


def test_strict_makes_skips_an_error(faces: Path) -> None:
    with pytest.raises(DataError, match=r"7 skipped \(200_1_1_.*\); mend or remove them"):
        read_utkface(faces, strict=True)


def test_strict_accepts_what_needs_no_skip(tmp_path: Path, write_image: Writer) -> None:
    write_image(tmp_path / f"26_1_3_{DATE}.jpg", 1)
    assert read_utkface(tmp_path, strict=True).skipped == ()


def test_a_folder_of_nothing_usable_says_so(tmp_path: Path) -> None:
    (tmp_path / f"26_1_3_{DATE}.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="no image can be used, 1 skipped: 26_1_3_.*: the file is empty"):
        read_utkface(tmp_path)


def test_deep_grey_images_are_not_clipped_but_skipped(tmp_path: Path, write_image: Writer) -> None:
    write_image(tmp_path / f"26_1_3_{DATE}.jpg", 1)
    Image.fromarray(np.full((9, 9), 1000, np.uint16)).save(tmp_path / f"27_1_3_{DATE}.png")
    skipped = Skipped(f"27_1_3_{DATE}.png", "mode I;16 has more than 8 bits a pixel; save it with 8")
    assert read_utkface(tmp_path).skipped == (skipped,)


def test_faces_are_recognised_by_name(faces: Path, tmp_path: Path) -> None:
    assert holds_faces(faces)
    assert holds_faces(tmp_path)
    assert not holds_faces(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    assert not holds_faces(tmp_path / "empty")


def test_names_of_files_that_a_terminal_would_obey_are_escaped(tmp_path: Path, write_image: Writer) -> None:
    """And names that are no UTF-8 are read, as their fields say."""
    names = (
        f"20_0_\x1b[31m_{DATE}.jpg",
        f"20_0_1\nlinfair: x_{DATE}.jpg",
        f"20_0_1_{DATE}\udce9.jpg",
        f"\udce9_{DATE}.jpg",
    )
    for number, name in enumerate(names):
        write_image(tmp_path / "UTKFace" / name, number, size=(8, 8))
    found = read("utkface", tmp_path)
    assert len(found) == 1
    assert [one.name for one in found.skipped] == [
        rf"20_0_\x1b[31m_{DATE}.jpg",
        rf"20_0_1\nlinfair: x_{DATE}.jpg",
        rf"\udce9_{DATE}.jpg",
    ]
    assert all(one.why.isprintable() for one in found.skipped)
    with pytest.raises(DataError, match="3 skipped") as caught:
        read("utkface", tmp_path, strict=True)
    assert str(caught.value).isprintable()
