"""The `linfair` command: its tree of sub-commands, what a terminal is shown, and how an error becomes one line.

Exit codes: 0 done; 1 something failed while running; 2 the request, or a file or folder it names, cannot be used.
"""

import io
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack, redirect_stdout
from functools import cache
from importlib.metadata import version
from inspect import BoundArguments

from cyclopts import App, CycloptsError, Parameter

from linfair.memory import keep_freed_memory
from linfair.names import shown

DEBUG = "--debug"
HELD = ExitStack()  #: What the running command holds until it ends
BOOK = ("linfair_book", "papermill", "nbclient", "nbformat")
PARTS = {"ray": "linfair[cluster]", "opacus": "linfair[private]"} | dict.fromkeys(BOOK, "linfair[book]")
PARTS |= dict.fromkeys(("onnx", "onnxscript", "onnxruntime"), "linfair[export]")
READERS = ("safetensors", "safetensors_rust", "pyarrow", "zipfile", "tarfile", "zlib", "_lzma", "_pickle", "struct")
"""Modules whose errors are about a file, not about the code that reads it."""
app = App(
    name="linfair",
    help="Who pays when a ReLU network is linearized for private inference. --debug shows an error's traceback.",
    version=f"linfair {version('linfair')}",
    default_parameter=Parameter(allow_repeating=True, json_list=False, json_dict=False),
)
COMMANDS = {
    "network:networks": "Show the networks and their ReLU units.",
    "network:linearizers": "Show the methods that choose which ReLUs stay, and their options.",
    "network:mitigations": "Show the ways of fine-tuning, plain and mitigated, and their options.",
    "network:pruners": "Show the methods that choose which weights stay, and their options.",
    "train:train": "Train an original network, also privately, and measure every group.",
    "network:linearize": "Linearize a network and measure every group.",
    "network:reduce": "Remove ReLUs or weights of a network and measure every group.",
    "network:diagnose": "Show why groups lose: every diagnostic.",
    "network:mitigate": "Repair a linearized network.",
    "network:expose": "Show who is exposed: membership inference per group.",
    "network:audit": "Write one report on your own model: who pays, why, repair, cost.",
    "inference:export": "Write a network as ONNX, for engines of private inference.",
    "inference:cost": "Say what one private answer costs, and measure it.",
    "data:app": "Find, describe, fetch and pack data sets.",
    "study:app": "Compute the paper's grids, on a laptop, a GPU or a cluster.",
    "notebook:app": "Rerun the book's notebooks.",
}
for place, text in COMMANDS.items():  # imported when asked for
    module, _, function = place.partition(":")
    app.command(f"linfair.cli.{place}", name=module if function == "app" else function, help=text)


def line(text: object, head: int = 450, tail: int = 450) -> str:
    """A text on one line, its middle left out where it is long."""
    text = shown(str(text)).replace("\n", r"\n")
    left = len(text) - head - tail
    return text if left < 60 else f"{text[:head]} ... {left:,} characters left out ... {text[-tail:]}"


class Shown:
    """A stream that gets everything as `shown`, in characters that it has."""

    def __init__(self, stream: io.TextIOBase) -> None:
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


def parse(words: Sequence[str]) -> tuple[Callable[..., None], BoundArguments]:
    """The function that a command means and its arguments, without calling it; a ValueError if there is none."""
    words = [word for word in words if word != DEBUG]
    for before, word in zip(["", *words], words, strict=False):
        name, _, value = word.partition("=") if word.startswith("--") and "=" in word else (before, "", word)
        if "\0" in word or value.strip().lower() in ("", "none", "null"):
            why = "is empty, none or null, or holds a zero byte; give a value, or leave this out"
            raise ValueError(f"{name} {value!r} {why}")
    function, bound, extra = app.parse_args(words, print_error=False, exit_on_error=False)
    bound.arguments |= {name: tuple(words) for name in extra}
    return function, bound


def main(words: Sequence[str] | None = None) -> int:
    """Run the `linfair` command and return the exit code; `words` are what is typed after it."""
    if words is None:
        keep_freed_memory()
        words = sys.argv[1:]
    sys.stdout, sys.stderr = sys.stdout or io.StringIO(), sys.stderr or io.StringIO()  # closed by the caller
    try:
        function, bound = parse(words)
        if not function.__module__.startswith("linfair"):  # help, version
            function(*bound.args, **bound.kwargs)
            return 0 if {"--help", "-h", "--version"} & set(words) else 2  # a command is missing
        with HELD, warnings.catch_warnings(), redirect_stdout(Shown(sys.stdout)):
            warnings.simplefilter("default", UserWarning)  # of damaged files, several original networks: each once
            note = cache(lambda text: print(f"note: {text}", file=sys.stderr))
            warnings.showwarning = lambda message, *_: note(line(message))
            function(*bound.args, **bound.kwargs)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("linfair: interrupted", file=sys.stderr)
        return 130
    except Exception as error:  # what it means is decided in one place; --debug shows where it came from
        code, text = answer(error)
        if DEBUG in words:
            print(shown(traceback.format_exc().rstrip()), file=sys.stderr)
        print(*map(shown, getattr(error, "__notes__", ())), f"linfair: {text}", sep="\n", file=sys.stderr)
        return code
    return 0
