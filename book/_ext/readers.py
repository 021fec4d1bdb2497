"""Sphinx extension: what every page owes its readers and Sphinx, pandas and the theme leave out.

* Headers of tables say what they head (`scope`), minus signs in cells are minus signs, and no cell says "-0.0".
* Lines of shell commands break between words alone.
* A page describes itself to search machines and where a link to it is shared: by its first paragraph.
* Buttons that lead to the repository (source, edit, issue, Binder, Colab) are there once `_config.yml` has its address.
"""

import re
from collections.abc import Callable
from html import escape

from docutils.nodes import document, paragraph
from sphinx.application import Sphinx
from sphinx.config import Config

from linfair.audit.shown import minus

LONGEST = 200  # characters of a description


def tables(html: str) -> str:
    """The page with the headers of its tables scoped and the minus signs of its cells written as such.

    >>> tables("<thead><th>drop</th></thead><tbody><th>all</th><td>-1.5 [-0.0, 2-12]</td></tbody>")
    '<thead><th scope="col">drop</th></thead><tbody><th scope="row">all</th><td>\u22121.5 [0.0, 2-12]</td></tbody>'
    """

    def scoped(part: re.Match[str]) -> str:
        scope = "col" if part[1] == "thead" else "row"
        return re.sub(r"<th(?=[ >])(?![^>]*\bscope=)", f'<th scope="{scope}"', part[0])

    def cell(part: re.Match[str]) -> str:
        return part[0] if "<code" in part[0] else re.sub(r">[^<]+", lambda text: minus(text[0]), part[0])

    html = re.sub(r"<(thead|tbody)\b.*?</\1>", scoped, html, flags=re.DOTALL)
    return re.sub(r"<td\b.*?</td>", cell, html, flags=re.DOTALL)


def commands(html: str) -> str:
    """The page with the words of its shell commands kept whole: a line breaks at a space, not behind a hyphen.

    >>> commands('<div class="highlight-bash"><pre>run --out-of <span>a-b</span> c</pre></div> <pre>a-b</pre>')
    '<div class="highlight-bash"><pre>run <span class="word">--out-of</span> <span><span class="word">a-b</span></span>\
 c</pre></div> <pre>a-b</pre>'
    """

    def whole(block: re.Match[str]) -> str:
        word = r"(?<![^\s>])([^\s<>&]{0,30}-[^\s<>&]{1,30})(?![^\s<])"
        kept = re.sub(r"(?<=>)[^<]+", lambda text: re.sub(word, r'<span class="word">\1</span>', text[0]), block[2])
        return block[1] + kept

    return re.sub(r'(<div class="highlight-(?:bash|console|shell)\b[^>]*>)(.*?</pre>)', whole, html, flags=re.DOTALL)


def description(doctree: document | None) -> str:
    """The first paragraph of a page, cut after a sentence or a word if it is long."""
    text = next((node.astext() for node in doctree.findall(paragraph)), "") if doctree else ""
    text = " ".join(text.split())
    if len(text) <= LONGEST:
        return text
    cut = text[:LONGEST]
    return cut[: cut.rfind(". ") + 1] if ". " in cut else f"{cut.rpartition(' ')[0]} ..."


def finish(app: Sphinx, page: str, template: str, context: dict[str, object], doctree: document | None) -> None:
    """Mend the tables of a page and add what it says of itself."""
    if "body" in context:
        context["body"] = commands(tables(str(context["body"])))
    static: Callable[[str, int], str] = context["pathto"]
    base = app.config.html_baseurl.rstrip("/")
    card = f"{base}/_static/card.png" if base else static("_static/card.png", 1)
    title = re.sub(r"<[^>]+>", "", str(context.get("title") or app.config.project))
    said = {"og:title": title, "og:description": description(doctree), "og:type": "article", "og:image": card}
    said["og:site_name"] = app.config.project
    lines = [f'<meta property="{name}" content="{escape(text)}">' for name, text in said.items() if text]
    lines += [f'<meta name="description" content="{escape(said["og:description"])}">'] if doctree else []
    lines += ['<meta name="twitter:card" content="summary_large_image">']
    context["metatags"] = str(context.get("metatags", "")) + "\n".join(lines)


def switch_buttons_on(app: Sphinx, config: Config) -> None:
    """Show what leads to the repository if its address is known, and nothing that would lead nowhere."""
    options = config.html_theme_options
    known = bool(options.get("repository_url"))
    options |= {f"use_{name}_button": known for name in ("repository", "edit_page", "issues")}
    if not known:
        options["launch_buttons"] = {}


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect both."""
    app.connect("config-inited", switch_buttons_on, priority=100)
    app.connect("html-page-context", finish, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
