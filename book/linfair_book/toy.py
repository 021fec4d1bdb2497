"""The toy study of the paper's Fig. 2: what a decision boundary loses with its ReLUs, and who pays.

Points of a square belong to a majority below a curve and a minority above it. For every seed and every ReLU budget
an MLP is trained *from scratch* (as in the paper, no fine-tuning of a trained network) on the same points from the
same initial weights; only the mask differs. The mask is drawn per layer: exactly round(budget * width) random
units of each hidden layer stay ReLUs, the others are the identity. All seeds and budgets train as one ensemble.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from linfair import data, gates, models
from linfair.data import GroupedData
from linfair.ensemble import Ensemble
from linfair.metrics import group_accuracy, mean_interval
from linfair.precision import full_precision
from linfair.training import Schedule, correctness, fit, supervised, threads

BUDGETS = (1.0, 0.75, 0.5, 0.25, 0.1, 0.0)
LEARNING_RATE = 0.03
SPLITS = ("test_balanced", "test")
GROUPS = ("majority", "minority")
PAPER = {
    (1.0, "all"): 99.3,
    (1.0, "majority"): 100.0,
    (1.0, "minority"): 93.0,
    (0.5, "all"): 99.0,
    (0.5, "minority"): 88.0,
}
"""The paper's accuracies of one run, in per cent, by ReLU budget and group (Sec. 4, text on Fig. 2)."""


@dataclass(frozen=True)
class ToyStudy:
    """Trained networks of the toy study, one for each seed and budget.

    Attributes:
        budgets: ReLU budgets, descending, 1.0 first.
        seeds: Seeds.
        data: Data set by seed.
        networks: Trained network by (seed, budget).
        losses: Training loss of each network before its last step, by (seed, budget).
        rows: Tidy result table, see `train`.
        seconds: Training time of all networks together.
    """

    budgets: tuple[float, ...]
    seeds: tuple[int, ...]
    data: dict[int, GroupedData]
    networks: dict[tuple[int, float], nn.Module]
    losses: dict[tuple[int, float], float]
    rows: pd.DataFrame
    seconds: float

    @property
    def device(self) -> str:
        """Where the networks were trained."""
        return self.rows["device"].iloc[0]

    def boundary(self, x: np.ndarray) -> np.ndarray:
        """Height of the true boundary at x."""
        options = self.data[self.seeds[0]].provenance["options"]
        return data.BOUNDARIES[options["boundary"]](x, amplitude=options["amplitude"], frequency=options["frequency"])

    def minority_probability(self, seed: int, budget: float, edge: np.ndarray) -> np.ndarray:
        """Probability that one network gives to the minority on a grid.

        Args:
            seed: One of the study's seeds.
            budget: One of its budgets.
            edge: Coordinates along both axes, shape (k,).

        Returns:
            Probabilities, shape (k, k), rows by height.
        """
        model = self.networks[seed, budget]
        points = torch.cartesian_prod(*[torch.tensor(edge, dtype=torch.float32)] * 2).flip(1)
        with torch.no_grad(), full_precision():
            logits = model(points.to(next(model.parameters()).device))
        return logits.softmax(dim=1)[:, 1].view(len(edge), len(edge)).cpu().numpy()

    def accuracy(self, seed: int, budget: float, *, split: str = "test_balanced") -> dict[str, float]:
        """Accuracy of one network by group, in [0, 1]."""
        rows = self.rows.query("seed == @seed and budget == @budget and split == @split")
        return dict(zip(rows["group"], rows["accuracy"], strict=True))

    def typical_seed(self, budget: float) -> int:
        """The seed whose change in minority accuracy from 100 % to this budget is the median (the lower one of two)."""
        rows = self.rows.query("split == 'test_balanced' and group == 'minority'")
        table = rows.pivot(index="seed", columns="budget", values="accuracy")
        change = (table[budget] - table[1.0]).sort_values(kind="stable")
        return int(change.index[(len(change) - 1) // 2])


def network(seed: int, *, width: int = 16) -> nn.Module:
    """The untrained MLP 2-width-width-2 of one seed, its hidden weights drawn as He et al. (2015) do for ReLUs.

    Their uniform law U(-sqrt(6 / inputs), sqrt(6 / inputs)) is sqrt(6) times torch's default for linear layers. With
    the default about one network in ten misses whole waves of the sine even with all its ReLUs, and these few decide
    the mean.

    Args:
        seed: Decides the weights.
        width: Units of each hidden layer.

    Returns:
        The network, with `nn.ReLU` modules.
    """
    mlp = models.build("mlp", (2,), 2, width=width, seed=seed)
    *hidden, _ = (layer for layer in mlp if isinstance(layer, nn.Linear))
    with torch.no_grad():
        for layer in hidden:
            layer.weight.mul_(6**0.5)
    return mlp


def layer_orders(seed: int, width: int, layers: int) -> list[Tensor]:
    """For each hidden layer, the random order in which its units are chosen to stay ReLUs.

    The masks of one seed are nested: a unit kept at 25 % is kept at 50 %.

    >>> [sorted(order.tolist()) for order in layer_orders(0, 3, 2)]
    [[0, 1, 2], [0, 1, 2]]
    """
    rng = np.random.default_rng([seed, 31])
    return [torch.from_numpy(rng.permutation(width)) for _ in range(layers)]


def linearized(mlp: nn.Module, budget: float, *, seed: int) -> nn.Module:
    """A copy of a network with gates of which round(budget * width) random ones in each layer are ReLUs, all frozen.

    Args:
        mlp: A network as `network` makes it, untrained or trained.
        budget: Share of ReLUs kept, in [0, 1].
        seed: Decides which ones.

    Returns:
        The copy, with the same weights.

    Raises:
        ValueError: If the budget is outside [0, 1].

    >>> half = linearized(network(0), 0.5, seed=0)
    >>> [int(gate.alpha.sum()) for gate in gates.sites(half).values()]
    [8, 8]
    """
    if not 0 <= budget <= 1:
        raise ValueError(f"a ReLU budget is a share from 0 to 1, got {budget}")
    gated = gates.install(mlp, (2,))
    sites = list(gates.sites(gated).values())
    width = sites[0].alpha.numel()
    for gate, order in zip(sites, layer_orders(seed, width, len(sites)), strict=True):
        with torch.no_grad():
            gate.alpha.zero_()
            gate.alpha[order[: round(budget * width)]] = 1.0
    return gates.freeze(gated)


def train(
    *,
    seeds: Sequence[int],
    budgets: Sequence[float] = BUDGETS,
    boundary: str = "sine",
    amplitude: float = 0.5,
    frequency: float = 2.5,
    majority: int = 900,
    minority: int = 100,
    width: int = 16,
    steps: int = 400,
    learning_rate: float = LEARNING_RATE,
    device: str = "cpu",
    progress: bool = True,
) -> ToyStudy:
    """Train one network for each seed and budget, and measure both groups.

    The networks are MLPs 2-width-width-2, trained by full-batch Adam at a constant rate.

    Args:
        seeds: Seeds; each decides its data, initial weights and masks.
        budgets: Shares of ReLUs kept; 1.0 is added if it is missing.
        boundary: `sine` or `parabola`, see `linfair.data`.
        amplitude: Height of the boundary.
        frequency: Its frequency.
        majority: Training points of the majority.
        minority: Training points of the minority.
        width: Units of each of the two hidden layers.
        steps: Optimisation steps.
        learning_rate: Adam's.
        device: `cpu` or `cuda`.
        progress: Show a progress bar.

    Returns:
        The study. Its `rows` hold, for each seed, budget, split (`test_balanced`, and `test` at the training's
        shares) and group (`majority`, `minority`, `all`): `kept` of `units` ReLUs, `n` test points, `accuracy` with
        its Wilson interval `low`, `high` (all in [0, 1]), and `boundary`, `device`, `torch`, `linfair`, `data`
        (hash of the points) and `seconds` (of the whole study).

    Raises:
        ValueError: If there are no seeds, one is given twice, or a budget is outside [0, 1].
    """
    seeds = tuple(seeds)
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"the study needs distinct seeds, at least one, got {list(seeds)}")
    budgets = tuple(sorted({1.0, *map(float, budgets)}, reverse=True))
    cells = [(seed, budget) for seed in seeds for budget in budgets]
    sets = {
        seed: data.load_data(
            "toy",
            seed=seed,
            boundary=boundary,
            amplitude=amplitude,
            frequency=frequency,
            majority=majority,
            minority=minority,
        ).to(device)
        for seed in seeds
    }
    fresh = {seed: network(seed, width=width) for seed in seeds}
    ensemble = Ensemble([linearized(fresh[seed], budget, seed=seed) for seed, budget in cells]).to(device)
    schedule = Schedule(epochs=steps, batch_size=None, optimizer="adam", lr=learning_rate)

    start = time.perf_counter()
    with threads(1):
        history = fit(
            ensemble,
            [sets[seed] for seed, _ in cells],
            supervised,
            schedule,
            seeds=[seed for seed, _ in cells],
            stage="toy",
            progress=progress,
        )
    seconds = time.perf_counter() - start

    rows = pd.DataFrame(_rows(ensemble, cells, sets)).assign(
        boundary=boundary, device=device, torch=torch.__version__, linfair=version("linfair"), seconds=seconds
    )
    networks = dict(zip(cells, ensemble.networks(), strict=True))
    losses = dict(zip(cells, history[-1]["loss"], strict=True))
    return ToyStudy(budgets, seeds, sets, networks, losses, rows, seconds)


def _rows(ensemble: Ensemble, cells: list[tuple[int, float]], sets: dict[int, GroupedData]) -> list[dict]:
    kept = gates.kept_units(ensemble).tolist()
    units = gates.total_units(ensemble)
    rows = []
    for split in SPLITS:
        right = correctness(ensemble, [sets[seed] for seed, _ in cells], split)
        for (seed, budget), count, correct in zip(cells, kept, right, strict=True):
            groups = sets[seed].splits[split].a
            found = zip(GROUPS, group_accuracy(correct, groups, 2), strict=True)
            (everyone,) = group_accuracy(correct, torch.zeros_like(groups), 1)
            for group, result in [*found, ("all", everyone)]:
                rows.append(
                    {
                        "seed": seed,
                        "budget": budget,
                        "kept": count,
                        "units": units,
                        "split": split,
                        "group": group,
                        "n": result.n,
                        "accuracy": result.accuracy,
                        "low": result.low,
                        "high": result.high,
                        "data": sets[seed].provenance["sha256"][:16],
                    }
                )
    return rows


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds with 95 % t intervals, and the paired change from 100 % of the ReLUs.

    Args:
        rows: The rows of one study.

    Returns:
        A row for each split, group and budget, accuracies in per cent, changes in points: `seeds`, `accuracy`
        with `low` and `high`; `change` (accuracy minus the same seed's at 100 %) with `change_low` and
        `change_high`; `worse`, the number of seeds whose accuracy is below their own at 100 %.
    """
    table = []
    for (split, group), part in rows.groupby(["split", "group"], sort=False):
        percent = 100 * part.pivot(index="seed", columns="budget", values="accuracy")
        for budget in sorted(percent.columns, reverse=True):
            change = percent[budget] - percent[1.0]
            level, moved = mean_interval(percent[budget]), mean_interval(change)
            table.append(
                {
                    "split": split,
                    "group": group,
                    "budget": budget,
                    "seeds": level.n,
                    "accuracy": level.mean,
                    "low": level.low,
                    "high": level.high,
                    "change": moved.mean,
                    "change_low": moved.low,
                    "change_high": moved.high,
                    "worse": int((change < 0).sum()),
                }
            )
    return pd.DataFrame(table)


def at(summary: pd.DataFrame, budget: float, group: str, *, split: str = "test_balanced") -> pd.Series:
    """The row of `summarise` for one budget, group and split.

    Raises:
        KeyError: If there is no such row.
    """
    rows = summary.query("split == @split and group == @group and budget == @budget")
    if rows.empty:
        raise KeyError(f"no row for split {split!r}, group {group!r}, budget {budget}")
    return rows.iloc[0]


def level(row: pd.Series) -> str:
    """Accuracy with its interval in words.

    >>> level(pd.Series({"accuracy": 91.5, "low": 89.9, "high": 93.1}))
    '91.5 % [89.9, 93.1]'
    """
    return f"{row['accuracy']:.1f} % [{row['low']:.1f}, {row['high']:.1f}]"


def change(row: pd.Series) -> str:
    """Change from 100 % of the ReLUs with its interval in words.

    >>> change(pd.Series({"change": -4.62, "change_low": -8.4, "change_high": -0.04}))
    '−4.6 points [−8.4, 0.0]'
    """
    return f"{_signed(row['change'])} points [{_signed(row['change_low'])}, {_signed(row['change_high'])}]"


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−") if abs(value) >= 0.05 else "0.0"


def table(summary: pd.DataFrame, *, split: str = "test_balanced") -> pd.DataFrame:
    """The summary of one split for reading: a row a budget, both groups, the change of the minority."""
    seeds = int(summary["seeds"].iloc[0])
    rows = {}
    for budget in sorted(summary["budget"].unique(), reverse=True):
        majority, minority = (at(summary, budget, group, split=split) for group in GROUPS)
        rows[f"{100 * budget:g} %"] = {
            "majority (%)": level(majority).replace(" %", ""),
            "minority (%)": level(minority).replace(" %", ""),
            "minority's change (points)": "" if budget == 1.0 else change(minority).replace(" points", ""),
            f"worse (of {seeds})": "" if budget == 1.0 else str(minority["worse"]),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(columns="ReLUs kept")


def against_paper(rows: pd.DataFrame) -> pd.DataFrame:
    """The paper's run beside ours, on the test with the training's group shares, in per cent.

    Args:
        rows: The rows of a study with the budgets 1.0 and 0.5.

    Returns:
        A row for each of the paper's numbers: its value, our mean with interval, our lowest and highest seed, and
        whether the paper's value lies between them.
    """
    summary = summarise(rows)
    table = {}
    for (budget, group), value in PAPER.items():
        chosen = rows.query("split == 'test' and group == @group and budget == @budget")
        low, high = 100 * chosen["accuracy"].min(), 100 * chosen["accuracy"].max()
        table[f"{group}, {100 * budget:g} %"] = {
            "paper, one run": f"{value:.1f}",
            "here, mean": level(at(summary, budget, group, split="test")).replace(" %", ""),
            "here, single seeds": f"{low:.1f} to {high:.1f}",
            "paper within": "yes" if low <= value <= high else "no",
        }
    return pd.DataFrame.from_dict(table, orient="index").rename_axis(columns="accuracy (%)")


def implied_shares() -> dict[float, float]:
    """Minority share of the test that the paper's numbers imply at each budget.

    With a minority share q the global accuracy is (1 - q) * majority + q * minority. At 50 % the majority's accuracy
    is not given; it is at most 100 %, which makes the share an upper bound.

    >>> {budget: round(share, 3) for budget, share in implied_shares().items()}
    {1.0: 0.1, 0.5: 0.083}
    """
    return {
        budget: (PAPER.get((budget, "majority"), 100.0) - PAPER[budget, "all"])
        / (PAPER.get((budget, "majority"), 100.0) - PAPER[budget, "minority"])
        for budget in (1.0, 0.5)
    }
