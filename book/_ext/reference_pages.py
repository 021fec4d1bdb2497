"""Sphinx extension: the parts of the book that are made from the package when the book is built.

A page asks for one with a comment line of its own, `% generated: NAME`; before the page is parsed, the line is replaced
by MyST text. So no table of parameters, commands, modules or files can fall behind the code.
"""

import hashlib
import importlib
import inspect
import os
import pkgutil
import platform
import re
import tomllib
from collections.abc import Callable, Iterable
from functools import cache, partial
from importlib.metadata import version

import claims_page
import front_page
import pandas as pd
from linfair_book import notebooks, speed
from linfair_book.build import repository
from linfair_book.tables import RESULTS, registry
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

import linfair
from linfair.cli.main import app

LINE = re.compile(r"^% generated: (.+)$", re.MULTILINE)
VERSIONS = ("torch", "numpy", "pandas", "scikit-learn", "matplotlib", "jupyter-book", "myst-nb")

API = {
    "networks": ("gates", "weights", "masks", "functional"),
    "models": ("models", "ensemble", "checkpoints"),
    "data": ("data",),
    "data-named": ("data.named", "data.official", "data.sources"),
    "data-files": (
        "data.folder",
        "data.images",
        "data.values",
        "data.splits",
        "data.packs",
        "data.download",
        "data.torchvision",
    ),
    "training": ("training", "schedule", "replay"),
    "cost": ("cost", "nonlinear"),
    "metrics": ("metrics",),
    "metrics-curvature": ("metrics.gradients", "metrics.curvature", "metrics.bias", "metrics.distance"),
    "metrics-membership": ("metrics.membership", "metrics.margin"),
    "theory": ("theory",),
    "theory-optimality": (
        "theory.optimality",
        "theory.stationarity",
        "theory.hessian",
        "theory.logit_curvature",
        "theory.pruning",
    ),
    "linearizers": ("linearizers",),
    "linearizers-record": ("linearizers.record", "linearizers.finetuning", "linearizers.registry"),
    "pruners": ("pruners",),
    "mitigation": ("mitigation",),
    "mitigation-choose": ("mitigation.objective", "mitigation.choose", "mitigation.registry"),
    "rules": ("rules",),
    "rules-accounting": ("rules.accounting", "rules.adaptive", "ledger"),
    "inference": ("inference",),
    "study": ("study",),
    "study-grids": ("study.grids", "study.plan"),
    "study-run": ("study.jobs", "study.runner", "study.cluster", "study.compare", "study.tables"),
    "engine": ("engine",),
    "audit": ("audit",),
    "audit-parts": ("audit.linearize", "audit.diagnose", "audit.repair", "audit.expose"),
    "audit-report": ("audit.report", "audit.findings", "audit.figures", "audit.shown"),
    "plots": ("plots",),
}
"""Page -> modules and sub-packages on it, without those of its modules that are named on another page.

What is on none of them is on the page `tools`. A page is at most a dozen screens long.
"""


def table(head: list[str], rows: list[list[str]]) -> str:
    r"""A Markdown table; bars within a cell are escaped.

    >>> print(table(["a", "b"], [["1", "x | y"]]))
    | a | b |
    |---|---|
    | 1 | x \| y |
    """
    lines = [head, ["---"] * len(head), *[[cell.replace("|", "\\|") for cell in row] for row in rows]]
    return "\n".join("|---" * len(head) + "|" if line[0] == "---" else f"| {' | '.join(line)} |" for line in lines)


def definitions(pairs: Iterable[tuple[str, str]]) -> str:
    """A Markdown definition list: reads on a phone where a table of three columns does not.

    >>> print(definitions([("a", "first"), ("b", "second")]))
    a
    : first
    <BLANKLINE>
    b
    : second
    """
    return "\n\n".join(f"{term}\n: {text or 'See above.'}" for term, text in pairs)


# --- parameters ------------------------------------------------------------------------------------------------


def parameter_lists() -> str:
    """A section for each notebook: what it shows, a link, its parameters."""
    parts = []
    for notebook in notebooks.listed(repository() / "notebooks").values():
        link = f"[`{notebook.name}`](../../notebooks/{notebook.name}.ipynb)"
        parts += [f"## {_markdown(notebook.title)}", f"{link}, about {notebook.minutes:g} min on two cores."]
        said = []
        for p in notebook.parameters:
            capped = "".join(f" At most {most} in profile `{profile}`." for profile, most in p.limits.items())
            said.append(
                (
                    f"`{p.name}`: {_markdown(p.type)} = `{str(p.default) or '“”'}`",
                    f"{_markdown(p.description)} Allowed: {p.allowed}.{capped}",
                )
            )
        parts.append(definitions(said))
    return "\n\n".join(parts)


# --- command line ----------------------------------------------------------------------------------------------


@cache
def commands() -> str:
    """A section for each command of `linfair`, as the library of the commands documents it.

    `setup` calls it first: autodoc puts objects of its own in the place of the defaults of functions that it has read.
    """
    sections = re.split(r"^#+ (?=linfair )", app.generate_docs(), flags=re.MULTILINE)[1:]
    return "\n\n".join(f"## {text.strip()}" for text in sections if "```console" in text)


def _markdown(text: str) -> str:
    r"""A line of plain text as Markdown: what would be markup is escaped, except in code.

    >>> print(_markdown("a_b of `a_b`"))
    a\_b of `a_b`
    """
    parts = text.split("`")
    return "`".join(part if i % 2 else re.sub(r"([<>*_\[\]])", r"\\\1", part) for i, part in enumerate(parts))


# --- API -------------------------------------------------------------------------------------------------------


ELSEWHERE = {"linfair.inference.party"}  #: Runs in an environment of its own, where linfair is not installed


def modules_of(name: str) -> list[str]:
    """A module, or a sub-package and the modules in it, by full name; private ones left out."""
    module = importlib.import_module(name)
    below = [info.name for info in pkgutil.iter_modules(getattr(module, "__path__", []), f"{name}.")]
    return [name, *(one for one in below if not one.rpartition(".")[2].startswith("_") and one not in ELSEWHERE)]


def others() -> tuple[str, ...]:
    """What belongs to no page of `API`, without the commands, which have a page of their own."""
    placed = {"cli", *(name for names in API.values() for name in names)}
    found = [info.name for info in pkgutil.iter_modules(linfair.__path__) if not info.name.startswith("_")]
    return tuple(name for name in found if name not in placed)


def api(page: str) -> str:
    """A section for each module of a page: its docstring and what it defines."""
    parts, named = [], {f"linfair.{name}" for names in API.values() for name in names}
    for name in others() if page == "tools" else API[page]:
        for module in modules_of(f"linfair.{name}"):
            level, title = ("##", module) if module == f"linfair.{name}" else ("###", module.rpartition(".")[2])
            if level == "###" and module in named:
                continue
            parts += [f"{level} {title}", f"```{{eval-rst}}\n.. automodule:: {module}\n```"]
            if hasattr(importlib.import_module(module), "__path__"):
                parts.append(public_names(module))
    return "\n\n".join(parts)


def public_names(package: str) -> str:
    """The names that a package offers, linked to where they are defined if they are classes or functions."""
    module = importlib.import_module(package)
    listed = getattr(module, "__all__", vars(module))
    names = [(name, getattr(module, name)) for name in sorted(listed) if not name.startswith("_")]
    shown = [
        f":py:obj:`~{thing.__module__}.{thing.__qualname__}`"
        if (inspect.isclass(thing) or inspect.isfunction(thing)) and thing.__module__.startswith("linfair")
        else f"``{name}``"
        for name, thing in names
        if not inspect.ismodule(thing)
    ]
    return f"```{{eval-rst}}\nFrom ``{package}`` import: {', '.join(shown)}.\n```" if shown else ""


def api_index() -> str:
    """The pages of the API with what is on them."""
    pages = {page: names for page, names in API.items()} | {"tools": others()}
    rows = []
    for page, names in pages.items():
        summary = [inspect.getdoc(importlib.import_module(f"linfair.{name}")).split("\n")[0] for name in names]
        rows += [
            [f"[`linfair.{name}`](api/{page}.md)", _markdown(text)] for name, text in zip(names, summary, strict=True)
        ]
    return table(["module", "what it is"], rows)


# --- results and hardware --------------------------------------------------------------------------------------


def results() -> str:
    """The committed tables: what they hold, a download, rows, checksum, and every column explained."""
    parts, columns = [], []
    for path in sorted((repository() / RESULTS).glob("*.parquet")):
        rows = pd.read_parquet(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        link = f"{{download}}`{path.name} <../results/{path.name}>`"
        known = registry()[path.stem]
        parts.append((f"{link}, {len(rows):,} rows", f"{known['holds']}. Made by `{known['made_by']}`"))
        columns.append((path.name, digest, list(rows.columns)))
    found = [definitions(parts), "## Checksums"]
    found.append("```text\n" + "\n".join(f"{digest}  {name}" for name, digest, _ in columns) + "\n```")
    used = list(dict.fromkeys(column for *_, names in columns for column in names))
    explained = [[f"`{column}`", meaning(column)] for column in used]
    return "\n\n".join([*found, "## Columns", table(["column", "meaning"], explained)])


@cache
def words() -> dict[str, dict[str, str]]:
    """`book/columns.toml`: what columns mean, and what endings of their names add."""
    return tomllib.loads((repository() / "book/columns.toml").read_text(encoding="utf-8"))


def meaning(column: str) -> str:
    """What a column means; of a name with a known ending, in terms of the column without it; empty if nobody said it.

    >>> meaning("risk_low")
    'lower end of the 95 % interval of `risk`'
    """
    known = words()["columns"]
    for ending, more in words()["endings"].items():
        if column not in known and column.endswith(ending) and column.removesuffix(ending) in known:
            return f"{more} `{column.removesuffix(ending)}`"
    return known.get(column, "")


def hardware() -> str:
    """One line on the machine and the versions with which this copy of the book was built."""
    versions = ", ".join(f"{name} {version(name)}" for name in VERSIONS)
    return (
        f"Built on {platform.system()} {platform.machine()}, {os.cpu_count()} cores, no page needs a GPU; "
        f"Python {platform.python_version()}, linfair {version('linfair')}, {versions}."
    )


def declared() -> str:
    """Every notebook with the minutes it is expected to take and where it may run."""
    rows = []
    for notebook in notebooks.listed(repository() / "notebooks").values():
        named = {p.name: p for p in notebook.parameters}
        devices = " or ".join(named["device"].choices) if "device" in named else "cpu"
        profiles = ", ".join(named["profile"].choices) if "profile" in named else ""
        link = f"[{notebook.name}](../../notebooks/{notebook.name}.ipynb)"
        rows.append([link, f"{notebook.minutes:g}", devices, profiles])
    return table(["notebook", "minutes, two cores", "device", "profiles"], rows)


GENERATORS: dict[str, Callable[[], str]] = {
    "parameters": parameter_lists,
    "commands": commands,
    "results": results,
    "hardware": hardware,
    "notebooks": declared,
    "api": api_index,
    "live figure": front_page.figure,
    "paper": front_page.paper,
    "claims": claims_page.page,
    "claims counted": claims_page.summary,
    "claims matrix": claims_page.matrix,
    "meanings": claims_page.meanings,
    "provenance": claims_page.provenance,
    **{f"api {page}": partial(api, page) for page in (*API, "tools")},
    **{f"speed {part}": partial(str, text) for part, text in speed.made(repository()).items()},
}
"""What a page may ask for -> the function that writes it."""


def fill(text: str, where: str) -> str:
    """The source of a page with each `% generated: NAME` replaced; `where` is its name, for the message."""

    def one(found: re.Match) -> str:
        name = found[1].strip()
        if name not in GENERATORS:
            raise ExtensionError(f"{where}: nothing generates {name!r}; there are {', '.join(GENERATORS)}")
        return GENERATORS[name]()

    return LINE.sub(one, text)


def on_read(app: Sphinx, page: str, source: list[str]) -> None:
    """Fill a page before it is parsed."""
    if page.startswith("book/"):
        source[0] = fill(source[0], page)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect it."""
    commands()
    app.connect("source-read", on_read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
