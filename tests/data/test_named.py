"""The paper's data sets built from small generated sources: fractions, groups, splits, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from linfair.data import DataError, GroupedData, Split, load_data
from linfair.data.core import Collection
from linfair.data.named import grouped
from linfair.data.values import Groups

Writer = Callable[..., tuple[np.ndarray, np.ndarray]]


def keys(split: Split) -> list[bytes]:
    return [x.numpy().tobytes() for x in split.x]


def table(data: GroupedData) -> dict[str, list[int]]:
    return {
        name: torch.bincount(split.a, minlength=len(data.group_names)).tolist() for name, split in data.splits.items()
    }


@pytest.fixture
def faces(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Collection]:
    """Puts 600 random faces, with copies that carry conflicting labels, in the place of UTKFace's files."""

    def give(n: int = 600, **changes: np.ndarray) -> Collection:
        rng = np.random.default_rng(0)
        same = np.where(rng.random(n) < 0.1, rng.integers(0, n, n), np.arange(n))
        images = rng.integers(0, 256, (n, 3, 8, 8), dtype=np.uint8)[same]
        fields = {"age": rng.integers(0, 117, n), "gender": rng.integers(0, 2, n), "race": np.arange(n) % 5}
        made = Collection("utkface", images, fields | changes, same, None, "made here", "0" * 64)
        monkeypatch.setattr("linfair.data.named.read", lambda name, root=None: made)
        return made

    return give


def assert_no_copy_straddles(data: GroupedData) -> None:
    seen = [set(keys(split)) for name, split in data.splits.items() if name != "test_balanced"]
    assert all(not one & two for i, one in enumerate(seen) for two in seen[:i])


def test_cifar10_keeps_the_papers_fractions_and_a_balanced_test(tmp_path: Path, write_batches: Writer) -> None:
    """200 images a class in training, 40 in test: 180 and 20, a tenth to validate; 36 and 4."""
    write_batches(tmp_path, each=400)
    data = load_data("cifar10", root=tmp_path, seed=5)
    assert table(data) == {
        "train": [162] * 5 + [18] * 5,
        "val": [18] * 5 + [2] * 5,
        "test": [36] * 5 + [4] * 5,
        "test_balanced": [40] * 10,
    }
    assert data.roles == ["majority"] * 5 + ["minority"] * 5
    assert_no_copy_straddles(data)
    assert set(keys(data.splits["test"])) <= set(keys(data.splits["test_balanced"]))
    pixels = data.splits["train"].x.double() / 255
    assert data.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=1e-5)
    assert data.std == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist(), abs=1e-5)
    even = load_data("cifar10", root=tmp_path, fractions=(0.5,) * 10)
    assert table(even)["train"] == [90] * 10


def test_svhn_keeps_its_split(tmp_path: Path, write_mats: Writer) -> None:
    images, digits = write_mats(tmp_path, train=200, test=50)
    data = load_data("svhn", root=tmp_path)
    assert table(data) == {"train": [18] * 10, "val": [2] * 10, "test": [5] * 10}
    assert sorted(keys(data.splits["test"])) == sorted(image.tobytes() for image in images[200:])
    lookup = {image.tobytes(): digit for image, digit in zip(images, digits, strict=True)}
    for split in data.splits.values():
        assert [lookup[key] for key in keys(split)] == split.y.tolist() == split.a.tolist()


@pytest.mark.parametrize("seed", range(3))
def test_labels_and_groups_are_independent_and_copies_stay_together(
    seed: int, faces: Callable[..., Collection]
) -> None:
    fields = faces().fields
    data = load_data("utkface_age", seed=seed, group="racexgender")
    assert data.label_names == ("2-12", "13-17", "18-64", "65+")
    assert data.group_names[:3] == ("White, male", "White, female", "Black, male")
    assert len(data.group_names) == 10
    assert_no_copy_straddles(data)
    age, race, gender = fields["age"], fields["race"], fields["gender"]
    label = np.select([age < 2, age < 13, age < 18, age < 65], [-1, 0, 1, 2], 3)
    joint = np.bincount(label[label >= 0] * 10 + (race * 2 + gender)[label >= 0], minlength=40)
    ours = sum(torch.bincount(split.y * 10 + split.a, minlength=40) for split in data.splits.values())
    assert ours.tolist() == joint.tolist()


def test_by_default_the_group_is_the_label_as_in_the_paper(faces: Callable[..., Collection]) -> None:
    faces()
    data = load_data("utkface_race")
    assert data.group_names == data.label_names == ("White", "Black", "Asian", "Indian", "Others")
    assert all(torch.equal(split.y, split.a) for split in data.splits.values())
    sizes = {name: len(split) for name, split in data.splits.items()}
    assert sum(sizes.values()) == 600
    assert abs(sizes["test"] - 120) < 25
    assert abs(sizes["val"] - 48) < 25


def test_a_missing_race_leaves_an_image_out_of_race_but_not_of_age(faces: Callable[..., Collection]) -> None:
    race = np.arange(600) % 5
    race[:7] = -1
    faces(race=race, age=np.arange(600) % 100 + 2)
    assert sum(len(split) for split in load_data("utkface_age").splits.values()) == 600
    assert sum(len(split) for split in load_data("utkface_race").splits.values()) == 593


def test_the_released_codes_five_age_groups_keep_the_babies(faces: Callable[..., Collection]) -> None:
    faces(age=np.arange(600) % 100)
    data = load_data("utkface_age", label="age5")
    assert data.label_names[0] == "0-1"
    totals = np.sum([split for split in table(data).values()], axis=0)
    assert totals.tolist() == [12, 66, 30, 282, 210]


def test_nine_age_bins_are_a_label_and_a_group_of_another(faces: Callable[..., Collection]) -> None:
    """By hand: 600 ages 0 to 99, six of each; the bins have 11, 5, 5, 5, 5, 10, 10, 10 and 39 years."""
    faces(age=np.arange(600) % 100, race=np.arange(600) % 5)
    years = [11, 5, 5, 5, 5, 10, 10, 10, 39]
    data = load_data("utkface_age", label="age9")
    assert np.sum(list(table(data).values()), axis=0).tolist() == [6 * n for n in years]
    both = load_data("utkface_race", group="age9")
    assert (len(both.label_names), both.group_names) == (5, data.label_names)


def test_an_empty_group_and_one_missing_from_validation_are_refused(faces: Callable[..., Collection]) -> None:
    race = np.arange(600) % 4
    faces(race=race)
    with pytest.raises(DataError, match="group Others has no image in train"):
        load_data("utkface_race")
    faces(race=np.where(np.arange(600) < 1, 4, race))
    with pytest.raises(DataError, match="group Others has no image in val, and no seed can help .*--min-images 3"):
        load_data("utkface_race")


def test_one_class_only_is_refused(tmp_path: Path, write_image: Callable) -> None:
    for i in range(12):
        write_image(tmp_path / f"{i}.png", i)
    (tmp_path / "labels.csv").write_text("file,label\n" + "".join(f"{i}.png,dog\n" for i in range(12)))
    with pytest.raises(DataError, match="one class only"):
        load_data(f"folder:{tmp_path}")


def test_unknown_fields_and_fractions_are_refused(tmp_path: Path, write_batches: Writer, faces: Callable) -> None:
    write_batches(tmp_path)
    with pytest.raises(DataError, match="needs 10 fractions, one for each class, got 2"):
        load_data("cifar10", root=tmp_path, fractions=(0.9, 0.1))
    faces()
    with pytest.raises(DataError, match="'height' .*racexgender.*; there are race, gender, age, age5, age9"):
        load_data("utkface_age", group="height")


@pytest.mark.parametrize("official", [False, True])
def test_a_folder_is_split_with_label_and_group_apart(official: bool, tmp_path: Path, write_image: Callable) -> None:
    lines = ["file,kind,place" + ",split" * official]
    for i in range(60):
        write_image(tmp_path / f"{i}.png", i, size=(20, 20))
        row = f"{i}.png,{'cat' if i % 2 else 'dog'},{'Rome' if i % 3 else 'Oslo'}"
        lines.append(row + (f",{'test' if i < 12 else 'train'}" if official else ""))
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    data = load_data(f"folder:{tmp_path}", label="kind", group="place", size=16)
    assert (data.label_names, data.group_names, data.input_shape) == (("cat", "dog"), ("Oslo", "Rome"), (3, 16, 16))
    assert_no_copy_straddles(data)
    assert len(data.splits["test"]) == 12
    assert sum(len(split) for split in data.splits.values()) == 60
    joint = sum(torch.bincount(split.y * 2 + split.a, minlength=4) for split in data.splits.values())
    assert joint.tolist() == [10, 20, 10, 20]


def test_the_seed_decides_everything(faces: Callable[..., Collection]) -> None:
    faces()
    one, again, other = (load_data("utkface_race", seed=seed) for seed in (1, 1, 2))
    assert one.provenance["sha256"] == again.provenance["sha256"] != other.provenance["sha256"]
    assert one.provenance["source"] == "made here"
    assert one.provenance["source_sha256"] == "0" * 64


def test_mean_and_deviation_are_right_in_whatever_order_pixels_lie() -> None:
    """Oracle: values 254 and 255 equally often; added one by one in float32, 8 million of them would be 1 each."""
    images = np.full((8, 1024, 1024, 3), 255, np.uint8)
    images[:, ::2] = 254
    read = Collection("folder", images.transpose(0, 3, 1, 2), {}, np.arange(8), None, "made", "0" * 64)
    labels, every = (np.arange(8) % 2, ("x", "y")), np.ones(8, bool)
    data = grouped("folder", read, labels, 0, {}, groups=Groups(*labels), parts={"train": every, "test": every})
    assert data.mean == pytest.approx([254.5 / 255] * 3, rel=1e-5)
    assert data.std == pytest.approx([0.5 / 255] * 3, rel=1e-2)
