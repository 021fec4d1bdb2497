"""The toy study of the paper's Fig. 2: what a decision boundary loses with its ReLUs, and who pays.

As in the paper, for every seed and budget an MLP is trained *from scratch* on the same points from the same initial
weights, with round(budget * width) random units of each hidden layer as ReLUs. All train as one ensemble.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import product
from math import inf

import numpy as np
import pandas as pd
import torch
from torch import nn

from linfair import data, gates, models, plots
from linfair.data import GroupedData
from linfair.device import full_precision
from linfair.ensemble import Ensemble
from linfair.metrics import group_accuracy
from linfair.study.tables import over_seeds, text
from linfair.training import Schedule, correctness, fit, supervised, threads
from linfair_book.averages import less, sides
from linfair_book.checks import check

BUDGETS = (1.0, 0.75, 0.5, 0.25, 0.1, 0.0)
LEARNING_RATE = 0.03
SPLITS = ("test_balanced", "test")
GROUPS = ("majority", "minority")
PAPER = {(1.0, "all"): 99.3, (1.0, "majority"): 100.0, (1.0, "minority"): 93.0}
PAPER |= {(0.5, "all"): 99.0, (0.5, "minority"): 88.0}
"""The paper's accuracies of one run, in per cent, by ReLU budget and group (Sec. 4, text on Fig. 2)."""


@dataclass(frozen=True)
class ToyStudy:
    """Data by seed, networks and last training losses by (seed, budget), budgets descending, and `train`'s rows."""

    seeds: tuple[int, ...]
    data: dict[int, GroupedData]
    networks: dict[tuple[int, float], nn.Module]
    losses: dict[tuple[int, float], float]
    rows: pd.DataFrame
    seconds: float

    @property
    def evidence(self) -> str:
        """The evidence line of all networks."""
        n = f"{len(self.data[self.seeds[0]].splits['test_balanced']) // 2} test points a group"
        return plots.evidence(seeds=len(self.seeds), n=n, device=self.rows["device"].iloc[0], seconds=self.seconds)

    def boundary(self, x: np.ndarray) -> np.ndarray:
        """Height of the true boundary at x."""
        options = self.data[self.seeds[0]].provenance["options"]
        return data.BOUNDARIES[options["boundary"]](x, amplitude=options["amplitude"], frequency=options["frequency"])

    def minority_probability(self, seed: int, budget: float, edge: np.ndarray) -> np.ndarray:
        """Probability that one network gives to the minority on the grid edge x edge, (k, k), rows by height."""
        model = self.networks[seed, budget]
        points = torch.cartesian_prod(*[torch.tensor(edge, dtype=torch.float32)] * 2).flip(1)
        with torch.no_grad(), full_precision():
            logits = model(points.to(next(model.parameters()).device))
        return logits.softmax(dim=1)[:, 1].view(len(edge), len(edge)).cpu().numpy()

    def accuracy(self, seed: int, budget: float) -> dict[str, float]:
        """Accuracy of one network on the balanced test by group, in [0, 1]."""
        rows = self.rows.query("seed == @seed and budget == @budget and split == 'test_balanced'")
        return dict(zip(rows["group"], rows["accuracy"], strict=True))

    def typical_seed(self, budget: float) -> int:
        """The seed whose change in minority accuracy from 100 % to this budget is the median (the lower one of two)."""
        rows = self.rows.query("split == 'test_balanced' and group == 'minority'")
        table = rows.pivot(index="seed", columns="budget", values="accuracy")
        change = (table[budget] - table[1.0]).sort_values(kind="stable")
        return int(change.index[(len(change) - 1) // 2])


def network(seed: int, *, width: int = 16) -> nn.Module:
    """The untrained MLP 2-width-width-2 of one seed, its hidden weights drawn as He et al. (2015) do for ReLUs."""
    mlp = models.build("mlp", (2,), 2, width=width, seed=seed)  # with torch's own start one in ten misses whole waves
    *hidden, _ = (layer for layer in mlp if isinstance(layer, nn.Linear))
    with torch.no_grad():
        for layer in hidden:
            layer.weight.mul_(6**0.5)
    return mlp


def linearized(mlp: nn.Module, budget: float, *, seed: int) -> nn.Module:
    """A copy with frozen gates of which round(budget * width) random ones in each layer are ReLUs, nested by budget."""
    gated = gates.install(mlp, (2,))
    rng = np.random.default_rng([seed, 31])
    for gate in gates.sites(gated).values():
        order = torch.from_numpy(rng.permutation(gate.alpha.numel()))
        with torch.no_grad():
            gate.alpha.zero_()
            gate.alpha[order[: round(budget * len(order))]] = 1.0
    return gates.freeze(gated)


def train(
    *,
    seeds: Sequence[int],
    budgets: Sequence[float] = BUDGETS,
    width: int = 16,
    steps: int = 400,
    device: str = "cpu",
    progress: bool = True,
    **toy: object,
) -> ToyStudy:
    """A network for each seed and budget (1.0 is added), by full-batch Adam side by side; options of the data `toy`."""
    seeds, budgets = tuple(seeds), tuple(sorted({1.0, *map(float, budgets)}, reverse=True))
    cells = list(product(seeds, budgets))
    sets = {seed: data.load_data("toy", seed=seed, **toy).to(device) for seed in seeds}
    start, fresh = time.perf_counter(), {seed: network(seed, width=width) for seed in seeds}
    ensemble = Ensemble([linearized(fresh[seed], budget, seed=seed) for seed, budget in cells]).to(device)
    schedule = Schedule(epochs=steps, batch_size=None, optimizer="adam", lr=LEARNING_RATE)
    how = {"seeds": [seed for seed, _ in cells], "stage": "toy", "progress": progress}
    with threads(1):
        history = fit(ensemble, [sets[seed] for seed, _ in cells], supervised, schedule, **how)
    seconds = time.perf_counter() - start
    about = {"boundary": sets[seeds[0]].provenance["options"]["boundary"], "device": device}
    about |= {"torch": torch.__version__, "linfair": version("linfair"), "seconds": seconds}
    rows = pd.DataFrame(_rows(ensemble, cells, sets)).assign(**about)
    networks = dict(zip(cells, ensemble.networks(), strict=True))
    return ToyStudy(seeds, sets, networks, dict(zip(cells, history[-1]["loss"], strict=True)), rows, seconds)


def _rows(ensemble: Ensemble, cells: list[tuple[int, float]], sets: dict[int, GroupedData]) -> list[dict]:
    kept, units = gates.kept_units(ensemble).tolist(), gates.total_units(ensemble)
    rows = []
    for split in SPLITS:
        right = correctness(ensemble, [sets[seed] for seed, _ in cells], split)
        for (seed, budget), count, correct in zip(cells, kept, right, strict=True):
            groups = sets[seed].splits[split].a
            known = {"seed": seed, "budget": budget, "kept": count, "units": units, "split": split}
            found = group_accuracy(correct, groups, 2) + group_accuracy(correct, torch.zeros_like(groups), 1)
            for group, result in zip((*GROUPS, "all"), found, strict=True):
                rows.append(known | vars(result) | {"group": group, "data": sets[seed].provenance["sha256"][:16]})
    return rows


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracy (%) by split, group and budget, mean over seeds with 95 % t interval, and paired `change` (points)."""
    rows = rows.assign(accuracy=100 * rows["accuracy"]).sort_values("seed", kind="stable")
    rows, by = rows.assign(value=rows["accuracy"]), ["split", "group", "budget"]
    changes = less(rows, rows[rows["budget"] == 1.0], ["seed", "split", "group"])
    level, moved = over_seeds(rows, "accuracy", by), sides(over_seeds(changes, "value", by))
    moved = moved[["mean", "low", "high", "side"]].set_axis(["change", "change_low", "change_high", "side"], axis=1)
    worse = changes["value"].lt(0).groupby([changes[name] for name in by], sort=False).sum().reset_index(drop=True)
    return level.rename(columns={"n_seeds": "seeds", "mean": "accuracy"}).join(moved).assign(worse=worse)


def at(summary: pd.DataFrame, budget: float, group: str, *, split: str = "test_balanced") -> pd.Series:
    """The row of `summarise` for one budget, group and split."""
    rows = summary.query("split == @split and group == @group and budget == @budget")
    return rows.iloc[0]


def table(summary: pd.DataFrame, budgets: Sequence[float] | None = None) -> pd.DataFrame:
    """Accuracy and change of both groups on the balanced test, for reading: a row for each budget and group."""
    rows = summary[(summary["split"] == "test_balanced") & summary["group"].isin(GROUPS)]
    rows = rows[rows["budget"].isin(rows["budget"] if budgets is None else budgets)]
    rows = rows.sort_values("budget", ascending=False, kind="stable", ignore_index=True)
    level = text(rows[["accuracy", "low", "high"]].set_axis(["mean", "low", "high"], axis=1))
    moved = text(rows[["change", "change_low", "change_high"]].set_axis(["mean", "low", "high"], axis=1))
    found = {"ReLUs kept (%)": (100 * rows["budget"]).map("{:g}".format), "group": rows["group"]}
    found |= {"accuracy (%)": level.iloc[:, 0], "change (points)": moved.iloc[:, 0], "side": rows["side"]}
    return pd.DataFrame(found | {f"seeds worse, of {rows['seeds'].max()}": rows["worse"]})


def against_paper(rows: pd.DataFrame) -> pd.DataFrame:
    """The paper's run beside the range of ours, on the test with the training's group shares, in per cent."""
    found = 100 * rows[rows["split"] == "test"].groupby(["budget", "group"])["accuracy"].agg(["mean", "min", "max"])
    lines = []
    for (budget, group), value in PAPER.items():
        mean, low, high = found.loc[budget, group]
        ours = {"here, mean": mean, "here, lowest seed": low, "here, highest seed": high}
        within = {"the paper's is within": "yes" if low <= value <= high else "no"}
        lines.append({"accuracy of": f"{group}, {100 * budget:g} %", "paper, one run": value} | ours | within)
    return pd.DataFrame(lines)


def checks(summary: pd.DataFrame, longer: pd.DataFrame, steps: int) -> list[dict[str, object]]:
    """Rows of `linfair_book.checks`: changes at 50 and 25 % of the ReLUs, levels as in the paper, longer training."""
    within = {"majority": (-0.5, 0.5), "minority": (-inf, 0.0)}
    rows = []
    for share, group in product((0.5, 0.25), GROUPS):
        rows.append(_change(at(summary, share, group), f"{group}-change-at-{100 * share:g}", within[group]))
    for share, group in product((1.0, 0.5), GROUPS):
        row, key = at(summary, share, group, split="test"), f"{group}-at-{100 * share:g}-imbalanced"
        number = {"n": row["seeds"], "unit": "%", "digits": 1, "key": key}
        rows.append(check(key.replace("-", " "), row["accuracy"], row["low"], row["high"], **number))
    return rows + [_change(at(longer, 0.5, a), f"{a}-change-at-50-with-{steps}-steps", within[a]) for a in GROUPS]


def _change(row: pd.Series, key: str, within: tuple[float, float]) -> dict[str, object]:
    number = {"n": row["seeds"], "unit": "points", "digits": 1, "key": key, "within": within}
    return check(key.replace("-", " "), row["change"], row["change_low"], row["change_high"], **number)
