"""Values of a table: order, missing values, lookalikes, and files that are listed twice."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from linfair.data import DataError, GroupedData, load_data
from linfair.data.folder import read_folder
from linfair.data.values import in_order

Writer = Callable[..., np.ndarray]


@pytest.fixture
def folder(tmp_path: Path, write_image: Writer) -> Callable[[list[str]], Path]:
    """Writes a folder whose column `group` holds the values in turn, ten images each, with two labels."""

    def write(values: list[str], header: str = "file,label,group") -> Path:
        lines = [header]
        for number in range(10 * len(values)):
            if not (tmp_path / f"{number}.png").exists():
                write_image(tmp_path / f"{number}.png", number, size=(8, 8))
            lines.append(f'{number}.png,{"xy"[number // len(values) % 2]},"{values[number % len(values)]}"')
        (tmp_path / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
        return tmp_path

    return write


def images(data: GroupedData) -> dict[str, int]:
    """Images of each group in all splits."""
    a = np.concatenate([split.a.numpy() for split in data.splits.values()])
    return {name: int((a == number).sum()) for number, name in enumerate(data.group_names)}


# --- order -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "right"),
    [
        (["1.0", "10.0", "2.0"], ["1.0", "2.0", "10.0"]),
        (["10", "9", "-1", "0"], ["-1", "0", "9", "10"]),
        (["1e1", "9.5", "+3", ".5", "-2.5e-1"], ["-2.5e-1", ".5", "+3", "9.5", "1e1"]),
        (["1,0", "10,0", "2,0"], ["1,0", "2,0", "10,0"]),
        (["1,000", "900", "12,000.5"], ["900", "1,000", "12,000.5"]),
        (["007", "10", "08"], ["007", "08", "10"]),
        (["100%", "20%", "5 %"], ["5 %", "20%", "100%"]),
        (["12345678901234567891", "12345678901234567890"], ["12345678901234567890", "12345678901234567891"]),
        (["10", "9", "9+"], ["10", "9", "9+"]),
        (["10-19", "0-9", "100+"], ["0-9", "10-19", "100+"]),
        (["inf", "1", "2"], ["1", "2", "inf"]),
        (["1_000", "200"], ["1_000", "200"]),
    ],
)
def test_numbers_are_in_numeric_order_and_all_else_in_that_of_text(values: list[str], right: list[str]) -> None:
    assert list(in_order(values)) == right


def test_labels_and_groups_of_a_data_set_are_in_numeric_order(folder: Callable[..., Path]) -> None:
    data = load_data(f"folder:{folder(['1.0', '10.0', '2.0'])}", label="group", group="label")
    assert data.label_names == ("1.0", "2.0", "10.0")


# --- missing values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "missing",
    ["", "  ", "nan", "NaN", "NA", "na", "N/A", "n/a", "None", "none", "null", "NULL", "<NA>", "NaT", "?", "#N/A"]
    + ["#REF!", "-nan", "\u200bnan", "\ufeff", "\uff1f", "N\uff21", "\u00a0"],
)
def test_a_missing_group_is_left_out_counted_and_listed(missing: str, folder: Callable[..., Path]) -> None:
    data = load_data(f"folder:{folder(['far', 'near', missing])}", group="group")
    assert images(data) == {"far": 10, "near": 10}
    assert data.provenance["skipped_kinds"] == {"missing": 10}
    assert [name for name, _ in data.provenance["skipped"]] == [f"{number}.png" for number in range(2, 30, 3)]
    assert all("group" in why for _, why in data.provenance["skipped"])
    with pytest.raises(DataError, match="10 skipped"):
        read_folder(folder(["far", "near", missing]), columns=("label", "group"), strict=True)


@pytest.mark.parametrize("value", ["0", "unknown", "other", "no", "Nancy", "NAN-1", "-", "false"])
def test_a_value_that_only_resembles_a_missing_one_is_a_group(value: str, folder: Callable[..., Path]) -> None:
    assert images(load_data(f"folder:{folder(['far', 'near', value])}", group="group"))[value] == 10


def test_a_value_missing_in_either_column_is_missing_in_the_intersection(folder: Callable[..., Path]) -> None:
    root = folder(["far,in", "near,out", "nan,in", "far,None"])
    text = (root / "labels.csv").read_text().replace('"', "").replace("label,group", "label,place,side")
    (root / "labels.csv").write_text(text)
    data = load_data(f"folder:{root}", group="place,side")
    assert images(data) == {"place=far, side=in": 10, "place=near, side=out": 10}
    assert data.provenance["skipped_kinds"] == {"missing": 20}


# --- lookalikes --------------------------------------------------------------------------------------------


def test_accents_composed_and_apart_are_one_group(folder: Callable[..., Path]) -> None:
    data = load_data("folder", root=folder(["Malm\u00f6", "Malmo\u0308", "Rome"]), group="group")
    assert images(data) == {"Malm\u00f6": 20, "Rome": 10}
    assert "lookalikes" not in data.provenance


@pytest.mark.parametrize(
    ("one", "two", "named"),
    [
        ("dark", "Dark", ("Dark", "dark")),
        ("dark skin", "dark  skin", ("dark  skin", "dark skin")),
        ("dark skin", "dark_skin", ("dark skin", "dark_skin")),
        ("dark skin", "dark\u00a0skin", ("dark skin", "dark\\xa0skin")),
        ("dark", "dar\u200bk", ("dark", "dar\\u200bk")),
        ("dark", "dark\u200e", ("dark", "dark\\u200e")),
        ("dark", "d\u0430rk", ("dark", "d\\u0430rk")),
        ("\u0391sia", "Asia", ("Asia", "\\u0391sia")),
        ("dark", "\uff44ark", ("dark", "\\uff44ark")),
        ("office", "o\ufb03ce", ("office", "o\\ufb03ce")),
        ("18-64", "18\u201364", ("18-64", "18\\u201364")),
        ("1", "1.0", ("1", "1.0")),
        ("01", "1", ("01", "1")),
    ],
)
def test_values_that_look_alike_stay_apart_are_named_and_printed_differently(
    one: str, two: str, named: tuple[str, str], folder: Callable[..., Path]
) -> None:
    data = load_data(f"folder:{folder([one, two, '3'])}", group="group")
    assert sorted(images(data).values()) == [10, 10, 10]
    (text,) = data.provenance["lookalikes"]
    assert "column group" in text and f"'{named[0]}'" in text and f"'{named[1]}'" in text
    assert set(named) < set(data.group_names)


def test_different_values_are_no_lookalikes(folder: Callable[..., Path]) -> None:
    values = ["Malmo", "Malm\u00f6", "Male", "Female", "l", "1", "O", "0"]
    data = load_data("folder", root=folder(values), group="group")
    assert len(data.group_names) == 8 and "lookalikes" not in data.provenance


# --- a file listed twice -----------------------------------------------------------------------------------


@pytest.mark.parametrize("again", ["0.png", "./0.png", ".//0.png", ".\\0.png", "0.PNG"])
def test_a_file_listed_twice_counts_once_and_is_reported(again: str, folder: Callable[..., Path]) -> None:
    root = folder(["far", "near"])
    with (root / "labels.csv").open("a") as file:
        file.write(f"\n{again},x,far\n{again},x,far")
    data = load_data(f"folder:{root}", group="group")
    assert images(data) == {"far": 10, "near": 10}
    assert data.provenance["duplicates"] == [["0.png", "lines 2, 22, 23"]]
    assert data.provenance["skipped"] == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0.png,y,far", "label 'x' or 'y'"),
        ("./0.png,x,near", "group 'far' or 'near'"),
        ("0.PNG,y,near", "label 'x' or 'y'; group 'far' or 'near'"),
    ],
)
def test_a_file_with_conflicting_lines_is_left_out_unless_told_otherwise(
    line: str, said: str, folder: Callable[..., Path]
) -> None:
    root = folder(["far", "near"])
    with (root / "labels.csv").open("a") as file:
        file.write(f"\n{line}")
    data = load_data(f"folder:{root}", group="group")
    assert images(data) == {"far": 9, "near": 10}
    assert data.provenance["skipped"] == [("0.png", f"lines 2, 22 disagree: {said}")]
    assert data.provenance["skipped_kinds"] == {"conflict": 1}
    first, last = (load_data(f"folder:{root}", group="group", conflicts=one) for one in ("first", "last"))
    assert images(first) == {"far": 10, "near": 10} and first.provenance["skipped"] == []
    assert images(last) == ({"far": 9, "near": 11} if "near" in line else {"far": 10, "near": 10})
    assert first.provenance["duplicates"] == [["0.png", f"lines 2, 22 disagree: {said}; the first counts"]]
    with pytest.raises(DataError, match="1 skipped .0.png: lines 2, 22 disagree"):
        read_folder(root, columns=("label", "group"), strict=True)
    with pytest.raises(DataError, match="conflicts must be one of leave-out, first, last, got 'keep'"):
        load_data(f"folder:{root}", group="group", conflicts="keep")


def test_a_file_listed_for_training_and_for_testing_is_a_conflict(folder: Callable[..., Path]) -> None:
    root = folder(["train", "test"], "file,label,split")
    with (root / "labels.csv").open("a") as file:
        file.write("\n0.png,x,test")
    assert load_data(f"folder:{root}").provenance["skipped"] == [
        ("0.png", "lines 2, 22 disagree: split 'train' or 'test'")
    ]


def test_columns_that_are_not_asked_for_do_not_conflict(folder: Callable[..., Path]) -> None:
    root = folder(["far", "near"])
    with (root / "labels.csv").open("a") as file:
        file.write("\n0.png,x,near")
    assert load_data(f"folder:{root}").provenance["skipped"] == []


def test_two_files_whose_names_differ_in_case_only_are_two_files(folder: Callable[..., Path]) -> None:
    root = folder(["far", "near"])
    (root / "0.PNG").write_bytes((root / "1.png").read_bytes())
    if len(list(root.glob("0.*"))) < 2:
        pytest.skip("this file system does not tell upper from lower case")
    with (root / "labels.csv").open("a") as file:
        file.write("\n0.PNG,y,near")
    data = load_data(f"folder:{root}", group="group")
    assert images(data) == {"far": 10, "near": 11} and "duplicates" not in data.provenance
