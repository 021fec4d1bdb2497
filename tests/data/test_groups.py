"""Groups of a user's choice: intersections, merged groups, small groups; labels that nothing can learn; orientation."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from linfair.cli import main
from linfair.data import DataError, GroupedData, load_data
from linfair.data.core import Collection
from linfair.data.folder import read_folder
from linfair.data.packs import read_pack, write_pack
from linfair.data.values import intersect, regroup

Writer = Callable[..., np.ndarray]


@pytest.fixture
def folder(tmp_path: Path, write_image: Writer) -> Callable[[list[str], str], Path]:
    """Writes an image for each line (without its file) below a header."""

    def write(lines: list[str], header: str = "label,group") -> Path:
        for number in range(len(lines)):
            if not (tmp_path / f"{number}.png").exists():
                write_image(tmp_path / f"{number}.png", number, size=(8, 8))
        rows = [f"{number}.png,{line}" for number, line in enumerate(lines)]
        (tmp_path / "labels.csv").write_text("\n".join([f"file,{header}", *rows]), encoding="utf-8")
        return tmp_path

    return write


def images(data: GroupedData) -> dict[str, tuple[int, ...]]:
    """Images of each group in train, val and test."""
    counts = [np.bincount(split.a, minlength=len(data.group_names)).tolist() for split in data.splits.values()]
    return dict(zip(data.group_names, zip(*counts, strict=True), strict=True))


# --- thin groups, through to what is printed ---------------------------------------------------------------


def test_a_thin_group_of_a_folder_gets_its_share_and_describe_says_so(
    folder: Callable[..., Path], capsys: pytest.CaptureFixture
) -> None:
    """10 labels with 3 dark images each: 6 of 30 to test on, 2 of the 24 left to validate; bright as ever."""
    root = folder([f"{label},{light}" for label in range(10) for light in ["bright"] * 30 + ["dark"] * 3])
    data = load_data(f"folder:{root}", group="group")
    assert images(data) == {"bright": (220, 20, 60), "dark": (22, 2, 6)}
    assert data.provenance["drawn"] == {"test": ["dark"], "val": ["dark"]}
    assert main.main(["data", "describe", f"folder:{root}", "--group", "group"]) == 0
    printed = capsys.readouterr().out
    assert "drawn in proportion to group alone" in printed and "dark (test, val)" in printed


def test_a_thin_group_of_a_users_training_images_gets_its_share_of_validation(folder: Callable[..., Path]) -> None:
    cells = [("bright", 20), ("dark", 2)]
    lines = [f"{label},{light},train" for label in range(10) for light, n in cells for _ in range(n)]
    lines += [f"{label},{light},test" for label in range(10) for light, _ in cells]
    data = load_data(f"folder:{folder(lines, 'label,group,split')}", group="group")
    assert images(data) == {"bright": (180, 20, 10), "dark": (18, 2, 10)}


# --- groups that are too small -----------------------------------------------------------------------------


@pytest.mark.parametrize("few", [1, 2])
def test_a_group_of_one_or_two_images_is_refused_with_the_options_that_help(
    few: int, folder: Callable[..., Path]
) -> None:
    root = folder([f"{'xy'[i % 2]},{'far' if i < 30 else 'rare'}" for i in range(30 + few)])
    for seed in range(3):
        with pytest.raises(DataError) as caught:
            load_data(f"folder:{root}", group="group", seed=seed)
        text = str(caught.value)
        assert "group rare has no image in" in text and "no seed can help" in text
        assert f"to draw from: rare {few}; 3 are needed" in text
        assert "--merge 'rare+far'" in text and "--min-images 3" in text and "another seed" not in text


def test_copies_of_one_image_do_not_make_a_group_large_enough(folder: Callable[..., Path]) -> None:
    root = folder([f"{'xy'[i % 2]},{'far' if i < 30 else 'rare'}" for i in range(40)])
    for number in range(31, 40):
        (root / f"{number}.png").write_bytes((root / "30.png").read_bytes())
    with pytest.raises(DataError, match="no seed can help .different images to draw from: rare 1; 3 are needed"):
        load_data(f"folder:{root}", group="group")


def test_three_images_are_enough_for_any_seed(folder: Callable[..., Path]) -> None:
    root = folder([f"{'xyz'[i % 3]},{'far' if i < 30 else 'rare'}" for i in range(33)])
    for seed in range(10):
        assert images(load_data(f"folder:{root}", group="group", seed=seed))["rare"] == (1, 1, 1)


def test_a_group_that_the_users_split_forgets_is_refused(folder: Callable[..., Path]) -> None:
    lines = [f"{'xy'[i % 2]},{'far' if i < 30 else 'rare'},{'test' if i < 8 else 'train'}" for i in range(60)]
    with pytest.raises(DataError, match="rare has no image in test, and no seed can help .the column split"):
        load_data(f"folder:{folder(lines, 'label,group,split')}", group="group")


def test_a_group_that_is_in_the_test_only_is_refused(folder: Callable[..., Path]) -> None:
    lines = [f"{'xy'[i % 2]},{'far' if i < 30 else 'rare'},{'test' if i > 24 else 'train'}" for i in range(36)]
    with pytest.raises(
        DataError, match="rare has no image in train.*to draw from: rare 0; 2 are needed.*--min-images 7"
    ):
        load_data(f"folder:{folder(lines, 'label,group,split')}", group="group")


def test_identical_pictures_are_counted_and_so_are_those_that_disagree(
    folder: Callable[..., Path], capsys: pytest.CaptureFixture
) -> None:
    root = folder([f"{'xy'[i % 2]},{'far' if i % 3 else 'near'}" for i in range(60)])
    for number, copy in ((2, 1), (9, 3), (13, 1)):  # 2 is of another label than 1, 13 and 9 are as 1 and 3
        (root / f"{number}.png").write_bytes((root / f"{copy}.png").read_bytes())
    assert main.main(["data", "describe", f"folder:{root}", "--group", "group"]) == 0
    assert "images identical to another one: 3 (1 with another label or group)" in capsys.readouterr().out


def test_copies_that_disagree_are_counted_one_by_one_in_a_pack_too(folder: Callable[..., Path]) -> None:
    """Image 1 has four copies, two of another label; the site of all differs, which a pack knows though nobody asks."""
    root = folder([f"{'xy'[i % 2]},far,{i}" for i in range(60)], "label,group,site")
    for number in (3, 5, 8, 10):
        (root / f"{number}.png").write_bytes((root / "1.png").read_bytes())
    write_pack(read_folder(root, columns=None), root / "mine.npz")
    for place in (root, root / "mine.npz"):
        known = load_data(f"folder:{place}").provenance
        assert (known["copies"], known["copies_differ"]) == (4, 2)


def test_a_label_may_be_called_group(folder: Callable[..., Path], capsys: pytest.CaptureFixture) -> None:
    root = folder([f"{('group', 'single')[i % 2]},{'far' if i % 3 else 'near'}" for i in range(60)])
    assert main.main(["data", "describe", f"folder:{root}", "--group", "group"]) == 0
    (head,) = [line.split() for line in capsys.readouterr().out.splitlines() if "single" in line]
    assert head == ["group", "group", "single"]


def test_many_small_groups_are_named_in_a_line_of_bounded_length(folder: Callable[..., Path]) -> None:
    root = folder([f"{'xy'[i % 2]},{'far' if i < 30 else i}" for i in range(150)])
    with pytest.raises(DataError, match="groups 100, .*, 105, ... 114 more have no image") as caught:
        load_data(f"folder:{root}", group="group")
    assert len(str(caught.value)) < 500


def test_small_groups_are_left_out_by_number_of_images_and_named(
    folder: Callable[..., Path], capsys: pytest.CaptureFixture
) -> None:
    """The label z is only in the group that is left out, and goes with it."""
    lines = [f"{'xy'[i % 2]},far" for i in range(30)] + ["z,rare", "x,rare"] + ["x,few", "y,few", "y,few"]
    root = folder(lines)
    data = load_data(f"folder:{root}", group="group", min_images=4)
    assert data.group_names == ("far",) and data.label_names == ("x", "y")
    assert sum(images(data)["far"]) == 30
    assert data.provenance["left_out"] == [("few", 3), ("rare", 2)]
    assert load_data(f"folder:{root}", group="group", min_images=3).group_names == ("far", "few")
    assert main.main(["data", "describe", f"folder:{root}", "--group", "group", "--min-images", "4"]) == 0
    assert "groups left out for having too few images: 2, 5 images (few 3, rare 2)" in capsys.readouterr().out
    with pytest.raises(DataError, match="no group has 31 images .min_images.; the largest has 30"):
        load_data(f"folder:{root}", group="group", min_images=31)
    with pytest.raises(DataError, match="min_images must be at least 0, got -1"):
        load_data(f"folder:{root}", group="group", min_images=-1)


@pytest.mark.parametrize(
    ("typed", "right"),
    [
        (["few+rare"], {"far": 30, "few+rare": 5}),
        (["rare + few"], {"far": 30, "rare+few": 5}),
        (["far+few+rare"], {"far+few+rare": 35}),
    ],
)
def test_groups_are_merged_by_name(
    typed: list[str], right: dict[str, int], folder: Callable[..., Path], capsys: pytest.CaptureFixture
) -> None:
    lines = [f"{'xy'[i % 2]},far" for i in range(30)] + ["x,rare", "y,rare"] + ["x,few", "y,few", "y,few"]
    root = folder(lines)
    data = load_data(f"folder:{root}", group="group", merge=";".join(typed))
    assert {name: sum(counts) for name, counts in images(data).items()} == right
    words = [word for one in typed for word in ("--merge", one)]
    assert main.main(["data", "describe", f"folder:{root}", "--group", "group", *words]) == 0
    assert f"groups merged: {data.provenance['merged'][0]}" in capsys.readouterr().out


def test_names_with_a_plus_of_their_own_are_merged() -> None:
    a, names = np.array([0, 1, 2, 3]), ("0-17", "18-64", "65+", "C++")
    assert regroup(a, names, merge="18-64+65+").names == ("0-17", "18-64+65+", "C++")
    assert regroup(a, names, merge="65++18-64;C+++0-17").numbers.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("merge", "message"),
    [
        ("a+x", "names a group that is not there; write a.b with groups of a, b, c"),
        ("a", "names one group; write at least two"),
        ("a+b;b+c", "names a group twice"),
        ("a+b;c+a", "names a group twice"),
        ("b+a;c+a", "names a group twice"),
    ],
)
def test_merging_what_is_not_there_is_refused(merge: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        regroup(np.array([0, 1, 2]), ("a", "b", "c"), merge=merge)


# --- intersections -----------------------------------------------------------------------------------------


def test_an_intersection_numbers_the_combinations_in_the_columns_order() -> None:
    groups, names = intersect(["a", "b"], [np.array([0, 1, 1]), np.array([1, 0, 1])], [["x", "y"], ["u", "v"]])
    assert (groups.tolist(), names) == ([0, 1, 2], ("a=x, b=v", "a=y, b=u", "a=y, b=v"))


def test_two_columns_are_compared_as_the_combinations_that_occur(folder: Callable[..., Path]) -> None:
    cells = [("Rome", "dark", 20), ("Rome", "bright", 40), ("Oslo", "dark", 10)]
    lines = [f"{'xy'[i % 2]},{site},{light}" for site, light, n in cells for i in range(n)]
    root = folder(lines, "label,site,light")
    data = load_data(f"folder:{root}", group="light, site")
    assert {name: sum(counts) for name, counts in images(data).items()} == {
        "light=bright, site=Rome": 40,
        "light=dark, site=Oslo": 10,
        "light=dark, site=Rome": 20,
    }
    assert data.provenance["options"]["group"] == "light,site"
    merged = load_data(
        f"folder:{root}", group="light,site", merge="light=dark, site=Oslo+light=dark, site=Rome", seed=1
    )
    assert [sum(counts) for counts in images(merged).values()] == [40, 30]
    assert load_data(f"folder:{root}", group="light,light").group_names == ("bright", "dark")


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ("light,sight", "no column sight; there are label, site, light"),
        ("light,", "no column beside"),
    ],
)
def test_a_combination_with_an_unknown_column_is_refused(group: str, message: str, folder: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match=message):
        load_data(f"folder:{folder(['x,a,b', 'y,a,b'], 'label,site,light')}", group=group)


def test_faces_merge_leave_out_and_combine_as_folders_do(tmp_path: Path) -> None:
    n = 300
    fields = {
        "age": np.full(n, 30),
        "gender": np.arange(n) % 2,
        "race": np.where(np.arange(n) < 5, 4, np.arange(n) % 4),
    }
    pixels = np.random.default_rng(0).integers(0, 256, (n, 3, 32, 32), dtype=np.uint8)
    write_pack(Collection("utkface", pixels, fields, np.arange(n), None, "made", ""), tmp_path / "utkface.npz")
    options = {"root": tmp_path, "label": "gender"}
    assert load_data("utkface_race", **options, group="race", min_images=6).group_names == (
        "White",
        "Black",
        "Asian",
        "Indian",
    )
    merged = load_data("utkface_race", **options, group="race", merge="Indian+Others")
    assert sum(images(merged)["Indian+Others"]) == sum(fields["race"] >= 3)
    comma, joined = (
        load_data("utkface_race", **options, group=group, min_images=6) for group in ("race,gender", "racexgender")
    )
    assert comma.provenance["sha256"] == joined.provenance["sha256"] and "White, male" in comma.group_names
    once, more = (load_data("utkface_race", **options, upsampled="male" * (n > 1), times=n) for n in (1, 5))
    assert more.counts == [5 * once.counts[0], once.counts[1]] and more.group_names == ("male", "female")
    assert all(torch.equal(more.splits[name].x, once.splits[name].x) for name in ("val", "test"))
    for wrong in ({"upsampled": "mail", "times": 5}, {"times": 5}):
        with pytest.raises(DataError, match="upsampled names no group.*male"):
            load_data("utkface_race", **options, **wrong)


# --- labels without training images ------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["test", "val"])
def test_a_label_without_training_images_is_refused_with_its_counts(split: str, folder: Callable[..., Path]) -> None:
    lines = [f"{'xy'[i % 2]},{('train', 'train', 'val', 'test')[i // 2 % 4]}" for i in range(40)] + [f"z,{split}"] * 3
    with pytest.raises(DataError, match=f"label z has no image in train, but 3 in {split}"):
        load_data(f"folder:{folder(lines, 'label,split')}")


def test_a_label_without_test_images_is_named(folder: Callable[..., Path], capsys: pytest.CaptureFixture) -> None:
    """One image cannot be for training and for testing."""
    root = folder([f"{'xy'[i % 2]},{'far' if i % 3 else 'near'}" for i in range(60)] + ["z,far"])
    assert load_data(f"folder:{root}", group="group").provenance["untested"] == ["z"]
    assert main.main(["data", "describe", f"folder:{root}", "--group", "group"]) == 0
    assert "labels without a test image: z" in capsys.readouterr().out


# --- orientation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["jpg", "png", "webp", "tif"])
def test_an_image_on_its_side_is_turned_upright_and_counted(end: str, tmp_path: Path) -> None:
    """Oracle: the same picture, stored upright. Orientation 6: turn a quarter clockwise to see it upright."""
    upright = np.zeros((16, 16, 3), np.uint8)
    upright[:8] = 200  # light above, dark below
    exif = Image.Exif()
    exif[0x0112] = 6
    lossless = {} if end != "webp" else {"lossless": True}
    Image.fromarray(np.rot90(upright).copy()).save(tmp_path / f"side.{end}", exif=exif, **lossless)
    exif[0x0112] = 1
    Image.fromarray(upright).save(tmp_path / f"up.{end}", exif=exif, **lossless)
    (tmp_path / "labels.csv").write_text(f"file,label\nside.{end},a\nup.{end},b\n")
    read = read_folder(tmp_path, size=16)
    assert np.abs(read.images[0].astype(int) - read.images[1]).max() <= 8
    assert read.images[0, :, 2].min() > 150 and read.images[0, :, 13].max() < 50
    assert read.notes["rotated"] == 1


def test_damaged_orientation_data_do_not_make_an_image_unreadable(tmp_path: Path) -> None:
    picture = Image.fromarray(np.full((8, 8, 3), 90, np.uint8))
    picture.save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    (tmp_path / "labels.csv").write_text("file,label\na.jpg,a\n")
    read = read_folder(tmp_path)
    assert read.skipped == () and "rotated" not in read.notes


# --- packs keep all of it ----------------------------------------------------------------------------------


def test_a_pack_of_a_folder_keeps_its_splits_and_what_was_met(folder: Callable[..., Path], tmp_path: Path) -> None:
    lines = [f"{'xy'[i % 2]},{('train', 'train', 'val', 'test')[i // 2 % 4]}" for i in range(40)]
    root = folder(lines, "label,split")
    with (root / "labels.csv").open("a") as file:
        file.write("\n0.png,x,train\n1.png,x,train\ngone.png,x,train")
    source = read_folder(root)
    packed = read_pack(write_pack(source, tmp_path / "out" / "folder.npz"), "folder")
    assert sorted(set(packed.official.tolist())) == [0, 1, 2]
    assert packed.notes == source.notes == {"duplicates": [["0.png", "lines 2, 42"]]}
    assert [one.kind for one in packed.skipped] == [one.kind for one in source.skipped] == ["conflict", "unreadable"]
    one, two = load_data(f"folder:{root}"), load_data("folder", root=tmp_path / "out")
    assert one.provenance["sha256"] == two.provenance["sha256"]
    assert one.provenance["skipped_kinds"] == two.provenance["skipped_kinds"] == {"conflict": 1, "unreadable": 1}
