"""The paper's real data, where a folder in LINFAIR_DATA has the packs: counts as published, copies kept together."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from linfair.data import DataError, GroupedData, load_data
from linfair.data.sources import checksum_state, find, read

PACKS = {"cifar10": "cifar10.npz", "svhn": "svhn10k.npz", "utkface": "utkface32.npz"}


@pytest.fixture
def real_data() -> Path:
    """The folder in LINFAIR_DATA; named in a test's arguments, it keeps that variable visible."""
    return Path(os.environ["LINFAIR_DATA"])


def needs(name: str) -> pytest.MarkDecorator:
    there = (Path(os.environ.get("LINFAIR_DATA") or os.devnull) / PACKS[name]).is_file()
    return pytest.mark.skipif(not there, reason=f"set LINFAIR_DATA to a folder with {PACKS[name]}")


def total(data: GroupedData) -> list[int]:
    return np.sum(
        [torch.bincount(split.a, minlength=len(data.group_names)) for split in data.splits.values()], 0
    ).tolist()


def digests(data: GroupedData, name: str) -> set[bytes]:
    return {x.numpy().tobytes() for x in data.splits[name].x}


@needs("utkface")
def test_utkface_has_the_published_counts(real_data: Path) -> None:
    """Oracle: the known counts of race and gender; the paper's of age without the three malformed names."""
    assert checksum_state(find("utkface")) == "checksum ok"
    source = read("utkface")
    assert len(source) == 23_705
    assert len(set(source.same.tolist())) == 23_315
    assert source.official is None
    assert total(load_data("utkface_race")) == [10_078, 4_526, 3_434, 3_975, 1_692]
    assert total(load_data("utkface_gender")) == [12_391, 11_314]
    age = total(load_data("utkface_age"))
    assert age == [2_290, 820, 17_514, 1_958]
    assert sum(age) == 22_582


@needs("utkface")
@pytest.mark.parametrize("seed", [0, 1])
def test_no_identical_faces_straddle_the_splits(seed: int, real_data: Path) -> None:
    """Compared by pixels at 32x32; some pairs differ only at full size, and may be apart: those are counted out."""
    source = read("utkface")
    by_pixels: dict[bytes, set[int]] = {}
    for image, number in zip(source.images, source.same, strict=True):
        by_pixels.setdefault(image.tobytes(), set()).add(int(number))
    data = load_data("utkface_age", seed=seed, group="race")
    seen = [digests(data, name) for name in ("train", "val", "test")]
    shared = [key for i, one in enumerate(seen) for two in seen[:i] for key in one & two]
    assert all(len(by_pixels[key]) > 1 for key in shared)
    assert len(shared) < 5


@needs("cifar10")
def test_cifar10_has_the_papers_counts(real_data: Path) -> None:
    """22,500 + 2,500 images before validation, 4,500 + 500 to test, 10,000 balanced."""
    assert checksum_state(find("cifar10")) == "checksum ok"
    data = load_data("cifar10", seed=3)
    counts = {name: torch.bincount(split.a).tolist() for name, split in data.splits.items()}
    assert np.add(counts["train"], counts["val"]).tolist() == [4_500] * 5 + [500] * 5
    assert counts["val"] == [450] * 5 + [50] * 5
    assert counts["test"] == [900] * 5 + [100] * 5
    assert counts["test_balanced"] == [1_000] * 10
    train, val, test = (digests(data, name) for name in ("train", "val", "test_balanced"))
    assert not (train & val or train & test or val & test)
    assert data.mean == pytest.approx((0.49, 0.48, 0.45), abs=0.02)


@needs("svhn")
def test_svhn_is_said_to_be_a_subset_and_has_its_packs_counts(real_data: Path) -> None:
    """Oracle: the table in the packs' README."""
    data = load_data("svhn")
    assert data.provenance["source"].startswith("SVHN subset, 10,288 of 99,289 images")
    counts = {name: torch.bincount(split.a).tolist() for name, split in data.splits.items()}
    assert np.add(counts["train"], counts["val"]).tolist() == [560, 1608, 1332, 947, 809, 752, 623, 618, 537, 501]
    assert counts["test"] == [137, 417, 299, 201, 189, 184, 168, 166, 104, 136]


@needs("svhn")
def test_no_photograph_straddles_svhns_splits(real_data: Path) -> None:
    source = read("svhn")
    photograph = {image.tobytes(): number for image, number in zip(source.images, source.same.tolist(), strict=True)}
    data = load_data("svhn", seed=1)
    seen = [{photograph[x.numpy().tobytes()] for x in split.x} for split in data.splits.values()]
    assert all(not one & two for i, one in enumerate(seen) for two in seen[:i])


@needs("utkface")
@pytest.mark.parametrize("kept", [0.5, 0.999])
def test_a_truncated_copy_says_what_is_missing(kept: float, real_data: Path, tmp_path: Path) -> None:
    content = (real_data / PACKS["utkface"]).read_bytes()
    (tmp_path / PACKS["utkface"]).write_bytes(content[: int(kept * len(content))])
    with pytest.raises(DataError, match=r"cut short, expected 39,773,379 bytes, found \d+,\d+,\d+ bytes.*copy it"):
        load_data("utkface_race", root=tmp_path)
