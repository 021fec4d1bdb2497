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
from linfair.training import Schedule, correctness, fit, supervised

BUDGETS = (1.0, 0.75, 0.5, 0.25, 0.1, 0.0)
LEARNING_RATE = 0.02
SPLITS = ("test_balanced", "test")
GROUPS = ("majority", "minority")


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
        curve = data.BOUNDARIES[options["boundary"]]
        return curve(x, amplitude=options["amplitude"], frequency=options["frequency"])

    def minority_probability(self, seed: int, budget: float, edge: np.ndarray) -> np.ndarray:
        """Probability that one network gives to the minority on a grid.

        Args:
            seed: One of the study's seeds.
            budget: One of its budgets.
            edge: Coordinates along both axes, shape (k,).

        Returns:
            Probabilities, shape (k, k), rows by height.
        """
        network = self.networks[seed, budget]
        points = torch.cartesian_prod(*[torch.tensor(edge, dtype=torch.float32)] * 2).flip(1)
        with torch.no_grad():
            logits = network(points.to(next(network.parameters()).device))
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


def layer_orders(seed: int, width: int, layers: int) -> list[Tensor]:
    """For each hidden layer, the random order in which its units are chosen to stay ReLUs.

    The masks of one seed are nested: a unit kept at 25 % is kept at 50 %.

    >>> [sorted(order.tolist()) for order in layer_orders(0, 3, 2)]
    [[0, 1, 2], [0, 1, 2]]
    """
    rng = np.random.default_rng([seed, 31])
    return [torch.from_numpy(rng.permutation(width)) for _ in range(layers)]


def linearized(network: nn.Module, budget: float, *, seed: int) -> nn.Module:
    """A copy of a network with gates of which round(budget * width) random ones in each layer are ReLUs, all frozen.

    Args:
        network: An MLP on plain features whose hidden layers have one width.
        budget: Share of ReLUs kept, in [0, 1].
        seed: Decides which ones.

    Returns:
        The copy; its weights are the network's, untrained or trained.

    Raises:
        ValueError: If the budget is outside [0, 1].

    >>> half = linearized(models.build("mlp", (2,), 2, width=16), 0.5, seed=0)
    >>> [int(gate.alpha.sum()) for gate in gates.sites(half).values()]
    [8, 8]
    """
    if not 0 <= budget <= 1:
        raise ValueError(f"a ReLU budget is a share from 0 to 1, got {budget}")
    first = next(module for module in network.modules() if isinstance(module, nn.Linear))
    gated = gates.install(network, (first.in_features,))
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
    fresh = {seed: models.build("mlp", (2,), 2, width=width, seed=seed) for seed in seeds}
    ensemble = Ensemble([linearized(fresh[seed], budget, seed=seed) for seed, budget in cells]).to(device)
    schedule = Schedule(epochs=steps, batch_size=None, optimizer="adam", lr=learning_rate)

    start = time.perf_counter()
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
