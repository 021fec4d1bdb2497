"""Packs: what is written is read back bit for bit; every kind of damage is one clear line."""

import hashlib
import io
import os
import subprocess
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from linfair.data import packs
from linfair.data.core import Collection, DataError, Skipped
from linfair.data.packs import checksum_state, read_fields, read_pack, write_pack


def collection(n: int = 12, *, size: int = 32, name: str = "cifar10", seed: int = 0, **changes: object) -> Collection:
    rng = np.random.default_rng(seed)
    given = dict(
        name=name,
        images=rng.integers(0, 256, (n, 3, size, size), dtype=np.uint8),
        fields={"label": np.arange(n) % 10},
        same=np.arange(n),
        official=np.arange(n) % 2,
        origin="made here",
        sha256="",
    )
    return Collection(**(given | changes))


def assert_equal(one: Collection, two: Collection) -> None:
    """Every attribute but the checksum, which is that of the file; types and shapes too."""
    np.testing.assert_array_equal(one.images, two.images, strict=True)
    np.testing.assert_array_equal(one.same, two.same, strict=True)
    assert (one.official is None) == (two.official is None)
    if one.official is not None:
        np.testing.assert_array_equal(one.official, two.official, strict=True)
    assert one.fields.keys() == two.fields.keys()
    for key, values in one.fields.items():
        np.testing.assert_array_equal(values, two.fields[key], strict=True)
    assert (one.name, one.names, one.skipped, one.origin) == (two.name, two.names, two.skipped, two.origin)


@given(
    n=st.integers(1, 6),
    size=st.integers(1, 40),
    seed=st.integers(0, 99),
    official=st.booleans(),
    values=st.lists(st.integers(-(2**62), 2**62), min_size=6, max_size=6),
    key=st.sampled_from(["label", "group", "split", "blob", "field_x", "names_x", "origin", "skipped", "age"]),
)
def test_reading_what_was_written_gives_it_back_bit_for_bit(
    n: int, size: int, seed: int, official: bool, values: list[int], key: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = collection(
        n,
        size=size,
        name="mine",
        seed=seed,
        fields={key: np.arange(n), "other": np.array(values[:n])},
        same=np.arange(n)[::-1] // 2,
        official=np.arange(n) % 2 if official else None,
        names={key: tuple(f"ein Wört {i}" for i in range(n))},
        skipped=(Skipped("a.png", "empty"), Skipped("bb.png", "no image at all")) if official else (),
    )
    path = write_pack(made, tmp_path_factory.mktemp("pack") / "mine.npz")
    again = read_pack(path, "mine")
    assert_equal(again, made)
    assert again.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert not again.images.flags.writeable


def test_a_pack_is_what_the_format_says_read_with_numpy_and_pillow_alone(tmp_path: Path) -> None:
    made = collection(name="utkface", fields={k: np.arange(12) % 2 for k in ("age", "gender", "race")}, official=None)
    write_pack(made, tmp_path / "utkface.npz")
    with np.load(tmp_path / "utkface.npz") as pack:
        blob, ends = pack["blob"], pack["offsets"]
        assert (blob.dtype, ends.dtype, len(ends)) == (np.uint8, np.int64, 13)
        for i in range(12):
            file = Image.open(io.BytesIO(blob[ends[i] : ends[i + 1]].tobytes()))
            assert (file.format, file.mode, file.size) == ("WEBP", "RGB", (32, 32))
            np.testing.assert_array_equal(np.asarray(file).transpose(2, 0, 1), made.images[i])
        assert "split" not in pack.files
        assert pack["race"].dtype == np.uint8


def test_one_collection_gives_one_file_and_sha256sum_agrees_with_its_checksum(tmp_path: Path) -> None:
    one, two = (write_pack(collection(), tmp_path / name / "cifar10.npz") for name in "ab")
    assert one.read_bytes() == two.read_bytes()
    checked = subprocess.run(["sha256sum", "-c", "cifar10.npz.sha256"], cwd=tmp_path / "a", capture_output=True)
    assert checked.returncode == 0
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["cifar10.npz", "cifar10.npz.sha256"]
    assert checksum_state(one) == "checksum ok"


def test_fields_are_read_without_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_pack(collection(), tmp_path / "cifar10.npz")
    monkeypatch.setattr(packs, "_decode", lambda *_: pytest.fail("decoded an image"))
    fields = read_fields(path, "cifar10")
    assert sorted(fields) == ["group", "label", "split"]
    np.testing.assert_array_equal(fields["label"], np.arange(12) % 10)


def test_a_write_that_fails_leaves_the_old_pack_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_pack(collection(), tmp_path / "cifar10.npz")
    before = path.read_bytes()

    def full(file: io.BufferedWriter, **_: object) -> None:
        file.write(b"PK\x03\x04 half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(DataError, match=r"cifar10\.npz cannot be written \(No space left on device\)"):
        write_pack(collection(seed=1), path)
    assert path.read_bytes() == before
    assert checksum_state(path) == "checksum ok"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("kept", [0, 3, 40, 5_000, 0.5, 0.9, -200, -1])
def test_a_truncated_copy_is_one_line_that_says_what_is_missing_and_what_to_do(kept: float, tmp_path: Path) -> None:
    path = write_pack(collection(), tmp_path / "cifar10.npz")
    content = path.read_bytes()
    size = kept if isinstance(kept, int) else int(kept * len(content))
    path.write_bytes(content[:size])
    with pytest.raises(DataError) as caught:
        read_pack(path, "cifar10")
    text = str(caught.value)
    assert "\n" not in text
    assert "copy it again" in text
    assert "linfair data pack cifar10" in text
    expected = {0: "the file is empty", 3: "not a pack"}.get(size, f"cut short, found {size % len(content):,} bytes")
    assert expected in text


def test_a_known_pack_cut_short_says_the_bytes_it_should_have(tmp_path: Path) -> None:
    """Oracle: the size in the table of the packs' README."""
    path = write_pack(collection(), tmp_path / "utkface32.npz")
    (tmp_path / "utkface32.npz.sha256").unlink()
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(DataError, match=r"expected 39,773,379 bytes, found 20,000 bytes"):
        read_pack(path, "utkface")


def test_a_changed_byte_is_a_wrong_checksum(tmp_path: Path) -> None:
    path = write_pack(collection(), tmp_path / "cifar10.npz")
    content = bytearray(path.read_bytes())
    content[5_000] ^= 1
    path.write_bytes(content)
    assert checksum_state(path).startswith("checksum differs: expected SHA-256 ")
    with pytest.raises(DataError, match="checksum differs.*`linfair data pack cifar10` .which rewrites"):
        read_pack(path, "cifar10")
    (tmp_path / "cifar10.npz.sha256").unlink()
    assert checksum_state(path).startswith("checksum differs"), "a known name is checked against the known checksum"
    path.rename(tmp_path / "mine.npz")
    assert checksum_state(tmp_path / "mine.npz") == "no checksum known"
    with pytest.raises(DataError, match="damaged or not a pack .*CRC.*copy it again"):
        read_pack(tmp_path / "mine.npz", "mine")


def test_a_checksum_file_without_a_checksum_says_how_to_write_one(tmp_path: Path) -> None:
    path = write_pack(collection(), tmp_path / "cifar10.npz")
    sidecar = tmp_path / "cifar10.npz.sha256"
    for junk in (b"none\n", b"", bytes(4000), b"\xff" * 64, b"g" * 64, b"0" * 63, b"0" * 65):
        sidecar.write_bytes(junk)
        with pytest.raises(DataError, match="holds no SHA-256; remove it"):
            checksum_state(path)
    sidecar.write_bytes(b"0" * 5000)
    with pytest.raises(DataError, match="5,000 bytes, and at most 4,096 are read; remove it"):
        checksum_state(path)
    sidecar.unlink()
    os.mkfifo(sidecar)
    with pytest.raises(DataError, match="is a pipe, not a file; remove it"):
        checksum_state(path)
    sidecar.unlink()
    sidecar.symlink_to("nowhere")
    with pytest.raises(DataError, match="does not exist; remove it"):
        checksum_state(path)


def test_no_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cifar10.npz does not exist"):
        read_pack(tmp_path / "cifar10.npz", "cifar10")
    os.mkfifo(tmp_path / "cifar10.npz")
    with pytest.raises(DataError, match="cifar10.npz is a pipe"):
        read_pack(tmp_path / "cifar10.npz", "cifar10")


def change(key: str, value: Callable[[np.ndarray], object] | None) -> Callable[[dict], None]:
    def apply(arrays: dict[str, np.ndarray]) -> None:
        if value is None:
            del arrays[key]
        else:
            arrays[key] = value(arrays.get(key))

    return apply


def swap(offsets: np.ndarray) -> np.ndarray:
    offsets = offsets.copy()
    offsets[[3, 4]] = offsets[[4, 3]]
    return offsets


def lossy(arrays: dict[str, np.ndarray], **how: object) -> None:
    """Put another image in the place of image 2."""
    buffer = io.BytesIO()
    size, mode = how.pop("size", 32), how.pop("mode", "RGB")
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, len(mode)), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, **({"format": "WEBP", "lossless": True} | how))
    blob, ends = arrays["blob"], arrays["offsets"]
    new = np.frombuffer(buffer.getvalue(), np.uint8)
    arrays["blob"] = np.concatenate([blob[: ends[2]], new, blob[ends[3] :]])
    arrays["offsets"] = ends + np.where(np.arange(len(ends)) > 2, len(new) - (ends[3] - ends[2]), 0)


def test_damage_anywhere_is_one_line_and_never_another_error(tmp_path: Path) -> None:
    """Bytes of the headers and the directory overwritten, one at a time; what reads all the same is the same."""
    made = collection(3)
    write_pack(made, tmp_path / "good.npz")
    content = (tmp_path / "good.npz").read_bytes()
    rng = np.random.default_rng(0)
    places = [*range(0, 200, 2), *range(len(content) - 700, len(content), 7)]
    refused = 0
    for place in places:
        damaged = bytearray(content)
        damaged[place] = (damaged[place] + int(rng.integers(1, 256))) % 256
        (tmp_path / "bad.npz").write_bytes(damaged)
        try:
            np.testing.assert_array_equal(read_pack(tmp_path / "bad.npz", "cifar10").images, made.images)
        except DataError as error:
            assert len(str(error).splitlines()) == 1
            refused += 1
    assert refused > len(places) / 4


DAMAGE = {
    "no offsets": (
        change("offsets", None),
        "array offsets missing, a pack of cifar10 needs blob, offsets, label, split",
    ),
    "no labels": (change("label", None), "array label missing"),
    "no split": (change("split", None), "array split missing"),
    "offsets out of order": (change("offsets", swap), r"offsets out of order at image 3: \d+ is followed by \d+"),
    "empty image": (change("offsets", lambda o: np.insert(o, 4, o[4])), "offsets out of order at image 4"),
    "offsets beyond": (change("offsets", lambda o: np.append(o[:-1], o[-1] + 5)), r"run from 0 to blob's \d+ bytes"),
    "offsets late": (change("offsets", lambda o: np.append(3, o[1:])), "they run from 3 to"),
    "offsets as float": (change("offsets", lambda o: o * 1.0), "offsets must be integers"),
    "no image": (change("offsets", lambda o: o[:1]), r"offsets must be integers, shape \(n \+ 1,\), got int64, \(1,\)"),
    "blob as int16": (change("blob", lambda b: b.astype(np.int16)), "blob must be uint8 of one dimension, got int16"),
    "labels short": (change("label", lambda v: v[:-1]), r"label must be integers of shape \(12,\).*shape \(11,\)"),
    "labels as float": (change("label", lambda v: v * 1.0), "label must be integers .* got float64"),
    "label 10": (change("label", lambda v: v + 1), r"label must lie in 0\.\.9, found 1\.\.10"),
    "split 2": (change("split", lambda v: v * 2), r"split must lie in 0\.\.1, found 0\.\.2"),
    "another length": (change("group", lambda v: v[:3]), "group must be integers"),
    "pickled objects": (change("label", lambda v: v.astype(object)), "Object arrays cannot be loaded"),
    "numbers for text": (change("origin", lambda v: np.arange(3)), "origin must hold text"),
    "many origins": (change("origin", lambda v: np.array(["a", "b"])), r"origin must hold text of shape \(\), got"),
    "skipped in one column": (change("skipped", lambda v: np.array(["a", "b"])), r"skipped must .* shape \(2, 3\)"),
    "skipped in five columns": (change("skipped", lambda v: np.array([["a"] * 5])), r"skipped must .* shape \(1, 3\)"),
    "names of no field": (change("names_site", lambda v: np.array(["a", "b"])), "names_site must name each value"),
    "too few names": (change("names_label", lambda v: np.array(["a", "b"])), "names_label must name each value"),
    "a name twice": (change("names_label", lambda v: np.array(["a"] * 10)), "names_label must name each value"),
    "names in a table": (
        change("names_label", lambda v: np.array([["a"]] * 10)),
        r"names_label must .*got <U1.*\(10, 1\)",
    ),
    "notes that are no JSON": (change("notes", lambda v: np.array("{")), "the notes are damaged"),
    "notes that are a list": (change("notes", lambda v: np.array("[1]")), "the notes are damaged"),
    "notes without an end": (change("notes", lambda v: np.array("[" * 10**5)), "the notes are damaged"),
    "notes of another kind": (
        change("notes", lambda v: np.array('{"source_sha256": "0"}')),
        "no option 'source_sha256'",
    ),
    "notes of another type": (change("notes", lambda v: np.array('{"rotated": "a"}')), "rotated = 'a' is not allowed"),
    "nan": (change("label", lambda v: np.full(12, np.nan)), "label must be integers .* got float64"),
    "numbers beyond 64 bits": (change("offsets", lambda o: o.astype(np.uint64) + 2**63), "offsets must run from 0"),
    "an array of everything": (change("label", lambda v: np.zeros((12, 12), int)), "label must be integers of shape"),
    "complex numbers": (change("split", lambda v: v + 0j), "split must be integers"),
    "an image of 2,000 pixels": (
        lambda a: lossy(a, size=2000),
        "image 2 must be .*32x32.* got lossless RGB of 2000x2000",
    ),
    "a lossy image": (lambda a: lossy(a, lossless=False), "image 2 must be lossless RGB of 32x32.*got lossy RGB"),
    "another size": (lambda a: lossy(a, size=16), "image 2 must be .* got lossless RGB of 16x16"),
    "alpha": (lambda a: lossy(a, mode="RGBA"), "image 2 must be lossless RGB .* got lossless RGBA"),
    "a PNG": (lambda a: lossy(a, format="PNG"), "image 2 of 12 cannot be decoded"),
}


def zipped(path: Path, *members: tuple[str, bytes], packed: int = zipfile.ZIP_STORED) -> Path:
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(path, "w", packed) as file:
        for name, content in members:
            file.writestr(name, content)
    return path


def as_file(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def test_members_that_are_no_arrays_or_there_twice_or_a_bomb_are_refused(tmp_path: Path) -> None:
    one, path = as_file(np.arange(3)), tmp_path / "bad.npz"
    cases = [
        ([("label.npy", one), ("label.npy", one)], "holds label.npy, label.npy; .*each once"),
        ([("label.npy", one), ("readme.txt", b"hello")], "holds readme.txt"),
        ([("label", b"hello")], "holds label;"),
        ([("label.npy", b"hello")], "no NumPy array in label"),
        ([(f"a{i}.npy", b"") for i in range(1001)], "holds 1,001 arrays"),
        ([("blob.npy", one[:-4])], "damaged or not a pack"),
        ([("blob.npy", b"\x93NUMPY\x01\x00\xff\xff" + b"{" * 65535)], "damaged or not a pack"),
        ([("../../outside.npy", one)], "array blob, offsets, label, split missing"),
    ]
    for members, message in cases:
        with pytest.raises(DataError, match=message) as caught:
            read_pack(zipped(path, *members), "cifar10")
        assert "\n" not in str(caught.value)
    bomb = zipped(path, ("blob.npy", bytes(2**28)), ("offsets.npy", bytes(2**26)), packed=zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match="unpacks to 335,544,320 bytes; at most"):
        read_pack(bomb, "cifar10")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.npz"]


def test_a_member_that_says_it_is_small_is_read_no_further(tmp_path: Path) -> None:
    """Sizes in the list of members changed: what is read ends there, and its checksum is wrong."""
    big = as_file(np.zeros(2**20, np.uint8))
    path = zipped(tmp_path / "bad.npz", ("blob.npy", big), packed=zipfile.ZIP_DEFLATED)
    content = path.read_bytes()
    for size in (len(big) - 5, 200, 2**31):
        path.write_bytes(content.replace(len(big).to_bytes(4, "little"), size.to_bytes(4, "little")))
        with pytest.raises(DataError, match="damaged or not a pack|unpacks to"):
            read_pack(path, "cifar10")


def test_an_array_that_says_it_is_large_is_refused(tmp_path: Path) -> None:
    for shape in ((10**15,), (2**62, 2**62), (-1,)):
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        buffer = io.BytesIO()
        np.lib.format.write_array_header_1_0(buffer, header)
        with pytest.raises(DataError, match="damaged or not a pack"):
            read_pack(zipped(tmp_path / "bad.npz", ("blob.npy", buffer.getvalue() + b"x" * 50)), "cifar10")


@pytest.mark.parametrize("case", DAMAGE)
def test_arrays_that_do_not_fit_are_named(case: str, tmp_path: Path) -> None:
    damage, message = DAMAGE[case]
    with np.load(write_pack(collection(), tmp_path / "good.npz")) as file:
        arrays = dict(file)
    damage(arrays)
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(DataError, match=message) as caught:
        read_pack(tmp_path / "bad.npz", "cifar10")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("made", "name", "message"),
    [
        (collection(), "x.zip", r"ends in \.npz, got x\.zip"),
        (collection(images=np.zeros((12, 1, 8, 8), np.uint8)), "x.npz", "RGB images, these have 1 channels"),
        (collection(fields={"age": np.arange(12) / 2}), "x.npz", "age must hold integers, got float64"),
        (collection(fields={"age": np.full(12, 2**63, np.uint64)}), "x.npz", "age must lie within 64 bits"),
    ],
)
def test_what_a_pack_cannot_hold_is_refused(made: Collection, name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        write_pack(made, tmp_path / name)
    assert not list(tmp_path.iterdir())
