"""SVHN's official files: generated ones read right, damaged ones refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from linfair.data.collection import DataError
from linfair.data.svhn import read_svhn

Writer = Callable[..., tuple[np.ndarray, np.ndarray]]


def test_files_are_read_with_ten_as_digit_zero(tmp_path: Path, write_mats: Writer) -> None:
    """Oracle: the arrays the files were written from."""
    images, digits = write_mats(tmp_path, train=23, test=11)
    read = read_svhn(tmp_path)
    np.testing.assert_array_equal(read.images, images, strict=True)
    np.testing.assert_array_equal(read.fields["label"], digits, strict=True)
    assert read.official.tolist() == [0] * 23 + [1] * 11
    assert read.origin == "official files, 34 of 99,289 images"
    assert not read.images.flags.writeable


@pytest.mark.parametrize("share", [0.0, 0.05, 0.6, 0.999])
def test_a_truncated_file_is_named(share: float, tmp_path: Path, write_mats: Writer) -> None:
    write_mats(tmp_path)
    path = tmp_path / "train_32x32.mat"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match="train_32x32.mat: .*copy the file again") as caught:
        read_svhn(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path, write_mats: Writer) -> None:
    write_mats(tmp_path)
    (tmp_path / "test_32x32.mat").unlink()
    with pytest.raises(DataError, match="test_32x32.mat missing; run `linfair data fetch svhn`"):
        read_svhn(tmp_path)


X, Y = np.zeros((32, 32, 3, 4), np.uint8), np.array([[1], [2], [3], [10]], np.uint8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": X}, "y missing"),
        ({"y": Y}, "X missing"),
        ({"X": X.astype(float), "y": Y}, "X must be uint8 .* got float64"),
        ({"X": X.transpose(3, 0, 1, 2), "y": Y}, r"got uint8 of shape \(4, 32, 32, 3\)"),
        ({"X": X, "y": Y[:3]}, r"4 images need y of shape \(4, 1\), got \(3, 1\)"),
        ({"X": X, "y": Y - 1}, r"y holds digits 1\.\.10 .10 is digit 0., found 0\.\.9"),
        ({"X": X, "y": Y + 1}, r"found 2\.\.11"),
    ],
)
def test_content_that_is_not_svhn_is_refused(
    arrays: dict[str, np.ndarray], message: str, tmp_path: Path, write_mats: Writer
) -> None:
    write_mats(tmp_path)
    savemat(tmp_path / "test_32x32.mat", arrays)
    with pytest.raises(DataError, match=f"test_32x32.mat: .*{message}"):
        read_svhn(tmp_path)
