"""The page "Reproduced vs paper", made from `book/claims.csv` and the committed evidence when the book is built.

Every claim is a card: the paper's words, a verdict with a sign and a word (colour says nothing that they do not), and
the numbers it rests on. A number opens to its settings, device, versions and seconds. The filter is five radio buttons
and a style sheet (`book/_static/claims.css`); without either, every card is shown.
"""

import re
from collections.abc import Mapping
from html import escape

import pandas as pd

from linfair import claims
from linfair.book import repository
from linfair.claims import VERDICTS, Claim

SIGNS = {"reproduced": "✓", "partly": "◐", "not": "✕", "not run": "○"}
LABELS = {"not": "not reproduced"}  # what a chip says where it is not the verdict itself

ANCHOR = "what-the-claims-page-takes-from-here"  # the section at the end of every notebook that notes numbers

PARTS = {
    "1": "Section 1: the findings in brief",
    "4": "Section 4: theory, and the example in the plane",
    "5": "Section 5: who loses accuracy, and why",
    "6": "Section 6: mitigation",
    "7": "Section 7: discussion",
    "8": "Section 8: conclusions",
    "A": "Appendix A: proofs",
    "B": "Appendix B: linear pieces",
    "C": "Appendix C: further data and networks",
    "D": "Appendix D: mitigation, further",
}
"""Part of the paper -> heading on the page, in the paper's order."""

FIGURES = {"1": "1", "3": "4", "4": "4", "5": "5", "7": "5"}
"""Figures that claims name without a section -> the section that discusses them."""


def part_of(where: str) -> str:
    """The part of the paper that a place belongs to.

    >>> part_of("Sec. 5.1, Fig. 6"), part_of("Theorem 4.4"), part_of("App. D.2, Fig. 15"), part_of("Fig. 3")
    ('5', '4', 'D', '4')

    Raises:
        ValueError: If it names neither a section, a statement, an appendix nor a known figure.
    """
    if found := re.search(r"(?:Sec\.|Prop\.|Theorem) (\d)|App\. ([A-D])", where):
        return found[1] or found[2]
    figure = re.match(r"Fig\. (\d+)", where)
    if figure is None or figure[1] not in FIGURES:
        raise ValueError(f"{where!r} names no part of the paper; begin it with Sec., Prop., Theorem, App. or Fig.")
    return FIGURES[figure[1]]


def chip(verdict: str, count: int | None = None) -> str:
    """A verdict as a sign and a word, with a count if there is one.

    >>> chip("not", 4)
    '<span class="verdict" data-verdict="not"><span aria-hidden="true">✕</span> not reproduced 4</span>'
    """
    words = f"{LABELS.get(verdict, verdict)}{'' if count is None else f' {count}'}"
    sign = f'<span aria-hidden="true">{SIGNS[verdict]}</span>'
    return f'<span class="verdict" data-verdict="{verdict}">{sign} {words}</span>'


def number(key: str, row: Mapping[str, object]) -> str:
    """One number of the evidence: what it is, its value, and behind it where it comes from."""
    page, _, name = key.partition("#")
    name = re.sub(r"\bat (\d+)\b", r"at \1 %", name.replace("-", " "))
    link = f'<a href="../notebooks/{page}.html#{ANCHOR}">{page}</a>'
    facts = {
        "from": f"{link}, as <code>{escape(key)}</code>",
        "settings": escape(str(row["settings"])),
        "on": f"{escape(str(row['device']))}, torch {row['torch']}, linfair {row['linfair']}, {row['seconds']:.0f} s",
    }
    listed = "".join(f"<dt>{term}</dt><dd>{text}</dd>" for term, text in facts.items())
    value = escape(claims.shown(row))
    return f"<li><details><summary>{escape(name)}: <b>{value}</b></summary><dl>{listed}</dl></details></li>"


def card(claim: Claim, evidence: pd.DataFrame) -> str:
    """One claim: where, verdict, the paper's words, on what it turns, our numbers, what they were measured on."""
    numbers = "".join(number(key, evidence.loc[key]) for key in claim.evidence)
    pages = sorted({key.partition("#")[0] for key in claim.evidence})
    links = ", ".join(f'<a href="../notebooks/{page}.html">{page}</a>' for page in pages)
    note = f"<p>Note: {escape(claim.note)}.</p>" if claim.note else ""
    measured = f"<p>Measured on: {escape(claim.on)}. Notebook: {links}.</p>" if claim.on else ""
    ours = f'<ul class="numbers">{numbers}</ul>' if numbers else ""
    return (
        f'<li class="claim" id="claim-{escape(claim.id)}" data-verdict="{claim.verdict}">'
        f'<div class="where"><b>{escape(claim.where)}</b> {chip(claim.verdict)}</div>'
        f'<div class="said"><blockquote>{escape(claim.claim)}</blockquote>{note}{ours}{measured}</div></li>'
    )


def raw(html: str) -> str:
    """HTML as MyST passes it through."""
    return f"```{{raw}} html\n{html}\n```"


def filters(counts: Mapping[str, int]) -> str:
    """Radio buttons, one for each verdict with its count, which the style sheet reads."""
    choices = [
        f'<label><input type="radio" name="verdict" id="verdict-all" checked> all {sum(counts.values())}</label>'
    ]
    for verdict, count in counts.items():
        name = verdict.replace(" ", "-")
        choices.append(f'<label><input type="radio" name="verdict" id="verdict-{name}"> {chip(verdict, count)}</label>')
    return raw(f'<fieldset class="verdicts"><legend>Show claims</legend>{"".join(choices)}</fieldset>')


def meanings() -> str:
    """The verdicts and what each says, as a definition list."""
    said = [
        f"{SIGNS[verdict]} {LABELS.get(verdict, verdict)}\n: {meaning[0].upper()}{meaning[1:]}."
        for verdict, meaning in VERDICTS.items()
    ]
    return "\n\n".join(said)


def read() -> tuple[list[Claim], pd.DataFrame]:
    """The committed claims and their evidence."""
    root = repository()
    return claims.load(root / claims.CLAIMS), claims.load_evidence(root / claims.EVIDENCE)


def page() -> str:
    """Everything below the page's introduction: verdicts, filter, and a section for each part of the paper."""
    table, evidence = read()
    parts = [meanings(), filters(claims.resolve(table, evidence))]
    for key, title in PARTS.items():
        cards = [card(claim, evidence) for claim in table if part_of(claim.where) == key]
        if cards:
            parts += [f"## {title}", raw(f'<ul class="claims">{"".join(cards)}</ul>')]
    return "\n\n".join(parts)


def summary() -> str:
    """The counts in one sentence, for the first page."""
    table, evidence = read()
    counts = claims.resolve(table, evidence)
    said = ", ".join(f"{count} {LABELS.get(verdict, verdict)}" for verdict, count in counts.items())
    return f"Of {len(table)} measurable claims of the paper: {said}."
