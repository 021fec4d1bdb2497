"""CelebA from generated files under the published names: no face is in them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from linfair.data import DataError, input_shape, load_data
from linfair.data.official import CLASSES, read_attributes, read_celeba
from linfair.data.sources import find, read

Writer = Callable[..., tuple[np.ndarray, np.ndarray]]


@pytest.mark.parametrize("zipped", [False, True])
def test_images_attributes_and_partition_are_read_as_published(
    zipped: bool, tmp_path: Path, write_celeba: Writer
) -> None:
    """Oracles: what the files were written from; Pillow for the pixels; 0, 1, 2 are training, validation, test."""
    values, parts = write_celeba(tmp_path / "celeba", n=20)
    kept = {path.name: path.read_bytes() for path in (tmp_path / "celeba" / "img_align_celeba").iterdir()}
    if zipped:
        shutil.rmtree(tmp_path / "celeba")
        write_celeba(tmp_path / "celeba", n=20, zipped=True)
    found = read("celeba", tmp_path, size=24)
    np.testing.assert_array_equal(np.stack(list(found.fields.values()), axis=1), values)
    assert list(found.fields) == list(CLASSES["celeba"]) and len(found.fields) == 40
    assert [{0: 0, 2: 1, 1: 2}[number] for number in found.official.tolist()] == parts.tolist()
    (tmp_path / "one").mkdir()
    for image, name in zip(found.images, sorted(kept), strict=True):
        (tmp_path / "one" / name).write_bytes(kept[name])
        with Image.open(tmp_path / "one" / name) as file:
            small = file.convert("RGB").resize((24, 24), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(image, np.asarray(small).transpose(2, 0, 1))
    assert found.origin == "official files, 20 of 202,599 images" and not found.skipped


def test_label_and_group_are_attributes_in_the_official_split(tmp_path: Path, write_celeba: Writer) -> None:
    """Of 80 generated images 64 train, 8 validate, 8 are tested; Smiling and Male are balanced by construction."""
    values, parts = write_celeba(tmp_path, n=80)
    data = load_data("celeba", root=tmp_path, size=16)
    assert (data.label_names, data.group_names) == (("not Smiling", "Smiling"), ("not Male", "Male"))
    assert data.input_shape == input_shape("celeba", size=16) == (3, 16, 16)
    for name, number in (("train", 0), ("val", 1), ("test", 2)):
        part, mine = data.splits[name], values[parts == number]
        counts = torch.bincount(2 * part.y + part.a, minlength=4).tolist()
        assert counts == np.bincount(2 * mine[:, 31] + mine[:, 20], minlength=4).tolist()
    assert data.provenance["drawn"] == {} and data.provenance["subset"]
    other = load_data("celeba", root=tmp_path, size=16, label="Young", group="Eyeglasses")
    assert other.group_names == ("not Eyeglasses", "Eyeglasses")
    with pytest.raises(DataError, match="no attribute 'smiling'; did you mean .*Smiling"):
        load_data("celeba", root=tmp_path, size=16, label="smiling")


def test_attributes_are_read_without_opening_an_image(tmp_path: Path, write_celeba: Writer) -> None:
    values, _ = write_celeba(tmp_path)
    shutil.rmtree(tmp_path / "img_align_celeba")
    found = read_attributes(tmp_path)
    np.testing.assert_array_equal(found["Male"], values[:, 20], strict=True)
    assert find("celeba", tmp_path).kind == "celeba"
    with pytest.raises(DataError, match="no folder img_align_celeba, and no readable img_align_celeba.zip"):
        read_celeba(tmp_path)
    (tmp_path / "img_align_celeba.zip").write_bytes(b"no zip")
    with pytest.raises(DataError, match="BadZipFile"):
        read_celeba(tmp_path)


@pytest.mark.parametrize(
    ("file", "line", "text", "said"),
    [
        ("list_attr_celeba.txt", 1, "61", "must be 60;"),
        ("list_attr_celeba.txt", 1, "", "must be 60;"),
        ("list_attr_celeba.txt", 2, "Male Smiling", "must be 5_o_Clock_Shadow Arched_Eyebrows"),
        ("list_attr_celeba.txt", 5, "000003.jpg 1 -1", "40 of -1, 1"),
        ("list_attr_celeba.txt", 5, "000003.jpg" + " 0" * 40, "40 of -1, 1"),
        ("list_attr_celeba.txt", 5, "../etc/passwd" + " 1" * 40, "a new name such as 000001.jpg"),
        ("list_attr_celeba.txt", 5, "000001.jpg" + " 1" * 40, "a new name such as 000001.jpg"),
        ("list_eval_partition.txt", 3, "000003.jpg 3", "1 of 0, 1, 2"),
        ("list_eval_partition.txt", 3, "000003.jpg", "1 of 0, 1, 2"),
        ("list_eval_partition.txt", 3, "", "1 of 0, 1, 2"),
        ("list_eval_partition.txt", 3, "000003.jpg \x1b[31m" + "9" * 9999, "1 of 0, 1, 2"),
        ("list_eval_partition.txt", 3, "\xe9\u0663.jpg 1", "1 of 0, 1, 2"),
    ],
)
def test_a_line_that_no_list_has_is_named_with_what_is_allowed(
    file: str, line: int, text: str, said: str, tmp_path: Path, write_celeba: Writer
) -> None:
    write_celeba(tmp_path)
    lines = (tmp_path / file).read_text().splitlines()
    lines[line - 1] = text
    (tmp_path / file).write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=f"{file}, line {line}: ") as caught:
        read_celeba(tmp_path)
    assert said in str(caught.value) and len(str(caught.value)) < 500
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


def test_lists_that_do_not_belong_together_and_missing_ones_are_refused(tmp_path: Path, write_celeba: Writer) -> None:
    write_celeba(tmp_path)
    path = tmp_path / "list_eval_partition.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(
        DataError, match="000001.jpg.* is in one of list_attr_celeba.txt and list_eval_partition.txt only"
    ):
        read_celeba(tmp_path)
    for content, said in ((b"", "lists no image"), (None, "does not exist")):
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(DataError, match=said):
            read_celeba(tmp_path)


@pytest.mark.parametrize("zipped", [False, True])
def test_images_that_cannot_be_read_are_listed(zipped: bool, tmp_path: Path, write_celeba: Writer) -> None:
    write_celeba(tmp_path, n=20)
    (tmp_path / "img_align_celeba" / "000002.jpg").unlink()
    (tmp_path / "img_align_celeba" / "000007.jpg").write_bytes(b"no picture")
    if zipped:
        shutil.make_archive(str(tmp_path / "img_align_celeba"), "zip", tmp_path, "img_align_celeba")
        shutil.rmtree(tmp_path / "img_align_celeba")
    found = read_celeba(tmp_path)
    assert [one.name for one in found.skipped] == ["000002.jpg", "000007.jpg"] and len(found) == 18
    assert "there is no such file" in found.skipped[0].why and str(tmp_path) not in found.skipped[1].why
    with pytest.raises(DataError, match="2 skipped .*000007.jpg"):
        read_celeba(tmp_path, strict=True)
