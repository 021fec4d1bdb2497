"""What a terminal is shown: control characters as escapes, long lines cut, an error as one line."""

from contextlib import ExitStack
from typing import TextIO

from cyclopts import CycloptsError

from linfair.names import shown

HELD = ExitStack()  #: What the running command holds until it ends
BOOK = ("linfair_book", "papermill", "nbclient", "nbformat")
PARTS = {"ray": "linfair[cluster]", "opacus": "linfair[private]"} | dict.fromkeys(BOOK, "linfair[book]")
PARTS |= dict.fromkeys(("onnx", "onnxscript", "onnxruntime"), "linfair[export]")
READERS = ("safetensors", "safetensors_rust", "pyarrow", "zipfile", "tarfile", "zlib", "_lzma", "_pickle", "struct")
"""Modules whose errors are about a file, not about the code that reads it."""


def line(text: object, head: int = 450, tail: int = 450) -> str:
    """A text on one line, its middle left out where it is long."""
    text = shown(str(text)).replace("\n", r"\n")
    left = len(text) - head - tail
    return text if left < 60 else f"{text[:head]} ... {left:,} characters left out ... {text[-tail:]}"


class Shown:
    """A stream that gets everything as `shown`, in characters that it has."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write text."""
        code = self.stream.encoding or "utf-8"
        return self.stream.write(shown(text).encode(code, "backslashreplace").decode(code))


def answer(error: Exception) -> tuple[int, str]:
    """The exit code of an error and the line that says it: 2 is the request's or a file's, 1 is not."""
    text = str(error)
    if isinstance(error, CycloptsError | ValueError):  # ParameterError, GateError, CheckpointError, ...
        return 2, line(text)
    if isinstance(error, OSError):
        place = "" if error.filename is None else f"{error.filename}: "
        advice = f"{place}{error.strerror}; check this path, or name another one"
        return 2, line(advice if place else error.strerror or text)
    if isinstance(error, ImportError) and not (error.name or "").startswith("linfair."):
        part = error.name or getattr(error.__cause__, "name", None) or ""
        part = PARTS.get(part, part)
        return 2, line(f'a part that is not installed is needed ({text}): pip install "{part}"')
    if isinstance(error, RecursionError):
        return 2, "what was given is nested too deeply to be read; give a simpler value or file"
    if type(error).__module__.partition(".")[0] in READERS:
        return 2, line(f"a file is damaged or of another kind ({text}); give another one")
    if isinstance(error, MemoryError) or "out of memory" in text or "allocate memory" in text:
        return 1, line(f"there is not enough memory for this ({text}); ask for less, a smaller width or fewer images")
    if isinstance(error, RuntimeError) and type(error).__module__.startswith("linfair"):  # TrainingDiverged, ...
        return 1, "\n".join(map(line, text.split("\n")))
    how = "run it again with --debug for the traceback, and report that"
    return 1, line(f"a fault of linfair itself, {type(error).__name__}: {text}; {how}")
