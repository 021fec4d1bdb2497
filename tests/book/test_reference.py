"""The Reference: generated parts against the parsers, tables and modules they are made from, and the pages that ask."""

import doctest
import hashlib
import importlib
import inspect
import re
import textwrap
from pathlib import Path

import docstrings
import pandas as pd
import pytest
import reference_pages as made
import yaml
from linfair_book import build, notebooks
from linfair_book.tables import RESULTS, place, registry

import linfair
from linfair.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [path for path in (ROOT / "book").rglob("*.md") if "_build" not in path.parts]
FILES = sorted((ROOT / "book/results").glob("*.parquet"))


def test_every_page_of_the_reference_is_in_the_toc():
    found = {str(path.relative_to(ROOT).with_suffix("")) for path in (ROOT / "book/reference").rglob("*.md")}
    assert found | {"book/publish-your-own"} <= set(build.pages(ROOT))


def test_every_generator_is_asked_for_by_a_page_and_pages_ask_for_nothing_else():
    asked = {name for path in PAGES for name in made.LINE.findall(path.read_text())}
    assert asked == set(made.GENERATORS)


def test_asking_for_something_unknown_stops_the_build_and_names_what_there_is():
    with pytest.raises(
        made.ExtensionError, match="page: nothing generates 'paramters'; there are parameters, commands"
    ):
        made.fill("text\n% generated: paramters\n", "page")
    assert made.fill("100 % generated: commands\n", "page") == "100 % generated: commands\n"


def test_every_module_of_the_package_is_on_exactly_one_page():
    """Oracle: the files of the package; the commands have a page of their own."""
    files = [path.relative_to(ROOT).with_suffix("") for path in (ROOT / "linfair").rglob("*.py")]
    names = {".".join(path.parts).removesuffix(".__init__") for path in files if path.name != "__main__"}
    text = "\n".join(made.api(page) for page in (*made.API, "tools"))
    listed = re.findall(r"automodule:: (\S+)", text)
    assert len(listed) == len(set(listed))
    assert set(listed) == {name for name in names - {"linfair"} - made.ELSEWHERE if not name.startswith("linfair.cli")}


@pytest.mark.parametrize("package", ["metrics", "linearizers", "data", "study"])
def test_public_names_are_linked_to_where_they_are_defined(package):
    module = importlib.import_module(f"linfair.{package}")
    text = made.public_names(module.__name__)
    for name in getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")]):
        if inspect.ismodule(thing := getattr(module, name)):
            continue
        link = re.search(rf"~([\w.]+\.{name})`", text)
        if link:
            where, _, last = link[1].rpartition(".")
            assert getattr(importlib.import_module(where), last) is thing
        else:
            assert f"``{name}``" in text and not isinstance(thing, type)


def test_every_command_is_on_the_page_and_every_option_is_described():
    """Oracle: the parameters of the functions behind the commands."""
    text = made.commands()
    found = dict(commands_of(app))
    assert re.findall(r"^## linfair (.+)$", text, re.MULTILINE) == list(found)
    for words, command in found.items():
        section = text.split(f"## linfair {words}\n")[1].split("\n## ")[0]
        for argument in command.assemble_argument_collection():
            if argument.show and argument.parse:
                assert re.search(rf"^\* `{re.escape(argument.name)}\b.*`: [^*\s]", section, re.MULTILINE), argument.name


def commands_of(above):
    """The commands that do something, by what is typed."""
    for words in above:
        if not words.startswith("-"):
            below = list(commands_of(above[words]))
            yield from [(f"{words} {more}", one) for more, one in below] or [(words, above[words])]


def test_every_parameter_stands_there_with_its_default_and_what_is_allowed():
    text = made.parameter_lists()
    for notebook in notebooks.listed().values():
        section = text.split(f"[`{notebook.name}`]")[1].split("\n## ")[0]
        terms = re.findall(r"^`(\w+)`: \S+ = `(.*)`$", section, re.MULTILINE)
        assert terms == [(p.name, str(p.default) or "“”") for p in notebook.parameters]
        assert section.count("Allowed:") == len(notebook.parameters)


def test_results_page_lists_every_committed_table_with_its_checksum():
    """Oracle: `hashlib` on the files, rows by pandas."""
    text = made.results()
    assert FILES
    for path in FILES:
        rows = len(pd.read_parquet(path, columns=[]))
        assert f"<../results/{path.name}>`, {rows:,} rows" in text
        assert f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" in text


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_column_of_a_committed_table_is_explained(path):
    unknown = [name for name in pd.read_parquet(path).columns if not made.meaning(name)]
    assert unknown == [], "explain them in book/columns.toml"


def test_glossary_defines_the_words_that_pages_link_to():
    text = (ROOT / "book/reference/glossary.md").read_text()
    defined = {line.lower() for line in text.split("```{glossary}")[1].splitlines() if line and line[0] not in " `"}
    assert {"relu budget", "site", "unit", "mask", "teacher", "student", "group", "label", "margin"} <= defined
    sources = [path.read_text() for path in PAGES]
    sources += [path.read_text() for path in (ROOT / "notebooks").glob("*.ipynb")]
    linked = {term for text in sources for term in re.findall(r"\{term\}`(?:[^`<]*<)?([^`>]+)>?`", text)}
    assert linked
    assert {term.lower() for term in linked} <= defined


def test_publishing_page_names_settings_that_the_book_tool_knows():
    """Oracle: jupyter-book's own schema of `_config.yml`."""
    from jupyter_book import config

    schema = yaml.safe_load((Path(config.__file__).parent / "config_schema.json").read_text())["properties"]
    page = (ROOT / "book/publish-your-own.md").read_text()
    blocks = [textwrap.dedent(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    blocks = [yaml.safe_load(block) for block in blocks]
    settings = [block for block in blocks if "jobs" not in block]
    assert len(settings) == 2
    for block in settings:
        for name, values in block.items():
            assert name in schema and set(values) <= set(schema[name]["properties"]), name


@pytest.mark.parametrize("module", [made, docstrings], ids=lambda module: module.__name__)
def test_examples_in_the_extensions_hold(module):
    failed, tried = doctest.testmod(module)
    assert tried and not failed


# --- docstrings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["`a` and `b`s, f(`c`)."], ["``a`` and ``b``\\ s, f(``c``)."]),
        (["Read *this* and 2 * 3, |x|, alpha_."], ["Read *this* and 2 \\* 3, \\|x\\|, alpha\\_."]),
        (["* one", "* two"], ["* one", "* two"]),
        (["Args:", "    **options: Some `x`."], ["Args:", "    **options: Some ``x``."]),
        ([">>> 2 * 3  # `x`", "6"], [">>> 2 * 3  # `x`", "6"]),
        (["So", "", "    a_ = |b|", "", "c."], ["So", "", ".. code-block:: text", "", "    a_ = |b|", "", "c."]),
        (["Args:", "    x: One.", "", "    More of it_."], ["Args:", "    x: One.", "", "    More of it\\_."]),
        (["A `long", "literal` ends."], ["A ``long", "literal`` ends."]),
    ],
)
def test_docstrings_become_restructured_text(lines, expected):
    assert docstrings.to_rst(lines) == expected


def test_every_docstring_of_the_package_is_valid_restructured_text():
    """Oracle: docutils, on module docstrings, which napoleon does not touch."""
    from docutils.core import publish_doctree

    checked = 0
    for page in (*made.API, "tools"):
        for name in made.API.get(page, made.others()):
            for module in made.modules_of(f"linfair.{name}"):
                text = importlib.import_module(module).__doc__
                source = "\n".join(docstrings.to_rst(text.strip().split("\n")))
                publish_doctree(source, settings_overrides={"halt_level": 2, "report_level": 5})
                checked += 1
    assert checked > 40 and linfair.__doc__


def test_defaults_that_are_no_python_are_left_out():
    written = "(a: int, b: dict = <factory>, c=<function f at 0>)"
    assert docstrings.readable(None, "class", "x", None, None, written, None) == ("(a: int, b: dict=..., c=...)", None)


def test_the_registry_of_tables_names_every_committed_file_and_nothing_else() -> None:
    assert {path.stem for path in (build.repository() / RESULTS).glob("*.parquet")} == set(registry())
    assert all(known["holds"] and known["made_by"] for known in registry().values())
    with pytest.raises(ValueError, match="no table 'digits'; there are .*digits_mlp_snl"):
        place("digits")
