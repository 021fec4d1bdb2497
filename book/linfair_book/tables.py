"""The committed tables `book/results/NAME.parquet` (see `book/tables.toml`); `python -m` draws README's figure."""

import argparse
import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from linfair import plots, study
from linfair.engine.store import ResultStore, Tables
from linfair.paths import save_table
from linfair.study.tables import over_seeds
from linfair_book.build import repository

RESULTS = Path("book/results")
FIGURE, CURVE = Path("book/figures/accuracy_impact.svg"), Path("book/figures/fine_tuning.svg")
CARD = Path("book/_static/card.png")  # shown where a link to the book is shared


def registry() -> dict[str, dict[str, str]]:
    """The committed tables by name: what each `holds`, and the command it is `made_by`."""
    return tomllib.loads((repository() / "book/tables.toml").read_text(encoding="utf-8"))


def place(name: str) -> Path:
    """The file of a committed table."""
    if name not in registry():
        raise ValueError(f"no table {name!r}; there are {', '.join(registry())}")
    return repository() / RESULTS / f"{name}.parquet"


def committed(name: str) -> pd.DataFrame:
    """The rows of a committed table."""
    if (rows := Tables(place(name).parent).read(name)) is None:
        raise ValueError(f"the table {name} cannot be used; `git checkout {RESULTS}/{name}.parquet` brings it back")
    return rows


def ran(arms: Sequence[str], *, store: ResultStore | None = None, progress: bool = True, **how: object) -> pd.DataFrame:
    """Rows of `study.run` of one grid of cells; other options are those of `study.grid`."""
    return study.run(study.grid(**how), arms=arms, store=store, progress=progress)


def save(table: pd.DataFrame, path: Path) -> None:
    """Write a table whole, in a folder that is made if it is missing, and print its place."""
    print(save_table(table, path))


def geometric(logs: pd.DataFrame, column: str, by: list[str]) -> pd.DataFrame:
    """`over_seeds` of logarithms, as factors: geometric means with the interval of the logarithm."""
    means = over_seeds(logs, column, by)
    return means.assign(**{name: np.exp(means[name].astype(float)) for name in ("mean", "low", "high")})


def main(arguments: list[str] | None = None) -> None:
    """Draw the figure, with `--compute` from fresh rows."""
    from linfair_book.figures import impact  # it imports pages, and they this module

    parser = argparse.ArgumentParser(prog="python -m linfair_book.tables", description="Draw the README's figure.")
    parser.add_argument("--compute", action="store_true", help="run the study again and replace the table")
    root, source = repository(), place("digits_mlp_snl")
    if parser.parse_args(arguments).compute:
        cells = study.grid("digits", "mlp", budgets=(0.8, 0.6, 0.4, 0.2, 0.02), seeds=range(10))
        study.run(cells).to_parquet(source, index=False)
    table = committed("digits_mlp_snl")
    plots.style()
    impact.role_accuracy_bars(table).savefig(root / FIGURE, metadata={"Date": None})
    impact.fine_tuning_curve(committed("digits_convergence")).savefig(root / CURVE, metadata={"Date": None})
    card = impact.role_accuracy_bars(table)
    card.set_size_inches(6, 3.15)
    card.axes[0].set_title("Who pays when a network loses its ReLUs?", color="black", fontsize=13)
    card.savefig(root / CARD, dpi=200, facecolor="white", transparent=False)
    print(f"{root / FIGURE}: {plots.evidence_of(table, split='test_balanced')}\n{root / CURVE}")


if __name__ == "__main__":
    main()
