"""Reproduced vs paper: every measurable claim, a verdict, and the number that the verdict rests on.

`book/claims.csv` quotes the claims, each with a verdict and the keys of its evidence; `book/results/evidence.parquet`
holds the evidence, a row per number, with interval, n and provenance. A notebook writes the rows (`Page.note`) when it
runs with its default parameters and `LINFAIR_EVIDENCE` names a folder:

    python -m linfair.claims collect            # run the notebooks that the claims rest on, replace their rows
    python -m linfair.claims check              # every claim has a verdict, every key resolves; counts per verdict

So no number of the claims page is typed. The verdicts are, and whoever collects reads them again.
"""

import argparse
import csv
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from math import isnan, nan
from pathlib import Path

import pandas as pd
import torch

import linfair
from linfair import notebooks, parameters
from linfair.book import repository
from linfair.device import device_name
from linfair.paths import whole

CLAIMS = Path("book/claims.csv")
EVIDENCE = Path("book/results/evidence.parquet")
FOLDER = "LINFAIR_EVIDENCE"

VERDICTS = {
    "reproduced": "our measurement agrees, in the claim's own setting",
    "partly": "it agrees in part, or only on a stand-in for the paper's data",
    "not": "our measurement does not show it, or contradicts it",
    "not run": "its setting has not been run here",
}


class ClaimsError(ValueError):
    """A claims table that does not hold together; the message names the line."""


@dataclass(frozen=True)
class Claim:
    """One claim of the paper and what became of it.

    Attributes:
        id: Short name, unique.
        where: Section, figure, proposition, theorem or appendix of the paper.
        claim: The paper's sentence or number.
        verdict: One of `VERDICTS`.
        on: What it was tested on; empty if not run.
        evidence: Keys, `PAGE#NAME`, of rows in the evidence table.
        note: What a reader must know beside the numbers.
    """

    id: str
    where: str
    claim: str
    verdict: str
    on: str
    evidence: tuple[str, ...]
    note: str


def text(value: float, low: float = nan, high: float = nan, *, n: int, unit: str = "", digits: int = 2) -> str:
    """A number as the book prints it.

    >>> text(1.234, 1.0, 1.5, n=10, unit="points")
    '1.23 [1.00, 1.50] points (n = 10)'
    >>> text(400, n=400, digits=0)
    '400 (n = 400)'
    """
    interval = "" if isnan(low) or isnan(high) else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{value:.{digits}f}{interval}{' ' + unit if unit else ''} (n = {n})"


class Page:
    """Keeps the numbers of one notebook that claims rest on.

    Args:
        name: The notebook's name, such as `04_why`.
        settings: Its parameters, as `parameters.from_namespace` returned them.
    """

    def __init__(self, name: str, settings: Mapping[str, object]) -> None:
        self.name = name
        self.settings = dict(settings)
        self.start = time.perf_counter()
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
    ) -> str:
        """Record one number and return it as text, with its interval and n.

        Args:
            key: Name of the number, unique on the page.
            value: The number.
            low: Lower end of its 95 % interval, nan where there is none (an exact computation).
            high: Upper end.
            n: How many seeds, cases or networks it rests on.
            unit: Its unit.
            of: What n counts.
            digits: Decimals shown.
            seconds: What it cost; by default the time since the page began.
            device: Where it was computed, in words; this machine's CPU by default.

        Raises:
            ClaimsError: If the page already has a number of that name.
        """
        if any(row["key"] == f"{self.name}#{key}" for row in self.rows):
            raise ClaimsError(f"{self.name} notes {key!r} twice; name the second one differently")
        self.rows.append(
            {
                "key": f"{self.name}#{key}",
                "value": float(value),
                "low": float(low),
                "high": float(high),
                "n": int(n),
                "of": of,
                "unit": unit,
                "digits": digits,
                "settings": ", ".join(f"{name}={value}" for name, value in self.settings.items()),
                "device": device or device_name("cpu"),
                "torch": torch.__version__,
                "linfair": linfair.__version__,
                "seconds": time.perf_counter() - self.start if seconds is None else float(seconds),
            }
        )
        if os.environ.get(FOLDER):
            with whole(Path(os.environ[FOLDER]) / f"{self.name}.parquet") as part:
                pd.DataFrame(self.rows).to_parquet(part, index=False)
        return text(value, low, high, n=n, unit=unit, digits=digits)

    def note_under(self, prefix: str, key: str, value: float, *bounds: float, **what: object) -> str:
        """As `note`, for several tables that have numbers of one name: the key is `PREFIX-KEY`."""
        return self.note(f"{prefix}-{key}", value, *bounds, **what)

    def note_means(self, name: str, means: pd.DataFrame, *, unit: str = "", digits: int = 2) -> None:
        """Record each row of a table of means over seeds, under `NAME at BUDGET` in per cent.

        Args:
            name: What the mean is of; spaces become hyphens, commas go.
            means: Rows with `budget`, `n_seeds`, `mean`, `low` and `high`, as from `tables.over_seeds`.
            unit: Its unit.
            digits: Decimals shown.
        """
        for row in means.itertuples():
            key = f"{name} at {100 * row.budget:g}".replace(",", "").replace(" ", "-")
            self.note(key, row.mean, row.low, row.high, n=row.n_seeds, unit=unit, digits=digits)

    def table(self) -> pd.DataFrame:
        """The numbers noted so far, for reading: name, value with interval, what n counts."""
        return pd.DataFrame({"number": _name(row["key"]), "value": shown(row)} for row in self.rows)


def _name(key: str) -> str:
    return key.partition("#")[2].replace("-", " ")


def shown(row: Mapping[str, object]) -> str:
    """A row of the evidence as text.

    >>> shown({"value": 2.0, "low": nan, "high": nan, "n": 400, "of": "networks", "unit": "violations", "digits": 0})
    '2 violations (networks: 400)'
    """
    n, digits = row["n"], row["digits"]
    number = text(row["value"], row["low"], row["high"], n=n, unit=row["unit"], digits=digits)
    return number.replace(f"(n = {n})", f"({row['of']}: {n})")


def load(path: str | Path) -> list[Claim]:
    """Read the claims.

    Args:
        path: CSV with the columns of `Claim`, evidence keys separated by spaces.

    Raises:
        ClaimsError: For a missing column, an empty claim, an unknown verdict, a repeated id, or a verdict without
            evidence; names the line.
    """
    names = [field.name for field in fields(Claim)]
    claims: list[Claim] = []
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, strict=True)
        if reader.fieldnames != names:
            raise ClaimsError(f"{path} has the columns {reader.fieldnames}; they must be {names}")
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if None in row or None in row.values() or not all(row[name].strip() for name in ("id", "where", "claim")):
                raise ClaimsError(f"{where}: id, where and claim must be filled, and there are {len(names)} columns")
            if row["verdict"] not in VERDICTS:
                raise ClaimsError(f"{where}: verdict {row['verdict']!r}; allowed: {', '.join(VERDICTS)}")
            claim = Claim(**row | {"evidence": tuple(row["evidence"].split())})
            if claim.id in {other.id for other in claims}:
                raise ClaimsError(f"{where}: the id {claim.id!r} is taken")
            if claim.verdict != "not run" and not (claim.evidence and claim.on):
                raise ClaimsError(f"{where}: verdict {claim.verdict!r} needs evidence, and what it was tested on")
            claims.append(claim)
    return claims


def load_evidence(path: str | Path) -> pd.DataFrame:
    """Read the evidence, indexed by key.

    Raises:
        ClaimsError: If a key occurs twice.
    """
    table = pd.read_parquet(path).set_index("key")
    if not table.index.is_unique:
        raise ClaimsError(f"{path} has several rows of {sorted(set(table.index[table.index.duplicated()]))}")
    return table


def resolve(claims: Iterable[Claim], evidence: pd.DataFrame) -> dict[str, int]:
    """Make sure that every key of every claim is in the evidence.

    Returns:
        Number of claims for each verdict.

    Raises:
        ClaimsError: Naming the keys that are missing.
    """
    claims = list(claims)
    missing = [f"{claim.id}: {key}" for claim in claims for key in claim.evidence if key not in evidence.index]
    if missing:
        listing = "\n  ".join(missing)
        raise ClaimsError(
            f"claims rest on numbers that no notebook has noted:\n  {listing}\n"
            "Correct the key, or run: python -m linfair.claims collect"
        )
    counts = Counter(claim.verdict for claim in claims)
    return {verdict: counts[verdict] for verdict in VERDICTS}


def collect(root: Path, pages: Iterable[str]) -> pd.DataFrame:
    """Run notebooks with their default parameters and replace their rows in the evidence table.

    Args:
        root: Repository root.
        pages: Names of notebooks.

    Returns:
        The whole table, as written.

    Raises:
        ClaimsError: If the environment asks every notebook for another profile.
    """
    if parameters.PROFILE in os.environ:
        raise ClaimsError(f"{parameters.PROFILE} is set: claims rest on default parameters only. Unset it")
    table = root / EVIDENCE
    folder = root / "_build" / "evidence"
    for page in pages:
        (folder / f"{page}.parquet").unlink(missing_ok=True)
        os.environ[FOLDER] = str(folder)
        notebooks.run(page, {}, out=root / "_build" / "notebooks", notebooks=root / "notebooks")
        fresh = pd.read_parquet(folder / f"{page}.parquet")
        if table.is_file():
            old = pd.read_parquet(table)
            fresh = pd.concat([old[~old["key"].str.startswith(f"{page}#")], fresh])
        with whole(table) as part:
            fresh.sort_values("key").to_parquet(part, index=False)
    return pd.read_parquet(table)


def rows(claims: Iterable[Claim], evidence: pd.DataFrame) -> pd.DataFrame:
    """The claims page's table: where, claim, verdict, our numbers, what they were measured on."""
    lines = []
    for claim in claims:
        numbers = []
        for key in claim.evidence:
            numbers.append(f"{_name(key)}: {shown(evidence.loc[key])}")
        lines.append(
            {
                "where": claim.where,
                "the paper's claim": claim.claim,
                "verdict": claim.verdict,
                "ours": "; ".join(numbers),
                "on": claim.on,
                "note": claim.note,
                "pages": sorted({key.partition("#")[0] for key in claim.evidence}),
            }
        )
    return pd.DataFrame(lines)


def main(arguments: list[str] | None = None) -> None:
    """Collect the evidence, or check the claims."""
    parser = argparse.ArgumentParser(prog="python -m linfair.claims", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    gather = commands.add_parser("collect", help="run notebooks and keep the numbers that claims rest on")
    gather.add_argument("pages", nargs="*", help="names of notebooks (default: all that claims name)")
    commands.add_parser("check", help="every key resolves; counts per verdict")
    options = parser.parse_args(arguments)
    root = repository()
    claims = load(root / CLAIMS)
    if options.command == "collect":
        named = sorted({key.partition("#")[0] for claim in claims for key in claim.evidence})
        collect(root, options.pages or named)
    counts = resolve(claims, load_evidence(root / EVIDENCE))
    print(", ".join(f"{verdict}: {count}" for verdict, count in counts.items()), f"({len(claims)} claims)")


if __name__ == "__main__":
    main()
