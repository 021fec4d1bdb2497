"""Which techniques help private training: one switched on, or off, at a time, on digits with a mild bias.

`python -m linfair_book.ablation` adds what is missing of `digits_ablation` in `book/results`. Networks, halves and
attack are those of `linfair_book.skews`: a seed is the same images and the same start under every technique. Group norm,
standardised weights, averaged augmentations and averaged weights are those of De et al. (arXiv 2204.13650); sharpness
is the rule's, DP-SAT beside DP-SGD. None of them costs privacy.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd

from linfair.paths import save_table
from linfair.rules import resolve
from linfair.schedule import Schedule
from linfair.study.tables import over_seeds
from linfair_book import tables
from linfair_book.private_training import spoken
from linfair_book.skews import Sweep, rows

SKEW = 0.75
SWEEP = Sweep("digits_s", "cnn", members=6, attack="loss", schedule=Schedule(epochs=20, batch_size=64, lr=0.1))
NETWORK = {"group norm": {"norm": "group"}, "standardised weights": {"standardised": True}}
RULE = {"4 shifts an image": {"multiplicity": 4}, "averaged weights": {"average": 0.95}}
ALL = (*NETWORK, *RULE)
TECHNIQUES = {"nothing": (), **{one: (one,) for one in ALL}, "all": ALL}
TECHNIQUES |= {f"all but {one}": tuple(other for other in ALL if other != one) for one in ALL}
"""What is switched on, by name."""


def cells() -> Iterator[tuple[str, float, str]]:
    """Rule, epsilon and technique, in the order of computing: switching off is looked at under DP-SAT at 8 alone."""
    on = [name for name in TECHNIQUES if not name.startswith("all but")]
    for rule, epsilon in (("dp_sat", 8.0), ("dp_sat", 3.0), ("dp_sgd", 8.0), ("dp_sgd", 3.0)):
        yield from ((rule, epsilon, name) for name in on)
    yield from (("dp_sat", 8.0, name) for name in TECHNIQUES if name not in on)


def found(rule: str, epsilon: float, technique: str, sweep: Sweep = SWEEP) -> pd.DataFrame:
    """The rows of `skews.rows` under a rule with a technique."""
    of_network, of_rule = ({}, {"epsilon": epsilon})
    for one in TECHNIQUES[technique]:
        of_network, of_rule = of_network | NETWORK.get(one, {}), of_rule | RULE.get(one, {})
    return rows(replace(sweep, **of_network), replace(resolve(rule), **of_rule), SKEW).assign(technique=technique)


def compute(into: Path) -> None:
    """What is missing of the table, a cell at a time."""
    table = pd.read_parquet(into) if into.is_file() else pd.DataFrame(columns=["rule", "epsilon", "technique"])
    done = set(zip(table["rule"], table["epsilon"], table["technique"], strict=True))
    for cell in cells():
        if cell not in done:
            table = pd.concat([*[table] * bool(len(table)), found(*cell)], ignore_index=True)
            save_table(table, into)
            print(*cell, f"{table['seconds'].iloc[-1]:.0f} s", sep=", ", flush=True)


def gains(table: pd.DataFrame) -> pd.DataFrame:
    """Points that each technique gains over nothing, or loses when it is taken from all, paired, by rule and who."""
    on = ["rule", "epsilon", "who", "seed"]
    wide = spoken(table).pivot(index=[*on, "trained"], columns="technique", values="accuracy")
    of = {name: 100 * (wide[name] - wide["nothing"]) for name in TECHNIQUES if name in wide}
    of |= {name: 100 * (wide["all"] - wide[name]) for name in TECHNIQUES if name in wide and name.startswith("all but")}
    del of["nothing"]
    parts = [value.dropna().rename("value").reset_index().assign(technique=name) for name, value in of.items()]
    return over_seeds(pd.concat(parts), "value", ["technique", "trained", "who"])


if __name__ == "__main__":
    compute(tables.place("digits_ablation"))
