"""Which techniques help private training: one switched on, or off, at a time, on digits with a mild bias.

`python -m linfair_book.ablation` adds what is missing of `digits_ablation` in `book/results`. A seed is the same images
and the same start under every technique. Group norm, standardised weights, averaged augmentations and averaged weights
are those of De et al. (arXiv 2204.13650); sharpness is the rule's, DP-SAT beside DP-SGD. None of them costs privacy.
"""

import time
from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from linfair.data import load_data
from linfair.rules import resolve
from linfair.schedule import Schedule
from linfair.study.tables import over_seeds
from linfair.training import predict, threads
from linfair_book import tables
from linfair_book.membership import where
from linfair_book.private_training import spoken
from linfair_book.skews import Sweep, about, trained, useful

SKEW = 0.75
SWEEP = Sweep("digits_s", "cnn", width=4, members=5, schedule=Schedule(epochs=20, batch_size=250, lr=0.2))
NETWORK = {"group norm": {"norm": "group"}, "standardised weights": {"standardised": True}}
RULE = {"2 shifts an image": {"multiplicity": 2}, "averaged weights": {"average": 0.95}}
ALL = (*NETWORK, *RULE)
TECHNIQUES = {"nothing": (), **{one: (one,) for one in ALL}, "all": ALL}
TECHNIQUES |= {f"all but {one}": tuple(other for other in ALL if other != one) for one in ALL}
"""What is switched on, by name."""


def cells() -> Iterator[tuple[str, float, str]]:
    """Rule, epsilon and technique, in the order of computing: switching off is looked at under DP-SAT at 8 alone."""
    both, alone = ("nothing", "all"), [name for name in TECHNIQUES if name in ALL]
    ruled = [("dp_sat", 8.0), ("dp_sat", 3.0), ("dp_sgd", 8.0), ("dp_sgd", 3.0)]
    yield from ((*one, name) for one in ruled[:2] for name in both)
    yield from ((*one, name) for one in ruled[:1] for name in (*alone, *(f"all but {name}" for name in ALL)))
    yield from ((*one, name) for one in ruled[2:] for name in both)
    yield from ((*one, name) for one in ruled[1:] for name in alone)


def found(rule: str, epsilon: float, technique: str, sweep: Sweep = SWEEP) -> pd.DataFrame:
    """Rows of networks that are trained under a rule with a technique, a network a seed."""
    start, of_network, of_rule = time.perf_counter(), {}, {"epsilon": epsilon}
    for one in TECHNIQUES[technique]:
        of_network, of_rule = of_network | NETWORK.get(one, {}), of_rule | RULE.get(one, {})
    sweep, options, seeds = replace(sweep, **of_network), replace(resolve(rule), **of_rule), range(sweep.members)
    sets = [load_data(sweep.data, seed=seed, scale="fixed", skew=SKEW) for seed in seeds]
    model, guarantee = trained(sweep, sets, seeds, options)
    with threads(1):
        both = zip(seeds, sets, predict(model, sets, "test").argmax(dim=-1), strict=True)
    lines = [one | {"seed": seed} for seed, data, predicted in both for one in useful(data, predicted)]
    n_train, n_test = (len(sets[0].splits[split]) for split in ("train", "test"))
    said = about(sweep, options, guarantee) | {"skew": SKEW, "technique": technique, "n_train": n_train}
    said |= {"shared": n_test / 2 / n_train} | where()
    return pd.DataFrame(lines).assign(**said, seconds=time.perf_counter() - start)


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
    tables.grown(tables.place("digits_ablation"), ("rule", "epsilon", "technique"), cells(), found)
