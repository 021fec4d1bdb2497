"""The frame of the report: one HTML page, its style, and the few pieces it is made of.

Colours keep a contrast of at least 4.5 for text in both settings. Whatever is wider than the window scrolls in its own
box, which the keyboard can reach.
"""

from html import escape

import pandas as pd

STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --text: #1f2328; --soft: #57606a; --line: #d0d7de; --box: #f6f8fa;
  --accent: #0072b2; --warn: #9a3412; }
@media (prefers-color-scheme: dark) { :root { --page: #121212; --text: #e6e6e6; --soft: #a8b0b8; --line: #3a3f45;
  --box: #1d1f22; --accent: #58a9d8; --warn: #f0a070; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 1rem/1.55 system-ui, sans-serif; }
main { max-width: 46rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; padding-top: .5rem; border-top: 1px solid var(--line); }
a { color: var(--accent); }
.answer { border-left: 4px solid var(--accent); padding: .1rem 0 .1rem 1rem; font-size: 1.08rem; }
.warning { border-left: 4px solid var(--warn); padding: .4rem 1rem; background: var(--box); }
figure { margin: 1.2rem 0; }
figure svg { display: block; width: 100%; max-width: 34rem; height: auto; margin: 0 auto; color: var(--soft); }
figcaption, .caption { color: var(--soft); font-size: .9rem; text-align: left; padding: .3rem 0; }
.caption { margin: 1.2rem 0 0; }
.scroll { overflow-x: auto; margin: 0 0 1rem; }
.scroll:focus-visible { outline: 2px solid var(--accent); }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; min-width: 100%; }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top;
  overflow-wrap: normal; }
td.long { overflow-wrap: anywhere; min-width: 12rem; }
td:not(.long), th { white-space: nowrap; }
dt { font-weight: 600; margin-top: .9rem; }
dd { margin: 0; }
pre { background: var(--box); padding: .7rem; overflow-x: auto; white-space: pre-wrap; font-size: .85rem; }
@media print {
  :root { --page: #ffffff; --text: #000000; --soft: #444444; --line: #bbbbbb; --box: #f3f3f3; --accent: #0072b2; }
  main { max-width: none; padding: 0; }
  figure, table, dd, .answer { break-inside: avoid; }
  .caption, h2 { break-after: avoid; }
  .scroll { overflow: visible; }
  table { font-size: .7rem; }
}
"""


def page(title: str, body: str) -> str:
    """A whole page.

    Args:
        title: Its title and first heading, plain text.
        body: Sections, from `section`.
    """
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escape(title)}</h1>\n{body}</main>\n</body>\n</html>\n"
    )


def section(name: str, title: str, body: str) -> str:
    """A part of the page under its heading."""
    head = f'<section id="{name}" aria-labelledby="{name}-title">\n<h2 id="{name}-title">{title}</h2>\n'
    return f"{head}{body}\n</section>\n"


def figure(svg: str, caption: str) -> str:
    """A figure with its caption."""
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>\n"


def table(caption: str, rows: pd.DataFrame) -> str:
    """A table with its caption, in a box of its own that scrolls; the first column heads its rows.

    >>> "a &amp; b</th><td>1</td>" in table("x", pd.DataFrame({"k": ["a & b"], "v": [1]}))
    True
    """
    head = "".join(f'<th scope="col">{escape(str(name))}</th>' if name else "<td></td>" for name in rows.columns)
    lines = []
    for first, *rest in rows.itertuples(index=False):
        cells = "".join(_cell(str(value)) for value in rest)
        lines.append(f'<tr><th scope="row">{escape(str(first))}</th>{cells}</tr>')
    label = escape(caption, quote=True)
    return (
        f'<p class="caption">{escape(caption)}</p>'
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}, scrolls"><table aria-label="{label}">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>\n"
    )


def _cell(text: str) -> str:
    return f'<td class="long">{escape(text)}</td>' if len(text) > 40 else f"<td>{escape(text)}</td>"


def disclosure(title: str, items: str) -> str:
    """A list that opens on demand."""
    return f"<details><summary>{escape(title)}</summary><ul>{items}</ul></details>\n"
