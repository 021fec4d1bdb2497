"""Packs: one file with all images of a data set, stored losslessly, and their fields.

A pack is a NumPy `.npz` without pickled objects. `blob` (uint8) holds complete lossless WebP files; image i is
`blob[offsets[i]:offsets[i + 1]]`. Each field (`label`, `age`, ...) is an integer array of shape (n,). `group` numbers
the images that must stay together, `split` is 0 for training images, 1 for test images, 2 for a user's own validation
images. `names_FIELD` names a field's values, `skipped` lists files that were left out, `notes` says what else was met
(JSON), `origin` where it was read. A field whose name is one of these is stored as `field_NAME`. `NAME.npz.sha256`
beside the pack is for `sha256sum -c`.
"""

import io
import json
import os
import re
import zipfile
from collections.abc import Sequence
from dataclasses import make_dataclass
from pathlib import Path

import numpy as np
from PIL import Image, features
from tqdm import tqdm

from linfair.data.core import Collection, DataError, Skipped, digest, ensure, shown
from linfair.data.images import MANY
from linfair.data.official import CLASSES, OFFERED, SVHN
from linfair.names import checked, some
from linfair.paths import unfit, whole

KNOWN = {name: (one["sha256"], one["bytes"]) for name, one in OFFERED["packs"].items()}  #: SHA-256 and bytes
SIDES = dict.fromkeys(("cifar10", "cifar100", "svhn", "utkface"), 32) | {"mnist": 28}  #: Of a pack's images; else any
FIELDS = OFFERED["fields"] | {"celeba": dict.fromkeys(CLASSES["celeba"], (0, 1)) | OFFERED["fields"]["celeba"]}
_NOTES = [(name, int) for name in ("rotated", "copies", "copies_differ")] + [("lookalikes", Sequence[str])]
_NOTES += [(name, Sequence[Sequence[str]]) for name in ("duplicates", "found_as")]  #: What `notes` may say
_OTHER = ("blob", "offsets", "skipped", "notes", "origin")
_OWN = (*_OTHER, "split", "group")


def read_pack(path: str | Path, name: str) -> Collection:
    """Read a pack of the data set `name`; UTKFace has no official split, so its pack's `split` is not used."""
    path = Path(path)
    arrays, sha256 = _checked(path, name)
    n = len(arrays["offsets"]) - 1
    origin = f"pack {path.name}, {n:,} images"
    if name == "svhn" and n < SVHN.images:
        origin = f"SVHN subset, {n:,} of {SVHN.images:,} images (pack {path.name})"
    images = _decode(path, arrays["blob"], arrays["offsets"], SIDES.get(name))
    images = images[:, :1] if name == "mnist" else images
    fields = {key.removeprefix("field_"): value for key, value in arrays.items() if _is_field(key)}
    same, official = arrays.get("group", np.arange(n)), None if name == "utkface" else arrays.get("split")
    skipped = tuple(Skipped(*map(str, one)) for one in arrays.get("skipped", ()))
    names = {key[6:]: tuple(map(str, value)) for key, value in arrays.items() if key.startswith("names_")}
    origin, notes = str(arrays.get("origin", origin)), json.loads(str(arrays.get("notes", "{}")))
    return Collection(name, images, fields, same, official, origin, sha256, skipped, names, notes)


def read_fields(path: Path, name: str) -> dict[str, np.ndarray]:
    """The integer arrays of a pack (fields, `split`, `group`), checked as in `read_pack` without decoding an image."""
    arrays, _ = _checked(path, name)
    return {key.removeprefix("field_"): value for key, value in arrays.items() if _is_field(key, _OTHER)}


def checksum_state(path: Path, found: str | None = None) -> str:
    """`checksum ok`, `checksum differs: ...` or `no checksum known`, for a pack (with the SHA-256 `found`)."""
    expected, found = _expected(path)[0], found or digest(path)
    if expected in (None, found):
        return "checksum ok" if expected else "no checksum known"
    return f"checksum differs: expected SHA-256 {expected[:12]}..., found {found[:12]}..."


def write_pack(collection: Collection, path: str | Path) -> Path:
    """Write images as a pack that reads back bit for bit, with its checksum beside it, whole or not at all."""
    path = Path(path)
    ensure(path.suffix == ".npz", f"a pack's name ends in .npz, got {path.name}")
    arrays = _arrays(collection)
    try:
        with whole(sidecar := path.with_name(path.name + ".sha256")) as checksum, whole(path) as part:
            with part.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
            checksum.write_text(f"{digest(part)}  {path.name}\n", encoding="ascii")
            sidecar.unlink(missing_ok=True)  # never a new pack beside an old checksum
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror or error}); name another place") from error
    return path


def _arrays(collection: Collection) -> dict[str, np.ndarray]:
    images, channels = collection.images, collection.images.shape[1]
    images = np.repeat(images, 3, axis=1) if collection.name == "mnist" else images
    ensure(images.shape[1] == 3, f"{collection.origin}: a pack holds RGB images, these have {channels} channels")
    files, few = [], len(collection) <= MANY or None
    for image in tqdm(images, desc=f"packing {collection.name}", unit="image", disable=few, leave=False):
        encoded = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(encoded, format="WEBP", lossless=True)
        files.append(encoded.getvalue())
    offsets = np.cumsum([0, *map(len, files)], dtype=np.int64)
    arrays = {"blob": np.frombuffer(b"".join(files), np.uint8), "offsets": offsets}
    arrays |= {"group": _small(collection.origin, "same", collection.same), "origin": np.array(collection.origin)}
    for key, values in collection.fields.items():
        stored = key if _is_field(key) and not key.startswith("field_") else f"field_{key}"
        arrays[stored] = _small(collection.origin, key, values)
    if collection.official is not None:
        arrays["split"] = _small(collection.origin, "official", collection.official)
    if collection.skipped:
        arrays["skipped"] = np.array([(one.name, one.why, one.kind) for one in collection.skipped], dtype=np.str_)
    if collection.notes:
        arrays["notes"] = np.array(json.dumps(collection.notes))
    return arrays | {f"names_{key}": np.array(values, dtype=np.str_) for key, values in collection.names.items()}


def _checked(path: Path, name: str) -> tuple[dict[str, np.ndarray], str]:
    """The arrays of a pack, integers as int64, after every check that needs no decoding; and its SHA-256."""
    again = f"copy it again from where you got it, or write it anew with `linfair data pack {name}`"
    cut = _cut(path, _expected(path)[1])
    ensure(cut is None, f"{path}: {cut}; {again}")
    state = checksum_state(path, found := digest(path))
    mend = f"the file is damaged or another one; {again} (which rewrites the pack and its .sha256)"
    ensure("differs" not in state, f"{path}: {state}: {mend}")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as pack:
            _check_members(path, pack.zip.infolist())
            arrays = {key: pack[key] for key in pack.files}
            odd = [key for key, values in arrays.items() if not isinstance(values, np.ndarray)]
            ensure(not odd, f"{path}: no NumPy array in {shown(some(odd))}; {again}")
    except DataError:
        raise
    except Exception as error:  # numpy and zipfile fail in many ways on damaged files
        what = f"{type(error).__name__}: {shown(str(error))}"
        raise DataError(f"{path}: damaged or not a pack ({what}); {again}") from error
    _check_arrays(path, name, arrays)
    whole_numbers = {key: value.astype(np.int64) for key, value in arrays.items() if _is_field(key, _OTHER)}
    return arrays | whole_numbers, found


def _check_members(path: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    """Refuse a pack that is a bomb, or holds anything else than arrays with names of their own."""
    names, most = [one.filename for one in members], 4 * path.stat().st_size + 2**28
    unpacked = sum(one.file_size for one in members)
    ensure(unpacked <= most, f"{path}: unpacks to {unpacked:,} bytes; at most {most:,} are read of a pack of its size")
    ensure(len(names) <= 1000, f"{path}: holds {len(names):,} arrays; a pack has at most 1,000")
    odd = [one for one in names if names.count(one) > 1 or not one.endswith(".npy")]
    ensure(not odd, f"{path}: holds {shown(some(odd))}; a pack holds arrays, NAME.npy, each once")


def _check_arrays(path: Path, name: str, arrays: dict[str, np.ndarray]) -> None:
    """Refuse arrays that are missing, of another type or length, out of order or out of range."""
    needed = ["blob", "offsets", *FIELDS.get(name, ())]
    missing = [key for key in needed if key not in arrays]
    needs = f"array {', '.join(missing)} missing, a pack of {name} needs {', '.join(needed)}"
    ensure(not missing, f"{path}: {needs}; is it the pack of another data set?")
    blob, offsets = arrays["blob"], arrays["offsets"]
    flat = blob.dtype == np.uint8 and blob.ndim == 1
    ensure(flat, f"{path}: blob must be uint8 of one dimension, got {blob.dtype} of shape {blob.shape}")
    whole_numbers = offsets.dtype.kind in "iu" and offsets.ndim == 1 and len(offsets) > 1
    ensure(whole_numbers, f"{path}: offsets must be integers, shape (n + 1,), got {offsets.dtype}, {offsets.shape}")
    offsets = arrays["offsets"] = offsets.astype(np.int64)
    n, i = len(offsets) - 1, int(np.argmin(np.diff(offsets) > 0))
    step = f"{offsets[i]} is followed by {offsets[i + 1]}"
    ensure(offsets[i] < offsets[i + 1], f"{path}: offsets out of order at image {i}: {step}")
    run = f"offsets must run from 0 to blob's {len(blob)} bytes, they run from {offsets[0]} to {offsets[-1]}"
    ensure((offsets[0], offsets[-1]) == (0, len(blob)), f"{path}: {run}")
    ranges = {"split": (0, 2 if name == "folder" else 1)} | FIELDS.get(name, {})
    for key, values in arrays.items():
        given, what = f"got {values.dtype} of shape {values.shape}", f"{path}: {shown(key)} must"
        if _is_field(key, _OTHER):
            right = values.dtype.kind in "iu" and values.shape == (n,)
            ensure(right, f"{what} be integers of shape ({n},), one for each image, {given}")
            low, high = ranges.get(key) or (None, None)
            inside = low is None or (low <= values.min() and values.max() <= high)
            ensure(inside, f"{what} lie in {low}..{high}, found {values.min()}..{values.max()}")
        elif key not in ("blob", "offsets"):
            shapes = {"origin": (), "notes": (), "skipped": (len(values) if values.ndim else 0, 3)}
            right = values.dtype.kind == "U" and values.shape == shapes.get(key, (values.size,))
            ensure(right and values.size < 10**7, f"{what} hold text of shape {shapes.get(key, '(k,)')}, {given}")
    for key in (one for one in arrays if one.startswith("names_")):
        field, names = arrays.get(f"field_{key[6:]}", arrays.get(key[6:])), arrays[key].tolist()
        right = field is not None and field.min() >= 0 and field.max() < len(names) == len(set(names))
        ensure(right, f"{path}: {shown(key)} must name each value of a field {shown(key[6:])} once")
    try:
        checked(json.loads(str(arrays.get("notes", "{}"))), make_dataclass("Notes", _NOTES), "notes")
    except (ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: the notes are damaged ({shown(str(error))})") from error


def _decode(path: Path, blob: np.ndarray, offsets: np.ndarray, size: int | None) -> np.ndarray:
    """All images, uint8 of shape (n, 3, height, width); `size` None takes the first image's."""
    advice = 'pip install --force-reinstall "pillow"'
    ensure(features.check("webp"), f"packs need a Pillow that reads WebP, this one does not; {advice}")
    data, n, wanted, images = memoryview(blob), len(offsets) - 1, size and (size, size), None
    for i in tqdm(range(n), desc=f"decoding {path.name}", unit="image", disable=n <= MANY or None, leave=False):
        encoded = bytes(data[offsets[i] : offsets[i + 1]])
        try:
            with Image.open(io.BytesIO(encoded), formats=["WEBP"]) as file:
                wanted = wanted or tuple(min(side, 1024) for side in file.size)
                found, mode, kind = file.size, file.mode, "lossless" if b"VP8L" in encoded[:64] else "lossy"
                pixels = np.asarray(file) if (found, mode, kind) == (wanted, "RGB", "lossless") else None
        except Exception as error:  # Pillow's decoders fail in many ways on damaged files
            raise DataError(f"{path}: image {i} of {n} cannot be decoded; the pack is damaged") from error
        given = f"got {kind} {mode} of {found[0]}x{found[1]}"
        right = f"lossless RGB of {wanted[0]}x{wanted[1]} pixels"
        ensure(pixels is not None, f"{path}: image {i} must be {right}, {given}")
        images = np.empty((n, 3, *pixels.shape[:2]), np.uint8) if images is None else images
        images[i] = pixels.transpose(2, 0, 1)
    return images


def _cut(path: Path, size: int | None) -> str | None:
    """Why a file that should have so many bytes, where that is known, is no pack or not all of it; None if it is."""
    found, expected = path.stat().st_size, "" if size is None else f"expected {size:,} bytes, "
    with path.open("rb") as file:
        packed = file.read(4) == b"PK\x03\x04"
    if packed and (found < size if size is not None else not zipfile.is_zipfile(path)):
        return f"the file is cut short, {expected}found {found:,} bytes"
    return None if packed else "not a pack: packs are NumPy .npz files" if found else "the file is empty"


def _expected(path: Path) -> tuple[str | None, int | None]:
    """The SHA-256 and bytes that a pack should have, where they are known."""
    why, sidecar = unfit(path), path.with_name(path.name + ".sha256")
    ensure(why is None, f"the pack {path} {why}")
    if not os.path.lexists(sidecar):
        return KNOWN.get(path.name, (None, None))
    why, advice = unfit(sidecar, 4096), f"remove it, or write it with: sha256sum {path.name} > {sidecar.name}"
    ensure(why is None, f"{sidecar} {why}; {advice}")
    known = sidecar.read_text(encoding="ascii", errors="replace").split(" ")[0].strip().lower()
    ensure(re.fullmatch(r"[0-9a-f]{64}", known), f"{sidecar} holds no SHA-256; {advice}")
    return known, None


def _small(origin: str, key: str, values: np.ndarray) -> np.ndarray:
    """Integers in the smallest type that holds them."""
    ensure(values.dtype.kind in "iu", f"{origin}: {key} must hold integers, got {values.dtype}")
    low, high = int(values.min()), int(values.max())
    kinds = map(np.iinfo, (np.uint8, np.int8, np.uint16, np.int16, np.int32, np.int64))
    fits = [kind.dtype for kind in kinds if kind.min <= low and high <= kind.max]
    ensure(fits, f"{origin}: {key} must lie within 64 bits, found {high}")
    return values.astype(fits[0])


def _is_field(key: str, others: tuple[str, ...] = _OWN) -> bool:
    return key not in others and not key.startswith("names_")
