"""The `linfair` command: its tree of sub-commands, and the one place where an error becomes one line.

Exit codes: 0 done; 1 something failed while running; 2 the request, or a file or folder it names, cannot be used.
"""

import io
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import cache
from importlib.metadata import version
from inspect import BoundArguments

from cyclopts import App, Parameter

from linfair.cli.terminal import HELD, Shown, answer, line
from linfair.memory import keep_freed_memory
from linfair.names import shown

DEBUG = "--debug"
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
    "cost:cost": "Say what one private answer costs, and measure it.",
    "data:app": "Find, describe, fetch and pack data sets.",
    "study:app": "Compute the paper's grids, on a laptop, a GPU or a cluster.",
    "notebook:app": "Rerun the book's notebooks.",
}
for place, text in COMMANDS.items():  # imported when asked for
    module, _, function = place.partition(":")
    app.command(f"linfair.cli.{place}", name=module if function == "app" else function, help=text)


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
