"""Where the data sets' files are, reading them, and fetching what may be downloaded.

A data set is found as a pack or as its publishers' files, in the first of these places that has it: a given folder, the
folder in `LINFAIR_DATA`, `data` in the user's cache folder.
"""

import functools
import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from linfair import paths
from linfair.data import packs
from linfair.data.cifar import BATCHES, read_cifar10
from linfair.data.cifar import FOLDER as CIFAR_FOLDER
from linfair.data.collection import Collection, DataError
from linfair.data.folder import read_folder
from linfair.data.svhn import FILES as MATS
from linfair.data.svhn import read_svhn
from linfair.data.table import TABLE, check_named, has_folders
from linfair.data.utkface import files_of, holds_faces, read_utkface

PACKS = {
    "cifar10": ("cifar10.npz",),
    "svhn": ("svhn.npz", "svhn10k.npz"),
    "utkface": ("utkface.npz", "utkface32.npz"),
    "folder": ("folder.npz",),
}
"""The sources, and the file names of their packs."""
FILES = {
    "cifar10": f"{CIFAR_FOLDER}/",
    "svhn": " and ".join(MATS),
    "utkface": "UTKFace/",
    "folder": TABLE,
}
"""What the sources' own files are called."""
OBTAIN_UTKFACE = (
    "UTKFace may not be downloaded automatically. It is for non-commercial research only; the copyright of the faces "
    "stays with their owners. Get the aligned and cropped faces from the publishers' project page (search for UTKFace, "
    "Zhifei Zhang, Yang Song, Hairong Qi), read the terms there, unpack them as UTKFace/ into {folder}, and check with "
    "`linfair data status`. `linfair data pack utkface` then makes one small file of them."
)


@dataclass(frozen=True)
class Found:
    """Where a source is.

    Attributes:
        path: A file for a pack, else a folder.
        kind: `pack`, `batches` (CIFAR-10), `mat` (SVHN), `files` (UTKFace) or `folder`.
    """

    path: Path
    kind: str


def find(name: str, root: str | Path | None = None) -> Found | None:
    """Look for a source's files; whether they are sound shows when they are read.

    Args:
        name: One of `PACKS`.
        root: Look in this folder only (or at this pack).

    Returns:
        Where they are; None if nowhere.

    Raises:
        DataError: For an unknown name.
    """
    if name not in PACKS:
        raise DataError(f"no source {name!r}; there are {', '.join(PACKS)}")
    for place in paths.data_folders(root):
        if place.suffix == ".npz" and place.is_file():
            return Found(place, "pack")
        if name == "folder" and (place / TABLE).is_file():
            return Found(place, "folder")  # the user's own files are newer than a pack of them
        for file in PACKS[name]:
            if (place / file).is_file():
                return Found(place / file, "pack")
        found = _FINDERS[name](place)
        if found is None and name == "folder" and root is not None and has_folders(place):
            found = Found(place, "folder")
        if found is not None:
            return found
    return None


def read(name: str, root: str | Path | None = None, *, strict: bool | None = None, **options: object) -> Collection:
    """Read a source, from wherever it is found; a second time in one process from memory.

    Args:
        name: One of `PACKS`.
        root: Look in this folder only (or at this pack).
        strict: Make skipped files errors; by default where `LINFAIR_STRICT` is set to 1.
        **options: Of `read_folder`, for `folder`.

    Raises:
        DataError: If nothing is found (says where it looked), or what is found cannot be used.
    """
    found = find(name, root)
    if found is None:
        raise DataError(_nowhere(name, root))
    strict = os.environ.get("LINFAIR_STRICT", "") not in ("", "0") if strict is None else strict
    return _read(name, found, _stamp(found), strict, tuple(sorted(options.items())))


def checksum_state(found: Found) -> str:
    """`checksum ok`, `checksum differs: ...` or `no checksum known`, for what was found.

    Official files are compared with the MD5 of the release, packs with their SHA-256.
    """
    if found.kind == "pack":
        return packs.checksum_state(found.path)
    known = {"batches": BATCHES, "mat": MATS}.get(found.kind)
    if known is None:
        return "no checksum known"
    wrong = [name for name, digest in known.items() if _md5(found.path / name) != digest]
    return f"checksum differs: {', '.join(wrong)}" if wrong else "checksum ok"


def fetch(name: str, folder: str | Path | None = None) -> Found:
    """Download a source with torchvision, checksum and progress; nothing is kept of a download that fails.

    What is there already, complete and with the right checksum, is not downloaded again.

    Args:
        name: `cifar10` or `svhn`.
        folder: Where to; the first of the places where data are looked for by default.

    Returns:
        Where it is.

    Raises:
        DataError: If the download fails, or the source may not be downloaded (then how to obtain it, and its terms).
    """
    folder = Path(folder).expanduser() if folder is not None else paths.data_folders()[0]
    if name == "utkface":
        raise DataError(OBTAIN_UTKFACE.format(folder=folder))
    if name not in _DOWNLOADS:
        raise DataError(f"{name!r} cannot be fetched; cifar10 and svhn can, utkface says how to obtain it")
    found = find(name, folder)
    if found is not None and checksum_state(found) == "checksum ok":
        return found
    download, source, files, inside = _DOWNLOADS[name]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".fetch-{name}-", dir=folder) as part:
            from linfair.data.torchvision import torchvision

            download(torchvision().datasets, part)
            source(Path(part) / inside)
            (folder / inside).mkdir(exist_ok=True)
            for file in files:
                (Path(part) / inside / file).replace(folder / inside / file)
    except (OSError, RuntimeError, ValueError, EOFError, ImportError) as error:  # URLError is an OSError
        raise DataError(
            f"{name} could not be downloaded into {folder} ({type(error).__name__}: {error}); nothing of it was kept. "
            f"Try again, or download it elsewhere and copy {FILES[name]} into that folder"
        ) from error
    return Found(folder / inside, "batches" if name == "cifar10" else "mat")


def _fetch_cifar10(datasets: ModuleType, folder: str) -> None:
    kind = datasets.CIFAR10
    datasets.utils.download_and_extract_archive(kind.url, folder, filename=kind.filename, md5=kind.tgz_md5)


def _fetch_svhn(datasets: ModuleType, folder: str) -> None:
    for split in ("train", "test"):
        url, filename, md5 = datasets.SVHN.split_list[split]
        datasets.utils.download_url(url, folder, filename, md5)


_DOWNLOADS: dict[str, tuple[Callable, Callable, dict[str, str], str]] = {
    "cifar10": (_fetch_cifar10, read_cifar10, BATCHES, CIFAR_FOLDER),
    "svhn": (_fetch_svhn, read_svhn, MATS, ""),
}


def _find_cifar10(place: Path) -> Found | None:
    for folder in (place / CIFAR_FOLDER, place):
        if any((folder / batch).is_file() for batch in BATCHES):
            return Found(folder, "batches")
    return None


def _find_svhn(place: Path) -> Found | None:
    for folder in (place, place / "svhn", place / "SVHN"):
        if any((folder / file).is_file() for file in MATS):
            return Found(folder, "mat")
    return None


def _find_utkface(place: Path) -> Found | None:
    for folder in (place / "UTKFace", place / "utkface", place):
        if holds_faces(folder):
            return Found(folder, "files")
    return None


_FINDERS: dict[str, Callable[[Path], Found | None]] = {
    "cifar10": _find_cifar10,
    "svhn": _find_svhn,
    "utkface": _find_utkface,
    "folder": lambda place: None,
}


@functools.lru_cache(maxsize=4)
def _read(name: str, found: Found, stamp: str, strict: bool, options: tuple[tuple[str, object], ...]) -> Collection:
    """Read once for each state of the files; `stamp` stands for that state."""
    if found.kind == "batches":
        return read_cifar10(found.path)
    if found.kind == "mat":
        return read_svhn(found.path)
    if found.kind == "files":
        return read_utkface(found.path, strict=strict)
    if found.kind == "folder":
        return read_folder(found.path, strict=strict, **dict(options))
    collection = packs.read_pack(found.path, name)
    return _chosen(found.path, collection, **dict(options)) if name == "folder" else collection


def _chosen(
    path: Path, collection: Collection, columns: tuple[str, ...] = ("label",), size: int = 32, **_: object
) -> Collection:
    """The columns of a pack that was made from a folder, at the size it was made with; conflicts were settled then."""
    check_named(str(path), columns, tuple(collection.names))
    if collection.images.shape[2:] != (size, size):
        height, width = collection.images.shape[2:]
        raise DataError(f"{path} holds images of {width}x{height} pixels, size={size} was asked for")
    fields = {column: collection.fields[column] for column in columns}
    return replace(collection, fields=fields, names={column: collection.names[column] for column in columns})


def _nowhere(name: str, root: str | Path | None) -> str:
    looked = ", ".join(f"{place}{'' if place.exists() else ' (no such folder)'}" for place in paths.data_folders(root))
    if name == "folder":
        return (
            f"no {TABLE} in {looked}; a folder needs one, with the columns file and label, or a folder of images for "
            "each label"
        )
    files = ", ".join((*PACKS[name], FILES[name]))
    return (
        f"{name} not found in {looked} (looked for {files}); run `linfair data fetch {name}`, or name the folder that "
        "has it in LINFAIR_DATA; `linfair data status` shows what is where"
    )


def _stamp(found: Found) -> str:
    """Changes when a file of the source changes: names, sizes and times."""
    if found.kind == "pack":
        files = [found.path, found.path.with_name(f"{found.path.name}.sha256")]
    elif found.kind == "files":
        files = files_of(found.path)
    elif found.kind == "folder":
        files = [found.path / TABLE, *files_of(found.path)]
    else:
        files = [found.path / file for file in (BATCHES if found.kind == "batches" else MATS)]
    state = hashlib.sha256()
    for file in files:
        if file.exists():
            about = file.stat()
            state.update(f"{file}\0{about.st_size}\0{about.st_mtime_ns}\n".encode())
    return state.hexdigest()


def _md5(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
