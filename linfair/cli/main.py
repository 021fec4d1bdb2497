"""The `linfair` command. Each sub-command is one entry of `COMMANDS`: its words, its options, one function.

Exit codes: 0 done; 1 something failed while running; 2 the request itself is wrong, and nothing was run.
"""

import argparse
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, NoReturn

from linfair_book import notebooks, parameters
from linfair_book.notebooks import NotebookError
from linfair_book.parameters import ParameterError, closest

from linfair.cli import audit, data, diagnose, methods, mitigate, study
from linfair.linearizers import BudgetOutOfReach
from linfair.study.cell import OtherTeacher
from linfair.study.damage import DamagedFile
from linfair.study.jobs import StudyFailed
from linfair.training import TrainingDiverged


@dataclass(frozen=True)
class Command:
    """One sub-command.

    Attributes:
        words: What is typed after `linfair`, for example `notebook run`.
        help: One line on what it does.
        run: The function that does it, given the parsed options.
        options: Adds its options to a parser.
    """

    words: str
    help: str
    run: Callable[[argparse.Namespace], None]
    options: Callable[[argparse.ArgumentParser], None]


def notebook_list(options: argparse.Namespace) -> None:
    """Print every notebook with its parameters, as text or JSON."""
    if options.json:
        print(json.dumps([_as_json(notebook) for notebook in parameters.NOTEBOOKS.values()], indent=2))
        return
    for notebook in parameters.NOTEBOOKS.values():
        print(f"{notebook.name}  {notebook.title}  (about {notebook.minutes:g} min)")
        for p in notebook.parameters:
            print(f"    {p.name}: {p.type} = {_plain(p.default)}  [{p.allowed}]")
            print(f"        {p.description}")
        print()
    print("Run one with: linfair notebook run NAME -p name=value -p name=value")


def _list_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def notebook_run(options: argparse.Namespace) -> None:
    """Check the parameters, run the notebook, print where the result is."""
    spec = parameters.find(options.name)
    values = _assignments(options.parameters, spec)
    if options.profile is not None:
        values["profile"] = options.profile
    settings = spec.check(values)
    notebooks.source(spec.name, options.notebooks)
    shown = ", ".join(f"{name}={_plain(value)}" for name, value in settings.items())
    print(f"Running {spec.name} with {shown}", file=sys.stderr)
    print(notebooks.run(spec.name, values, out=options.out, notebooks=options.notebooks))


def _run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the notebook, for example 01_toy_boundary")
    parser.add_argument(
        "-p",
        dest="parameters",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="set a parameter (repeat for more); lists as 0.5,0.2",
    )
    parser.add_argument("--profile", help="short for -p profile=...")
    parser.add_argument("--out", metavar="DIR", help=f"output folder (default: {notebooks.OUTPUT} here)")
    parser.add_argument("--notebooks", metavar="DIR", help="where the notebooks are (default: the repository's)")


COMMANDS = (
    Command("notebook list", "show the notebooks and their parameters", notebook_list, _list_options),
    Command("notebook run", "run a notebook with other parameters", notebook_run, _run_options),
    Command("networks", "show the networks and their ReLU units", methods.networks, methods.no_options),
    Command("linearizers", "show the methods and their options", methods.linearizers, methods.no_options),
    Command("linearize", "linearize a network and measure every group", methods.linearize, methods.linearize_options),
    Command("diagnose", "why groups lose: every diagnostic", diagnose.diagnose, diagnose.diagnose_options),
    Command("mitigate", "repair a linearized network", mitigate.mitigate, mitigate.mitigate_options),
    Command("audit", "one report on your own model: who pays, why, repair, cost", audit.audit, audit.audit_options),
    Command("data status", "show which data are found where, and their groups", data.status, data.status_options),
    Command("data describe", "show a data set's groups and what is wrong", data.describe, data.describe_options),
    Command("data fetch", "download a data set, or say how to get it", data.fetch_data, data.fetch_options),
    Command("data pack", "write a source as one file with a checksum", data.pack_data, data.pack_options),
    Command("study list", "show the figures that are grids", study.list_figures, study.list_options),
    Command("study show", "show a figure's cells and arms", study.show, study.show_options),
    Command("study status", "show what is computed of every figure", study.show_status, study.status_options),
    Command("study run", "compute what is missing of a figure", study.run, study.run_options),
    Command("study merge", "put results into a few files", study.merge_results, study.merge_options),
    Command("study table", "show a figure's numbers", study.show_table, study.table_options),
    Command("study compare", "say whether two results are the same", study.compare_results, study.compare_options),
)
TOPICS = {
    "notebook": "rerun the book's notebooks",
    "data": "find, describe, fetch and pack data sets",
    "study": "compute the paper's grids, on a laptop, a GPU or a cluster",
}


class Parser(argparse.ArgumentParser):
    """A parser that takes options by their full names, and names the closest one to a misspelt one."""

    def __init__(self, *positional: object, **options: object) -> None:
        super().__init__(*positional, **{"allow_abbrev": False} | options)

    def error(self, message: str) -> NoReturn:
        """Print usage and message, exit with 2."""
        for given in re.findall(r"invalid choice: '([^']+)'|(--[\w-]+)", message):
            word = given[0] or given[1]
            known = self._option_string_actions if word.startswith("--") else self._choices()
            near = closest(word, known)
            if near and word not in known:
                message += f"; did you mean {near}?"
                break
        super().error(message)

    def _choices(self) -> list[str]:
        return [str(choice) for action in self._actions for choice in action.choices or ()]


def build_parser() -> Parser:
    """The command line's parser, made from `COMMANDS`."""
    parser = Parser(prog="linfair", description="Who pays when a ReLU network is linearized for private inference.")
    parser.add_argument("--version", action="version", version=f"linfair {version('linfair')}")
    branches = {"": parser.add_subparsers(title="commands", metavar="COMMAND", required=True)}
    for command in COMMANDS:
        topic, _, word = command.words.rpartition(" ")
        if topic not in branches:
            branch = branches[""].add_parser(topic, help=TOPICS[topic], description=TOPICS[topic])
            branches[topic] = branch.add_subparsers(title="commands", metavar="COMMAND", required=True)
        leaf = branches[topic].add_parser(word, help=command.help, description=command.help)
        command.options(leaf)
        leaf.set_defaults(run=command.run, leaf=leaf)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the `linfair` command.

    Args:
        arguments: What is typed after `linfair`; the process's own by default.

    Returns:
        The exit code.

    Raises:
        SystemExit: From argparse, with code 2 for an unknown command or option, 0 for --help and --version.
    """
    options, unknown = build_parser().parse_known_args(arguments)
    if unknown:
        options.leaf.error(f"unrecognized arguments: {' '.join(unknown)}")
    options.typed = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with _one_line_each():
            options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except ValueError as error:  # what was asked for is wrong: ParameterError, GateError, CheckpointError, ...
        print(f"linfair: {error}", file=sys.stderr)
        return 2
    except (NotebookError, BudgetOutOfReach, StudyFailed, TrainingDiverged) as error:
        print(f"linfair: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("linfair: interrupted", file=sys.stderr)
        return 130
    return 0


@contextmanager
def _one_line_each() -> Iterator[None]:
    """Print what is said of damaged files and of several original networks as plain lines, each once."""
    said: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("always", DamagedFile)
        warnings.simplefilter("always", OtherTeacher)
        show = warnings.showwarning

        def plainly(message: Warning | str, category: type[Warning], *where: Any) -> None:
            if not issubclass(category, DamagedFile | OtherTeacher):
                show(message, category, *where)
            elif str(message) not in said:
                said.add(str(message))
                print(f"note: {message}", file=sys.stderr)

        warnings.showwarning = plainly
        yield


def _assignments(texts: Sequence[str], notebook: parameters.Notebook) -> dict[str, Any]:
    """Read `name=value` pairs into typed values; a name given twice is an error."""
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals:
            raise ParameterError(f"-p {text} sets nothing: write -p {name}=VALUE.")
        if name in values:
            raise ParameterError(f"-p {name} is given more than once.")
        values[name] = notebook[name].parse(value.strip())
    return values


def _plain(value: Any) -> str:
    return ",".join(f"{entry:g}" for entry in value) if isinstance(value, list) else str(value)


def _as_json(notebook: parameters.Notebook) -> dict[str, Any]:
    return {
        "name": notebook.name,
        "title": notebook.title,
        "minutes": notebook.minutes,
        "parameters": [asdict(p) | {"allowed": p.allowed} for p in notebook.parameters],
    }
