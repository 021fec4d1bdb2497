"""Every place where a command writes, with places where nothing can be written."""

import os
from collections.abc import Iterator
from pathlib import Path

from kinds.case import Case
from kinds.commands import RIGHT, options

NAMES = ("--into", "--to", "--write", "--cache")
OUTPUTS = {
    (command, option) for command, option, takes in options() if option in NAMES or (option, takes) == ("--out", "text")
}
OUTPUTS |= {("data fetch", "--root")}
FILES = {("diagnose", "--out"): ".parquet", ("expose", "--out"): ".parquet"}
FILES |= {("data describe", "--write"): ".parquet", ("data pack", "--out"): ".npz"}
FILES |= {("study table", "--to"): ".csv"}
PLACES = {
    "below a file": "IN/file/x",
    "below a device": "/dev/null/x",
    "in the kernel": "/proc/nothing/x",
    "name too long": f"IN/{'n' * 300}",
    "path too long": f"IN/{'folder/' * 700}x",
    "no such user": "~nouser/x",
    "a cloud": "s3://bucket/x",
    "an address": "https://127.0.0.1/x",
    "unknown scheme": "nothing://x",
    "a loop": "IN/loop/x",
    "below a file that is a link": "IN/link/x",
}
THERE = {"device": "IN/null", "full device": "IN/full", "pipe": "IN/pipe", "loop": "IN/loop", "dangling": "IN/dangling"}


def prepare(_: Path, place: Path) -> None:
    """A file, a folder, links to itself, to nothing and to devices, a pipe that nobody reads."""
    (place / "file").write_text("mine")
    (place / "folder").mkdir()
    (place / "loop").symlink_to(place / "loop")
    (place / "link").symlink_to(place / "file")
    (place / "dangling").symlink_to("/proc/nothing/x")
    for device in ("null", "full"):  # by a link, so that no fault can replace the device
        (place / device).symlink_to(f"/dev/{device}")
    os.mkfifo(place / "pipe")


def cases() -> Iterator[Case]:
    """A case for each output of each command and each place."""
    for command, option in sorted(OUTPUTS):
        end = FILES.get((command, option), "")
        places = {name: value + end for name, value in PLACES.items()} | THERE
        places |= {"folder": "IN/folder", "dot": "."} if end else {"file": "IN/file"}
        for name, value in places.items():
            words = (*command.split(), *RIGHT[command], f"{option}={value}")
            said = (value.replace("IN/", "")[:20], option)
            yield Case("output places", f"{command} {option}, {name}", words, said, prepare)
