"""The page "Reproduced vs paper", made from claims, rules, committed rows and evidence when the book is built.

Every claim is a card: the paper's words, agreement and setting in words (colour says nothing that they do not), and for
each set of rows the table of checks that it was judged by, with where the rows come from. The filter is radio buttons
and a style sheet (`book/_static/claims.css`); without either, every card is shown.
"""

import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from html import escape

import pandas as pd
from linfair_book import claims, parameters
from linfair_book.build import NOTED, repository
from linfair_book.claims import Claim
from linfair_book.judging.judge import AGREEMENT, Judged, Verdict
from row_names import in_words, name

from linfair.audit.shown import minus

SIGNS = {"yes": "✓", "mixed": "◐", "no": "✕", "inconclusive": "?", "not run": "○"}
SETTING = {"paper's": "the paper's setting", "thin": "thin", "stand-in": "stand-in"}
"""Settings as a chip writes them."""

PARTS = {
    "linearization": {
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
    },
    "pruning": {
        "1": "Section 1: the findings in brief",
        "2": "Section 2: what fairness means",
        "3": "Section 3: a bound on the excessive loss",
        "4": "Section 4: gradient norms",
        "5": "Section 5: Hessians, and the distance to the boundary",
        "6": "Section 6: mitigation",
        "7": "Section 7: discussion",
        "B": "Appendix B: settings",
        "C": "Appendix C: further experiments",
    },
    "privacy": {"abstract": "Abstract", "summary": "A third party's summary of the text, which was not at hand"},
}
"""Paper -> part of it -> heading on the page, in the paper's order."""

FIGURES = {"1": "1", "3": "4", "4": "4", "5": "5", "7": "5"}
"""Figures of the linearization paper that claims name without a section -> the section that discusses them."""


def part_of(where: str) -> str:
    """The part of the paper that a place belongs to.

    >>> part_of("Sec. 5.1, Fig. 6"), part_of("Theorem 4.4"), part_of("App. D.2, Fig. 15"), part_of("Abstract")
    ('5', '4', 'D', 'abstract')
    """
    if found := re.search(r"(?:Sec\.|Prop\.|Theorem) (\d)|App\. ([A-D])", where):
        return found[1] or found[2]
    if where in ("Abstract", "Summary"):
        return where.lower()
    figure = re.match(r"Fig\. (\d+)", where)
    if figure is None or figure[1] not in FIGURES:
        raise ValueError(f"{where!r} names no part of the paper; begin it with Sec., Prop., Theorem, App. or Fig.")
    return FIGURES[figure[1]]


def chip(agreement: str, count: int | None = None) -> str:
    """An agreement as a sign and a word, with a count if there is one.

    >>> chip("no", 4)
    '<span class="verdict" data-verdict="no"><span aria-hidden="true">✕</span> no 4</span>'
    """
    words = agreement if count is None else f"{agreement} {count}"
    sign = f'<span aria-hidden="true">{SIGNS[agreement]}</span>'
    return f'<span class="verdict" data-verdict="{agreement}">{sign} {words}</span>'


def _facts(facts: Mapping[str, str]) -> str:
    return f"<dl>{''.join(f'<dt>{term}</dt><dd>{text}</dd>' for term, text in facts.items() if text)}</dl>"


def number(key: str, says: str, row: Mapping[str, object]) -> str:
    """One number of the evidence: what it is, its value, and behind it where it comes from."""
    facts = {
        "from": linked([key.partition("#")[0]]),
        "settings": escape(str(row["settings"])),
        "on": f"{escape(str(row['device']))}, torch {row['torch']}, linfair {row['linfair']}, {row['seconds']:.0f} s",
    }
    value = escape(minus(claims.shown(row)))
    return f"<li><details><summary>{escape(says)}: <b>{value}</b></summary>{_facts(facts)}</details></li>"


def linked(pages: Sequence[str]) -> str:
    """Links to notebooks by their titles, each once."""
    return ", ".join(f'<a href="../notebooks/{page}.html">{chapter(page)}</a>' for page in dict.fromkeys(pages))


def _shown(value: float, low: float, high: float) -> str:
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    interval = "" if math.isnan(low) else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{value:.{digits}f}{interval}"


def _p(value: float) -> str:
    return "" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def checks(cells: pd.DataFrame) -> str:
    """The table of checks of one set of rows, a heading for each check, without columns that say nothing.

    Its p is that of the claimed side, or that of a contradiction.
    """
    by = [cells[column] for column in ("says", "threshold", "scale")]
    arms = cells[["arm", "against"]].agg(lambda pair: " against ".join(map(in_words, filter(None, pair))), axis=1)
    wrong = cells["outcome"] == "does not"
    several = arms.groupby(by).transform("nunique") > 1
    columns = {
        "compared": arms.where(several, ""),
        "group": cells["group"].map(in_words),
        "kept, or at": cells["budget"].map(in_words),
        "outcome": cells["outcome"],
        "estimate, plain interval": [
            row.count or _shown(row.estimate, row.low, row.high) for row in cells.itertuples()
        ],
        "corrected interval": [
            _shown(row.estimate, row.corrected_low, row.corrected_high).partition(" ")[2] for row in cells.itertuples()
        ],
        "p": cells["p"].mask(wrong, cells["p_no"]).map(_p),
        "Holm": cells["holm"].mask(wrong, cells["holm_no"]).map(_p),
        "seeds" if cells["arm"].any() else "n": cells["n"].astype(str),
    }
    shown = pd.DataFrame(columns, index=cells.index)
    shown = shown.loc[:, (shown != "").any()]
    head, body = "".join(f'<th scope="col">{column}</th>' for column in shown), ""
    for (says, threshold, scale), part in shown.groupby(by, sort=False):
        compared = "" if several[part.index[0]] else arms[part.index[0]]
        about = ", ".join(filter(None, (in_words(scale), compared)))
        said = escape(f"{says}: {minus(threshold)}" + (f" ({about})" if about else ""))
        body += f'<tbody><tr><th colspan="{shown.shape[1]}" scope="rowgroup"><span>{said}</span></th></tr>'
        for line in part.itertuples(index=False):
            body += f"<tr>{''.join(f'<td>{escape(value)}</td>' for value in line)}</tr>"
        body += "</tbody>"
    return f'<div class="checks" tabindex="0"><table><thead><tr>{head}</tr></thead>{body}</table></div>'


def rows(judged: Judged) -> str:
    """One set of rows under a rule: how it comes out, the table of checks, and where the rows come from."""
    found = judged.cells["outcome"].value_counts()
    counts = ", ".join(f"{word}: {found[word]}" for word in ("holds", "does not", "cannot tell") if word in found)
    source = judged.source
    facts = {
        "rows": f"<code>{escape(str(source['files']))}</code>, seeds {source['seeds']}",
        "on": ", ".join(
            escape(text)
            for text in (
                source["device"],
                source["precision"],
                f"torch {source['torch']}",
                f"linfair {source['linfair']}",
                f"code {source['code']}" if source["code"] else "",
                f"{source['hours']:.1f} hours",
            )
            if text
        ),
        "rule": "these rows were there before the rule" if judged.seen else "the rule was there before these rows",
    }
    seeds = f"{judged.seeds} seed{'s' if judged.seeds > 1 else ''}"
    return (
        f"<li><details><summary>{escape(name(judged))}, {seeds}: <b>{judged.agreement}</b> "
        f"({counts})</summary>{_facts(facts)}{checks(judged.cells)}</details></li>"
    )


def adverse(verdict: Verdict) -> str:
    """Numbers of the deciding rows that speak against the claim: their whole plain interval is on the other side."""
    said = []
    for judged in verdict.deciding:
        for row in judged.cells[judged.cells["adverse"]].drop_duplicates(["group", "budget", "says"]).itertuples():
            where = ", ".join(filter(None, map(in_words, (row.group, row.budget))))
            said.append(f"{row.says}: {where}: {minus(_shown(row.estimate, row.low, row.high))}")
    return f"<p>Against it: {escape('; '.join(said))}.</p>" if said and verdict.agreement != "no" else ""


def card(claim: Claim, verdict: Verdict, evidence: pd.DataFrame) -> str:
    """One claim: where, agreement and setting, the paper's words, what a reader must know, how it was judged."""
    note = f"<p>Note: {escape(claim.note)}.</p>" if claim.note else ""
    setting = f'<span class="setting">{SETTING[verdict.setting]}</span>' if verdict.setting else ""
    said = []
    if verdict.deciding and verdict.deciding[0].names:
        said.append(f'<ul class="numbers">{"".join(map(rows, verdict.deciding))}</ul>')
    elif verdict.deciding:
        judged = dict(zip(verdict.deciding[0].source["keys"], verdict.deciding[0].cells["says"], strict=True))
        named = {key: re.sub(r".*#([ab]-[a-z]+\d+[a-z]?-)?", "", key).replace("-", " ") for key in claim.evidence}
        listed = "".join(number(key, says, evidence.loc[key]) for key, says in (judged | named | judged).items())
        said.append(f'{checks(verdict.deciding[0].cells)}<ul class="numbers">{listed}</ul>')
    if verdict.beside:
        said.append(f'<p>Beside it, not deciding:</p><ul class="numbers">{"".join(map(rows, verdict.beside))}</ul>')
    return (
        f'<li class="claim" id="claim-{escape(claim.id)}" data-verdict="{verdict.agreement}">'
        f'<div class="where"><b>{escape(claim.where)}</b> {chip(verdict.agreement)}{setting}</div>'
        f'<div class="said"><blockquote>{escape(claim.claim)}</blockquote>{note}{adverse(verdict)}{"".join(said)}'
        f"<p>See {linked(claim.pages)}.</p></div></li>"
    )


def raw(html: str) -> str:
    """HTML as MyST passes it through."""
    return f"```{{raw}} html\n{html}\n```"


def filters(paper: str, counts: Mapping[str, int | None]) -> str:
    """Radio buttons of a paper, one for each agreement with its count if there is one, which the style sheet reads."""

    def choice(word: str, shown: str, more: str = "") -> str:
        named = f'name="{paper}" id="{paper}-{word.replace(" ", "-")}" value="{word}"{more}'
        return f'<label><input type="radio" {named}> {shown}</label>'

    total = "" if None in counts.values() else f" {sum(counts.values())}"
    choices = [choice("all", f"all{total}", " checked")]
    choices += [choice(word, chip(word, count)) for word, count in counts.items()]
    return raw(f'<fieldset class="verdicts"><legend>Show</legend>{"".join(choices)}</fieldset>')


def meanings() -> str:
    """The words of both axes and what each says."""
    said = [f"{SIGNS[word]} {word}\n: {meaning[0].upper()}{meaning[1:]}." for word, meaning in AGREEMENT.items()]
    return "\n\n".join(said)


def table(found: pd.DataFrame, head: str = "agreement") -> str:
    """Counts of claims, a line for each row of a table."""
    lines = [f"| {head} | {' | '.join(found.columns)} |", f"|---|{'---:|' * len(found.columns)}"]
    lines += [
        f"| {word} | {' | '.join(map(str, row))} |" for word, row in zip(found.index, found.to_numpy(), strict=True)
    ]
    return "\n".join(lines)


SHOWS = re.compile(r"Fig\. \d+|Table \d+|Prop\. [\d.]*\d|Theorem [\d.]*\d|Corollary \d+")


def shows(claim: Claim) -> str:
    """The figure, table or statement that a claim is read off, else the place in the text.

    >>> shows(Claim("x", "pruning", "Sec. 6.2, Table 1", "", (), (), ""))
    'Table 1'
    """
    found = SHOWS.search(claim.where)
    return found[0] if found else claim.where


def figures(listed: Sequence[Claim], paper: str) -> dict[str, list[Claim]]:
    """The claims of a paper by the figure, table or statement that they are read off; one by one for an abstract."""
    found: dict[str, list[Claim]] = {}
    for claim in listed:
        if claim.paper == paper and (SHOWS.search(claim.where) or paper == "privacy"):
            found.setdefault(claim.id if paper == "privacy" else shows(claim), []).append(claim)
    return found


def matrix() -> str:
    """The figures, tables and statements of the papers as rows, filtered by agreement without a script."""
    listed, _, verdicts = claims.read(repository())
    written = tomllib.loads((repository() / "book/matrix.toml").read_text(encoding="utf-8"))
    head = "".join(f'<th scope="col">{text}</th>' for text in ("where", "the paper", "here", "agreement", "setting"))
    parts = []
    for paper, words in claims.PAPERS.items():
        rows = figures(listed, paper)
        lines = "".join(line(of, written[paper][key], verdicts) for key, of in rows.items())
        met = {verdicts[claim.id].agreement for of in rows.values() for claim in of}
        table = f'<table class="matrix"><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>'
        parts += [f"## {words}: {paper}"]
        parts += [filters(f"{paper}-figures", {word: None for word in AGREEMENT if word in met})]
        parts += [raw(f'<div class="pst-scrollable-table-container">{table}</div>')]
    return "\n\n".join(parts)


def line(of: Sequence[Claim], ours: str, verdicts: Mapping[str, Verdict]) -> str:
    """One row of the matrix: the claims that are read off one figure, table or statement, and what was seen of it."""
    agreements = list(dict.fromkeys(verdicts[claim.id].agreement for claim in of))
    settings = dict.fromkeys(SETTING[verdicts[claim.id].setting] for claim in of if verdicts[claim.id].setting)
    theirs = ""
    for claim in of:
        words = escape(claim.claim)
        said = f"In short: {words}." if claim.note.startswith("Paraphrased") else f"“{words}”"
        theirs += f'<p>{said} <a href="#claim-{claim.id}">how it was judged</a></p>'
    links = linked([page for claim in of for page in claim.pages])
    chips = "".join(f"<p>{chip(word)}</p>" for word in agreements)
    seen = escape(" ".join(ours.split()).replace(" %", "\N{NO-BREAK SPACE}%"))
    cells = [theirs, f"<p>{seen}</p><p>See {links}.</p>", chips, ", ".join(settings)]
    words = " ".join(word.replace(" ", "-") for word in agreements)
    return (
        f'<tr data-verdicts="{words}"><th scope="row">{escape(shows(of[0]))}</th>'
        f"{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    )


@lru_cache
def chapter(page: str) -> str:
    """The title of a notebook."""
    return parameters.load(repository() / f"notebooks/{page}.ipynb").title


def provenance() -> str:
    """Every number that notebooks note for claims: that of the reference run, this build's, and whether they agree."""
    files = sorted((repository() / NOTED).glob("*.parquet"))
    if not files:
        return "The notebooks of this build have noted no numbers; the claims page shows those of the reference run."
    fresh = pd.concat([pd.read_parquet(file) for file in files]).drop_duplicates("key").set_index("key")
    found = claims.beside(claims.load_evidence(repository() / claims.EVIDENCE), fresh)
    found = found.sort_values(["outcome", "page"], ascending=[False, True])
    shown = found.map(escape).assign(page=[linked([page]) for page in found["page"]])
    shown = shown.rename(columns={"reference": "reference run", "here": "this build"})
    body = shown.to_html(index=False, escape=False, border=0, justify="unset")
    said = f"{(found['outcome'] == 'agrees').sum()} of {len(found)} numbers of this build agree with the reference run"
    box = f'<div class="pst-scrollable-table-container" tabindex="0">{body}</div>'
    return raw(f"<details><summary>{said}</summary>{box}</details>")


def page() -> str:
    """The cards below the matrix: for each paper both axes, filter, and a folded section for each part."""
    listed, evidence, verdicts = claims.read(repository())
    parts = []
    for paper, counts in claims.by_paper(listed, verdicts).items():
        parts += [f"## Every claim on {paper}", table(counts), filters(paper, counts["all"].to_dict())]
        for key, title in PARTS[paper].items():
            here = [claim for claim in listed if claim.paper == paper and part_of(claim.where) == key]
            cards = "".join(card(claim, verdicts[claim.id], evidence) for claim in here)
            said = f"{len(here)} claim{'s' * (len(here) > 1)}"
            folded = f'<details class="part"><summary>{said}</summary><ul class="claims">{cards}</ul></details>'
            parts += [f"### {title}", raw(folded)]
    return "\n\n".join(parts)


def summary() -> str:
    """How many claims of each paper agree, a line for each paper, for the first page."""
    listed, _, verdicts = claims.read(repository())
    both = claims.by_paper(listed, verdicts).items()
    return table(pd.DataFrame({f"{claims.PAPERS[of]} on {of}": found["all"] for of, found in both}).T, "claims of")
