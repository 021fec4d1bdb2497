"""Reproduced vs paper: every measurable claim, what became of it, and the checks that say so.

`book/claims.csv` quotes the claims, `book/rules.toml` says by what each is judged, and `linfair_book.judging` computes
agreement and setting from the committed rows, or from the numbers that notebooks noted (`Page.note`) into
`book/results/evidence.parquet`. `python -m linfair_book.claims collect` runs these notebooks again, `check` asks
whether every claim has a rule and every key resolves.
"""

import argparse
import csv
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from math import isnan, nan
from pathlib import Path

import pandas as pd
import torch

import linfair
from linfair.device import device_name
from linfair.paths import save_table
from linfair_book import notebooks, parameters
from linfair_book.build import repository
from linfair_book.data_pages import share_numbers
from linfair_book.judging.judge import AGREEMENT, Verdict, judge
from linfair_book.judging.rules import RULES, Rules
from linfair_book.judging.rules import load as load_rules
from linfair_book.tables import RESULTS

CLAIMS = Path("book/claims.csv")
EVIDENCE = RESULTS / "evidence.parquet"
FOLDER = "LINFAIR_EVIDENCE"

PAPERS = {"linearization": "Das et al. (ICML 2024)", "pruning": "Tran et al. (NeurIPS 2022)"}
PAPERS |= {"privacy": "Hassanpour et al. (arXiv 2412.11951)"}
"""Whose claims these are."""

SETTINGS = ("paper's", "thin", "stand-in")  # from the closest to the paper's on, as `book/rules.toml` defines them


class ClaimsError(ValueError):
    """A claims table that does not hold together; the message names the line."""


@dataclass(frozen=True)
class Claim:
    """One claim: paper, place in it and words, pages that show it, keys `PAGE#NAME` of further numbers, a note."""

    id: str
    paper: str
    where: str
    claim: str
    pages: tuple[str, ...]
    evidence: tuple[str, ...]
    note: str


def shown(row: Mapping[str, object]) -> str:
    """A row of the evidence as the book prints it."""
    value, low, high = (f"{row[name]:z.{row['digits']}f}" for name in ("value", "low", "high"))
    interval = "" if isnan(row["low"]) or isnan(row["high"]) else f" [{low}, {high}]"
    return f"{value}{interval} {row['unit']}{' ' if row['unit'] else ''}({row['of']}: {row['n']})"


class Page:
    """Keeps the numbers of one notebook that claims rest on, with its settings as `parameters` returned them."""

    def __init__(self, name: str, settings: Mapping[str, object]) -> None:
        self.name, self.settings, self.start = name, dict(settings), time.perf_counter()
        self.rows: list[dict[str, object]] = []

    def note(
        self,
        key: str,
        value: float,
        low: float = nan,
        high: float = nan,
        *,
        n: int,
        unit: str = "",
        of: str = "seeds",
        digits: int = 2,
        seconds: float | None = None,
        device: str | None = None,
    ) -> None:
        """Record one number under a key that the page uses once; an exact one has no interval, `of` says what n is."""
        if any(row["key"] == f"{self.name}#{key}" for row in self.rows):
            raise ClaimsError(f"{self.name} notes {key!r} twice; name the second one differently")
        number = {"key": f"{self.name}#{key}", "value": float(value), "low": float(low), "high": float(high)}
        number |= {"n": int(n), "of": of, "unit": unit, "digits": digits}
        number["settings"] = ", ".join(f"{name}={value}" for name, value in self.settings.items())
        number |= {"device": device or device_name("cpu"), "torch": torch.__version__, "linfair": linfair.__version__}
        number["seconds"] = time.perf_counter() - self.start if seconds is None else float(seconds)
        self.rows.append(number)
        if os.environ.get(FOLDER):
            save_table(pd.DataFrame(self.rows), Path(os.environ[FOLDER]) / f"{self.name}.parquet")

    def note_means(self, name: str, means: pd.DataFrame, *, unit: str = "", digits: int = 2) -> None:
        """Record each mean over at least one seed, as from `tables.over_seeds`, under `NAME at BUDGET` in per cent."""
        for row in means[means["n_seeds"] > 0].itertuples():
            key = f"{name} at {100 * row.budget:g}".replace(",", "").replace(" ", "-")
            self.note(key, row.mean, row.low, row.high, n=row.n_seeds, unit=unit, digits=digits)

    def table(self) -> pd.DataFrame:
        """The numbers noted so far, for reading: name, value with interval, what n counts."""
        names = (row["key"].partition("#")[2].replace("-", " ") for row in self.rows)
        return pd.DataFrame({"number": name, "value": shown(row)} for name, row in zip(names, self.rows, strict=True))


def load(path: str | Path) -> list[Claim]:
    """Read the claims: a CSV with the columns of `Claim`, pages and evidence keys separated by spaces."""
    names = [field.name for field in fields(Claim)]
    claims: dict[str, Claim] = {}
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, strict=True)
        if reader.fieldnames != names:
            raise ClaimsError(f"{path} has the columns {reader.fieldnames}; they must be {names}")
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if None in row or None in row.values() or not all(row[name].strip() for name in names[:4]):
                raise ClaimsError(f"{where}: {', '.join(names[:4])} must be filled, and there are {len(names)} columns")
            if row["paper"] not in PAPERS:
                raise ClaimsError(f"{where}: there is no paper {row['paper']!r}; there are {', '.join(PAPERS)}")
            if row["id"] in claims:
                raise ClaimsError(f"{where}: the id {row['id']!r} is taken; choose another one")
            claims[row["id"]] = Claim(**row | {name: tuple(row[name].split()) for name in ("pages", "evidence")})
    return list(claims.values())


def load_evidence(path: str | Path) -> pd.DataFrame:
    """Read the evidence, indexed by key, each of which it has once."""
    table = pd.read_parquet(path).set_index("key")
    if not table.index.is_unique:
        raise ClaimsError(f"{path} has several rows of {sorted(set(table.index[table.index.duplicated()]))}")
    return table


def resolve(claims: Iterable[Claim], rules: Rules, evidence: pd.DataFrame) -> None:
    """A ClaimsError if claims and rules differ, or if either names a number that no notebook has noted."""
    named = {claim.id: {*claim.evidence} for claim in claims}
    if alone := set(named) ^ set(rules.claims):
        raise ClaimsError(f"claims and rules differ in {', '.join(sorted(alone))}: every claim needs one rule")
    for claim, keys in named.items():
        keys |= {check.of for check in rules.claims[claim].checks if check.of}
    if missing := [f"{claim}: {key}" for claim, keys in named.items() for key in sorted(keys - set(evidence.index))]:
        listing = "\n  ".join(["claims or their rules name numbers that no notebook has noted:", *missing])
        raise ClaimsError(f"{listing}\nCorrect the key, or run: python -m linfair_book.claims collect")


def all_evidence(root: Path) -> pd.DataFrame:
    """What notebooks noted, and what is counted from the committed rows of images."""
    counted = share_numbers(pd.read_parquet(root / RESULTS / "data_counts.parquet")).set_index("key")
    return pd.concat([load_evidence(root / EVIDENCE), counted], verify_integrity=True)


def beside(reference: pd.DataFrame, fresh: pd.DataFrame) -> pd.DataFrame:
    """The numbers of both, by key, as the book prints them; they agree if intervals meet or, without, digits do."""
    rows = []
    for key in reference.index.intersection(fresh.index):
        old, new = reference.loc[key], fresh.loc[key]
        meet = old["low"] <= new["high"] and new["low"] <= old["high"]
        same = abs(old["value"] - new["value"]) < 10.0 ** -old["digits"]
        page, _, name = key.partition("#")
        outcome = "agrees" if meet or same else "differs"
        rows.append([page, name.replace("-", " "), shown(old), shown(new), outcome])
    return pd.DataFrame(rows, columns=["page", "number", "reference", "here", "outcome"])


@lru_cache(maxsize=1)
def read(root: Path) -> tuple[list[Claim], pd.DataFrame, dict[str, Verdict]]:
    """The committed claims, the evidence, and what became of each claim by the committed rules and rows."""
    rules, evidence, claims = load_rules(root / RULES), all_evidence(root), load(root / CLAIMS)
    resolve(claims, rules, evidence)
    return claims, evidence, judge(rules, root / RESULTS, evidence)


def counts(verdicts: Mapping[str, Verdict]) -> pd.DataFrame:
    """How many claims there are on both axes: a row for each agreement, a column for each setting, and `all`."""
    both = pd.DataFrame([(one.agreement, one.setting) for one in verdicts.values()], columns=["agreement", "setting"])
    table = pd.crosstab(both["agreement"], both["setting"]).reindex(list(AGREEMENT), fill_value=0)
    return table[[name for name in SETTINGS if name in table]].assign(all=table.sum(axis=1))


def by_paper(claims: Iterable[Claim], verdicts: Mapping[str, Verdict]) -> dict[str, pd.DataFrame]:
    """The `counts` of each paper."""
    whose = {claim.id: claim.paper for claim in claims}
    return {paper: counts({name: one for name, one in verdicts.items() if whose[name] == paper}) for paper in PAPERS}


def listed(row: pd.Series) -> str:
    """One row of `counts` in words.

    >>> listed(pd.Series({"paper's": 0, "thin": 2, "all": 3}))
    '3 (2 thin)'
    """
    settings = ", ".join(f"{n} {name}" for name, n in row.drop("all").items() if n)
    return f"{row['all']}" + (f" ({settings})" if settings else "")


def collect(root: Path, pages: Iterable[str]) -> pd.DataFrame:
    """Run notebooks with their default parameters and replace their rows in the evidence table, which is returned."""
    if parameters.PROFILE in os.environ:
        raise ClaimsError(f"{parameters.PROFILE} is set: claims rest on default parameters only. Unset it")
    table, folder = root / EVIDENCE, root / "_build" / "evidence"
    for page in pages:
        (folder / f"{page}.parquet").unlink(missing_ok=True)
        os.environ[FOLDER] = str(folder)
        notebooks.run(notebooks.find(page, root / "notebooks"), {}, out=root / "_build" / "notebooks")
        fresh = pd.read_parquet(folder / f"{page}.parquet")
        if table.is_file():
            old = pd.read_parquet(table)
            fresh = pd.concat([old[~old["key"].str.startswith(f"{page}#")], fresh])
        save_table(fresh.sort_values("key"), table)
    return pd.read_parquet(table)


def main(arguments: list[str] | None = None) -> None:
    """Collect the evidence, or check the claims."""
    parser = argparse.ArgumentParser(prog="python -m linfair_book.claims", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    gather = commands.add_parser("collect", help="run notebooks and keep the numbers that claims rest on")
    gather.add_argument("pages", nargs="*", help="names of notebooks (default: all whose numbers judge claims)")
    commands.add_parser("check", help="every claim has a rule, every key resolves; counts on both axes")
    options = parser.parse_args(arguments)
    root = repository()
    rules = load_rules(root / RULES)
    if options.command == "collect":
        keys = rules.numbers().union(*(claim.evidence for claim in load(root / CLAIMS)))
        collect(root, options.pages or sorted({key.partition("#")[0] for key in keys}))
        read.cache_clear()
    claims, _, verdicts = read(root)
    for paper, found in by_paper(claims, verdicts).items():
        print(f"{PAPERS[paper]}, {paper}: {found['all'].sum()} claims")
        for word, row in found.iterrows():
            print(f"  {word}: {listed(row)}")


if __name__ == "__main__":
    main()
