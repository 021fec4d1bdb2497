"""Sphinx extension: the package's docstrings as reference pages.

Docstrings are written to be read in an editor: one pair of backticks for code, formulas indented. Sphinx reads
reStructuredText, so before it does, code becomes a literal, an indented formula a block of its own, and characters that
would mean markup are escaped. Types in signatures are linked where the book documents them, by their last name.
"""

import re
from collections.abc import Iterator

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

SECTION = re.compile(r"^(Args|Attributes|Example|Examples|Note|Notes|Raises|Returns|Warning|Yields):$")
STARRED = re.compile(r"^\s+\*{1,2}\w+( \(.*\))?:")
CODE = re.compile(r"(`+)(.+?)\1", re.DOTALL)
EMPHASIS = re.compile(r"(?<![\w*\\])(\*[A-Za-z][\w ,'-]*\*)(?![\w*])")
DEFAULT = re.compile(r" ?= ?<[^<>]+>")
MARKUP = re.compile(r"(?<!^)\*|\*(?! )|\||(?<=\w)_(?!\w)", re.MULTILINE)


def to_rst(lines: list[str]) -> list[str]:
    r"""A docstring's lines as reStructuredText that napoleon can read.

    >>> to_rst(["Keep `r` of them:", "", "    x = a * b", "", "so a* is left."])
    ['Keep ``r`` of them:', '', '.. code-block:: text', '', '    x = a * b', '', 'so a\\* is left.']
    """
    return [line for block in _blocks(lines) for line in block]


def _blocks(lines: list[str]) -> Iterator[list[str]]:
    """Paragraphs, escaped; formulas and doctests, as they are."""
    last = ""  # the last line that is not blank
    formula = doctest = False
    prose: list[str] = []
    for line in lines:
        indented = line.startswith("    ")
        doctest = bool(line.strip()) and (doctest or line.lstrip().startswith(">>> "))
        starts = indented and not doctest and not last.startswith(" ") and not SECTION.match(last) and not prose[-1:]
        formula = not line.strip() and formula or indented and (formula or (starts and bool(last)))
        if formula or doctest or not line.strip():
            if prose:
                yield _escaped(prose)
                prose = []
            if formula and starts and line.strip():
                yield [".. code-block:: text", ""]
            yield [line]
        else:
            prose.append(line)
        last = line if line.strip() else last
    yield _escaped(prose)


def _escaped(prose: list[str]) -> list[str]:
    """One paragraph: code as literals, everything else without markup."""
    parts, position = [], 0
    text = "\n".join(prose)
    for found in CODE.finditer(text):
        parts += [_plain(text[position : found.start()]), _literal(text, found)]
        position = found.end()
    return "".join([*parts, _plain(text[position:])]).split("\n") if prose else []


def _literal(text: str, found: re.Match) -> str:
    before, after = text[: found.start()][-1:], text[found.end() :][:1]
    left = "" if not before or before.isspace() or before in "'\"([{<-/:" else "\\ "
    right = "" if not after or after.isspace() or after in "'\")]}>-/\\:.,;!?" else "\\ "
    return f"{left}``{found[2]}``{right}"


def _plain(text: str) -> str:
    """Escape what would be markup, except `*emphasis*` and the stars of `**options:` in a list of arguments."""
    done = []
    for line in text.split("\n"):
        parts = [line] if STARRED.match(line) else EMPHASIS.split(line)
        for i, part in enumerate(parts):
            if i % 2 == 0 and not STARRED.match(part):
                parts[i] = MARKUP.sub(r"\\\g<0>", part)
        done.append("".join(parts))
    return "\n".join(done)


def rewrite(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Put the rewritten lines in place of a docstring's, before napoleon sees them."""
    lines[:] = to_rst(lines)


def readable(
    app: Sphinx, what: str, name: str, thing: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """A signature without defaults that are no Python, such as `<factory>`; with one of them it could not be parsed."""
    return (DEFAULT.sub("=...", signature) if signature else signature), returns


def by_last_name(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Node) -> nodes.reference | None:
    """Link a name that Sphinx did not find to the one documented object of that last name, if there is just one."""
    if node.get("refdomain") != "py":
        return None
    domain = env.get_domain("py")
    last = node["reftarget"].rpartition(".")[2]
    names = [
        name
        for name, entry in domain.objects.items()
        if name.rpartition(".")[2] == last and entry.objtype in ("class", "exception", "function")
    ]
    if len(names) != 1:
        return None
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", names[0], node, content)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect them; napoleon listens at priority 500."""
    app.setup_extension("sphinx.ext.autodoc")
    app.setup_extension("sphinx.ext.napoleon")
    app.connect("autodoc-process-docstring", rewrite, priority=400)
    app.connect("autodoc-process-signature", readable)
    app.connect("missing-reference", by_last_name)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
