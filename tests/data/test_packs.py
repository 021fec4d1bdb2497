"""Packs: what is written is read back bit for bit; every kind of damage is one clear line."""

import hashlib
import io
import subprocess
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
        fields={key: np.array(values[:n]), "other": np.arange(n)},
        same=np.arange(n)[::-1] // 2,
        official=np.arange(n) % 2 if official else None,
        names={key: ("ein Wört", "b")},
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
    if size == 0:
        assert "the file is empty" in text
    elif size == 3:
        assert "not a pack" in text
    elif 0 < size <= 5000 or isinstance(kept, float):
        assert f"cut short, found {min(size, len(content)):,} bytes: array blob has " in text
    else:
        assert "the list of arrays at its end is missing" in text


def test_a_known_pack_cut_short_says_the_bytes_it_should_have(tmp_path: Path) -> None:
    """Oracle: the size in the table of the packs' README."""
    path = write_pack(collection(), tmp_path / "utkface32.npz")
    (tmp_path / "utkface32.npz.sha256").unlink()
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(DataError, match=r"expected 39,773,379 bytes, found 20,000 bytes: array blob has 19,9\d\d of"):
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
    (tmp_path / "cifar10.npz.sha256").write_text("none\n")
    with pytest.raises(DataError, match="holds no SHA-256; remove it"):
        checksum_state(path)


def test_no_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file .*cifar10.npz"):
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
    "a lossy image": (lambda a: lossy(a, lossless=False), "image 2 must be lossless RGB of 32x32.*got lossy RGB"),
    "another size": (lambda a: lossy(a, size=16), "image 2 must be .* got lossless RGB of 16x16"),
    "alpha": (lambda a: lossy(a, mode="RGBA"), "image 2 must be lossless RGB .* got lossless RGBA"),
    "a PNG": (lambda a: lossy(a, format="PNG"), "image 2 of 12 cannot be decoded"),
}


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
