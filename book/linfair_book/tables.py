"""The committed tables `book/results/NAME.parquet` (`book/tables.toml`); `python -m` draws the first page's figures."""

import sys
import tomllib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from linfair import plots, study
from linfair.engine.store import ResultStore, Tables
from linfair.paths import save_table
from linfair.study.tables import over_seeds
from linfair_book.build import repository

RESULTS = Path("book/results")
FIGURES = Path("book/figures")
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


def grown(path: Path, keys: Sequence[str], wanted: Iterable[tuple], made: Callable[..., pd.DataFrame]) -> pd.DataFrame:
    """A table with rows of all wanted combinations of some columns; what is missing is made and saved one by one."""
    table = pd.read_parquet(path) if path.is_file() else pd.DataFrame(columns=list(keys))
    known = table.reindex(columns=list(keys)).astype(object)
    done = set(known.where(known.notna(), None).itertuples(index=False, name=None))
    for one in wanted:
        if one not in done:
            table = pd.concat([*[table] * bool(len(table)), made(*one)], ignore_index=True)
            print(*one, save_table(table, path), sep=", ", flush=True)
    return table


def geometric(logs: pd.DataFrame, column: str, by: list[str]) -> pd.DataFrame:
    """`over_seeds` of logarithms, as factors: geometric means with the interval of the logarithm."""
    means = over_seeds(logs, column, by)
    return means.assign(**{name: np.exp(means[name].astype(float)) for name in ("mean", "low", "high")})


def pictures(*, toy: bool = False) -> dict[str, Figure]:
    """The figures of the README and of the first page, by name below `book/figures`; that of the toy trains first."""
    from linfair_book import group_size  # these import pages, and they this module
    from linfair_book.figures import cost, impact, mitigation, why

    ways = ["lagrangian", "kd_over_c", "group_dro", "balanced_sampling"]
    drawn = {
        "accuracy_impact.svg": impact.role_accuracy_bars(committed("digits_mlp_snl")),
        "above_floor.svg": impact.above_floor(committed("performance")),
        "fine_tuning.svg": impact.fine_tuning_curve(committed("digits_convergence")),
        "weight.svg": why.upsampling_lines(group_size.effects(committed(group_size.TABLE))),
        "repair.svg": mitigation.change_chart(committed("digits_mlp_mitigation"), ways=ways),
        "price.svg": plots.cost_parts(cost.answers("resnet18", (1.0, 0.5, 0.2, 0.02), "semi2k")),
    }
    if toy:
        from linfair_book import figures
        from linfair_book.toy import train

        study = train(seeds=range(20), budgets=(1.0, 0.5), progress=False)
        drawn["boundary.png"] = figures.toy_boundaries(study, study.typical_seed(0.5), [1.0, 0.5])
    return drawn


def draw(*, compute: bool) -> None:
    """Draw the figures, on request from fresh rows, which replace the table."""
    if compute:
        cells = study.grid("digits", "mlp", budgets=(0.8, 0.6, 0.4, 0.2, 0.02), seeds=range(10))
        study.run(cells).to_parquet(place("digits_mlp_snl"), index=False)
    table, root = committed("digits_mlp_snl"), repository()
    plots.style()
    drawn, bare = pictures(toy=compute), dict.fromkeys(("Creator", "Date", "Format", "Type"))
    for name, figure in drawn.items():
        figure.savefig(root / FIGURES / name, dpi=120, metadata=bare if name.endswith("svg") else None)
    card = drawn["accuracy_impact.svg"]
    card.set_size_inches(6, 3.15)
    card.axes[0].set_title("Who pays when a network loses its ReLUs?", color="black", fontsize=13)
    card.savefig(root / CARD, dpi=200, facecolor="white", transparent=False)
    print(f"{root / FIGURES}: {', '.join(drawn)}; {plots.evidence_of(table, split='test_balanced')}")


if __name__ == "__main__":
    draw(compute="--compute" in sys.argv)
