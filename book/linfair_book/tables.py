"""The figure on the README's first screen, drawn from a committed result table.

`python -m linfair_book.tables` draws `book/figures/accuracy_impact.svg` from `book/results/digits_mlp_snl.parquet`;
with `--compute` it first runs that study again (ten seeds, about two minutes on one core) and replaces the table.
"""

import argparse
from pathlib import Path

import pandas as pd

from linfair import plots, study
from linfair_book.build import repository

TABLE = Path("book/results/digits_mlp_snl.parquet")
FIGURE = Path("book/figures/accuracy_impact.svg")


def compute() -> pd.DataFrame:
    """The rows of notebook 02 at its small profile."""
    return study.run(study.grid("digits", "mlp", budgets=(0.8, 0.6, 0.4, 0.2, 0.02), seeds=range(10)))


def main(arguments: list[str] | None = None) -> None:
    """Draw the figure, with `--compute` from fresh rows."""
    parser = argparse.ArgumentParser(prog="python -m linfair_book.tables", description=__doc__.splitlines()[0])
    parser.add_argument("--compute", action="store_true", help="run the study again and replace the table")
    root = repository()
    if parser.parse_args(arguments).compute:
        (root / TABLE).parent.mkdir(parents=True, exist_ok=True)
        compute().to_parquet(root / TABLE, index=False)
    table = pd.read_parquet(root / TABLE)
    plots.style()
    (root / FIGURE).parent.mkdir(parents=True, exist_ok=True)
    plots.role_accuracy_bars(table).savefig(root / FIGURE, metadata={"Date": None})
    print(f"{root / FIGURE}: {plots.evidence_of(table, split='test_balanced')}")


if __name__ == "__main__":
    main()
