"""Where the data sets' files are, reading them, and fetching what may be downloaded.

A data set is found as a pack or as its publishers' files, in the first of these places that has it: a given folder, the
folder in `LINFAIR_DATA`, `data` in the user's cache folder.
"""

import functools
import hashlib
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np

from linfair import paths
from linfair.data import official, packs
from linfair.data.core import Collection, DataError, digest, ensure
from linfair.data.describe import SHEETS
from linfair.data.folder import NEEDED, TABLE, check_named, copies_differ, has_folders, read_folder
from linfair.data.images import below
from linfair.names import unknown


@dataclass(frozen=True)
class Source:
    """How a data set lies on disk: as a pack, or as its publishers' or its owner's files."""

    kind: str  # what its own files are called in reports
    files: str  # what its own files are called, in words
    places: tuple[str, ...]  # folders, below the one that is looked in, which may hold its own files
    holds: Callable[[Path], bool]  # whether a folder holds them
    read: Callable[..., Collection]
    fields: Callable[[Path], dict[str, np.ndarray]] | None = None  # reads what is known of images, opening none
    packs: tuple[str, ...] = ()  # names of packs, beside NAME.npz
    release: official.Release | None = None  # where it may be downloaded


def _has(*files: str) -> Callable[[Path], bool]:
    return lambda folder: any((folder / file).is_file() for file in files)


def _released(release: official.Release, kind: str, *packs: str) -> Source:
    files = f"{release.folder}/" if release.folder else " and ".join(release.files)
    places = (release.folder, release.name, release.name.upper(), "")
    return Source(kind, files, places, _has(*release.files), release.read, packs=packs, release=release)


FACES, CELEBRITIES = ("UTKFace", "utkface", ""), ("celeba", "CelebA", "")
_lists, _table = _has(official.ATTRIBUTES), lambda folder: os.path.lexists(folder / TABLE)
_utkface, _celeba = (official.read_utkface, official.utkface_fields), (official.read_celeba, official.read_attributes)
SOURCES = {
    "cifar10": _released(official.CIFAR10, "batches"),
    "cifar100": _released(official.CIFAR100, "pickles"),
    "mnist": _released(official.MNIST, "idx"),
    "svhn": _released(official.SVHN, "mat", "svhn10k.npz"),
    "utkface": Source("files", "UTKFace/", FACES, official.holds_faces, *_utkface, ("utkface32.npz",)),
    "celeba": Source("celeba", ", ".join(official.CELEBA), CELEBRITIES, _lists, *_celeba),
    "folder": Source("folder", TABLE, ("",), _table, read_folder),
}


@dataclass(frozen=True)
class Found:
    """Where a source is: a file of the kind `pack`, or a folder of its own files (the kind that its source has)."""

    path: Path
    kind: str


def find(name: str, root: str | Path | None = None) -> Found | None:
    """Where a source's files (or the pack `root`) are, in `root` only if it is given; None if they are nowhere."""
    ensure(name in SOURCES, unknown("there is no source", name, SOURCES))
    source = SOURCES[name]
    for place in paths.data_folders(root):
        if place.suffix == ".npz" and os.path.lexists(place) and not place.is_dir():
            return Found(place, "pack")
        own = (Found(place / one, source.kind) for one in source.places if source.holds(place / one))
        packs = (f"{name}.npz", *source.packs)
        packed = (Found(place / file, "pack") for file in packs if (place / file).is_file())
        # of a user's folder the files themselves are newer than a pack of them
        found = next(chain(own, packed) if name == "folder" else chain(packed, own), None)
        if found or (name == "folder" and root is not None and has_folders(place)):
            return found or Found(place, "folder")
    return None


def read(name: str, root: str | Path | None = None, *, strict: bool | None = None, **options: object) -> Collection:
    """Read a source (again: from memory); `strict`, by default `LINFAIR_STRICT`, makes skipped files errors."""
    found = find(name, root)
    where = ", ".join(f"{one}{'' if one.exists() else ' (no such folder)'}" for one in paths.data_folders(root))
    ensure(found or name != "folder", f"no {TABLE} in {where}; {NEEDED}")
    names = f"{name}.npz", *SOURCES[name].packs, SOURCES[name].files
    missing = f"{name} not found in {where} (looked for {', '.join(names)})"
    advice = f"run `linfair data fetch {name}`, or name the folder that has it in LINFAIR_DATA"
    ensure(found, f"{missing}; {advice}; `linfair data status` shows what is where")
    strict = os.environ.get("LINFAIR_STRICT", "") not in ("", "0") if strict is None else strict
    inside = found.path if name == "folder" and options.get("links") != "anywhere" else None
    return _read(name, found, _stamp(name, found, inside), strict, tuple(sorted(options.items())))


def checksum_state(found: Found) -> str:
    """`checksum ok`, `checksum differs: ...` or `no checksum known`: of SHA-256s."""
    if found.kind == "pack":
        return packs.checksum_state(found.path)
    release = next(source.release for source in SOURCES.values() if source.kind == found.kind)
    if release is None:
        return "no checksum known"
    files = {found.path / file: known.sha256 for file, known in release.files.items()}
    wrong = [path.name for path, sha256 in files.items() if not path.is_file() or digest(path) != sha256]
    return f"checksum differs: {', '.join(wrong)}" if wrong else "checksum ok"


def fetch(name: str, folder: str | Path) -> Found:
    """Download a data set, unless it is there and whole; of one that breaks off only what arrived is kept."""
    folder = Path(folder).expanduser()
    by_hand = getattr(SHEETS.get(name), "by_hand", "")
    ensure(not by_hand, by_hand.format(folder=folder))
    release = SOURCES[name].release if name in SOURCES else None
    offered = [one for one, source in SOURCES.items() if source.release]
    ensure(release, f"{name!r} cannot be fetched; {', '.join(offered)} can, utkface and celeba say how to obtain them")
    found = find(name, folder)
    if found is not None and checksum_state(found) == "checksum ok":
        return found
    from linfair.data import download

    target, place = folder / release.folder, folder / f".fetch-{name}"
    try:
        with download.workplace(place) as work:
            needed = sum(known.bytes for known in {*release.urls.values(), *release.files.values()})
            free, advice = shutil.disk_usage(work).free, "make room, or name another folder"
            ensure(free > needed, f"{needed / 1e6:,.0f} MB are needed and {free / 1e6:,.0f} MB are free; {advice}")
            for path in [download.get(url, work, known) for url, known in release.urls.items()]:
                path = path.rename(path.with_suffix(""))
                if path.name not in release.files:
                    download.unpack(path, release.folder, release.files)
            release.read(work)
            target.mkdir(parents=True, exist_ok=True)
            for file in release.files:
                (work / file).replace(target / file)
    except (OSError, ValueError, EOFError, KeyError, tarfile.TarError, zlib.error) as error:
        kept = f"what arrived is in {place} for the next call" if place.exists() else "nothing was kept"
        kind = "" if isinstance(error, DataError) else f"{type(error).__name__}: "
        text = f"{name} could not be downloaded into {folder} ({kind}{error}); {kept}. Try again, or download it "
        raise DataError(f"{text}elsewhere and copy {SOURCES[name].files} into that folder") from error
    return Found(target, SOURCES[name].kind)


@functools.lru_cache(maxsize=4)
def _read(name: str, found: Found, stamp: str, strict: bool, options: tuple[tuple[str, object], ...]) -> Collection:
    """Read once for each state of the files, which `stamp` stands for; of a folder's pack the columns asked for."""
    if found.kind != "pack":
        return SOURCES[name].read(found.path, strict=strict, **dict(options))
    collection = packs.read_pack(found.path, name)
    asked = {"columns": ("label",), "size": 32} | dict(options)
    columns, size = asked["columns"] or tuple(collection.names), asked["size"]
    if name == "folder":
        check_named(str(found.path), columns, tuple(collection.names))
    height, width = collection.images.shape[2:]
    is_that = f"holds images of {width}x{height} pixels, size={size} was asked for"
    ensure(name not in ("folder", "celeba") or height == width == size, f"{found.path} {is_that}")
    if name != "folder":
        return collection
    fields, names = ({column: values[column] for column in columns} for values in (collection.fields, collection.names))
    of_these = tuple(f"column {column} has " for column in columns)
    met = {"lookalikes": [text for text in collection.notes.get("lookalikes", ()) if text.startswith(of_these)]}
    met = collection.notes | met | {"copies_differ": copies_differ(collection.same, fields)}
    return replace(collection, fields=fields, names=names, notes={name: note for name, note in met.items() if note})


def _stamp(name: str, found: Found, inside: Path | None) -> str:
    """Changes when a file of the source changes: names, sizes and times."""
    if found.kind == "pack":
        files = [found.path, found.path.with_name(f"{found.path.name}.sha256")]
    elif release := SOURCES[name].release:
        files = [found.path / file for file in release.files]
    else:
        files = sorted(below(found.path, inside))
    there = [(file, file.stat()) for file in files if file.exists()]
    state = [f"{file}\0{about.st_size}\0{about.st_mtime_ns}\n" for file, about in there]
    return hashlib.sha256(os.fsencode("".join(state))).hexdigest()
