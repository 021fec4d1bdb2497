"""The explorer's networks: `linfair_book.toy` at every combination of a few settings, as one exported state.

A browser can run these networks, so it needs their weights and nothing else. `train_grid` trains one network for each
combination of width, minority share, boundary frequency, seed and ReLU budget, exactly as `linfair_book.toy.train`
would, but all networks of a width side by side. `BoundaryGrid.state` writes them down as JSON:

    weights[width]   base64 of little-endian float32, network after network; of each network W1 (width x 2, by rows),
                     b1, W2 (width x width), b2, W3 (2 x width), b3
    masks[width]     base64 of bytes, network after network: 1 for each hidden unit that is a ReLU, 0 for the identity
    train, test      base64 of float32 (x, y), data set after data set; of each the majority's points first

Networks are ordered by share, frequency, seed, budget, data sets by share, frequency, seed; the last changes fastest.
"""

import base64
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from linfair import data, gates, plots
from linfair.data import GroupedData
from linfair.ensemble import Ensemble
from linfair.training import Schedule, fit, supervised, threads
from linfair_book import toy

AXES = ("width", "share", "frequency", "seed", "budget")
"""The settings of one network, in the order in which networks are exported."""


@dataclass(frozen=True)
class Grid:
    """Which networks to train: every combination of these values.

    Attributes:
        width: Units of each of the two hidden layers.
        share: Shares of the minority among the training points.
        frequency: f of the boundary A sin(f pi x): its wiggle.
        budget: Shares of ReLUs kept, descending, 1.0 first.
    """

    width: tuple[int, ...]
    share: tuple[float, ...]
    frequency: tuple[float, ...]
    budget: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.budget[:1] != (1.0,) or list(self.budget) != sorted(set(self.budget), reverse=True):
            raise ValueError(f"budgets must descend from 1.0, to which everything is compared, got {self.budget}")


GRIDS = {
    "small": Grid((8, 16), (0.5, 0.25, 0.1), (1.0, 1.75, 2.5), toy.BUDGETS),
    "smoke": Grid((8,), (0.5, 0.1), (2.5,), (1.0, 0.5, 0.0)),
}
"""By profile of the notebook: what the book shows, and what only asks whether the page runs."""


@dataclass(frozen=True)
class BoundaryGrid:
    """Trained networks at every setting, with their data.

    Attributes:
        axes: The values of each of `AXES`.
        networks: Network by (width, share, frequency, seed, budget).
        data: Data set by (share, frequency, seed).
        amplitude: A of the boundary A sin(f pi x).
        points: Training points of both groups together.
        steps: Optimisation steps of each network.
        device: Where they were trained.
        seconds: Training time of all of them.
    """

    axes: dict[str, tuple]
    networks: dict[tuple, nn.Module]
    data: dict[tuple, GroupedData]
    amplitude: float
    points: int
    steps: int
    device: str
    seconds: float

    def correct(self, **setting: float) -> dict[str, int]:
        """Points of the balanced test that one network puts on the right side, by group, as torch counts them.

        Args:
            **setting: A value for each of `AXES`.

        Returns:
            Counts by group.

        Raises:
            ValueError: If no network was trained at this setting.
        """
        checked = check_setting(self.axes, setting)
        test = self.data[checked["share"], checked["frequency"], checked["seed"]].splits["test_balanced"]
        with torch.no_grad():
            right = self.networks[tuple(checked.values())](test.x).argmax(dim=1) == test.y
        return {name: int(right[test.a == group].sum()) for group, name in enumerate(toy.GROUPS)}

    def rows(self, *, width: int, share: float, frequency: float) -> pd.DataFrame:
        """Accuracies of all seeds and budgets at one setting, as `linfair_book.toy.summarise` takes them.

        Args:
            width: Units of each hidden layer.
            share: Share of the minority.
            frequency: Frequency of the boundary.

        Returns:
            A row for each seed, budget and group: `accuracy` on the balanced test, in [0, 1].

        Raises:
            ValueError: If no network was trained at this setting.
        """
        rows = []
        for seed, budget in product(self.axes["seed"], self.axes["budget"]):
            right = self.correct(width=width, share=share, frequency=frequency, seed=seed, budget=budget)
            same = {"seed": seed, "budget": budget, "split": "test_balanced", "n": self.test_per_group}
            rows += [{**same, "group": group, "accuracy": count / same["n"]} for group, count in right.items()]
        return pd.DataFrame(rows)

    @property
    def test_per_group(self) -> int:
        """Points of each group in the balanced test."""
        return len(next(iter(self.data.values())).splits["test_balanced"]) // len(toy.GROUPS)

    @property
    def start(self) -> dict:
        """Where the explorer starts: half the ReLUs, the smallest minority, the widest network, the first seed."""
        wanted = {
            "width": max(self.axes["width"]),
            "share": min(self.axes["share"]),
            "frequency": max(self.axes["frequency"]),
            "seed": self.axes["seed"][0],
            "budget": 0.5,
        }
        return {axis: wanted[axis] if wanted[axis] in self.axes[axis] else self.axes[axis][-1] for axis in AXES}

    @property
    def evidence(self) -> str:
        """The evidence line of all networks."""
        n = f"{self.test_per_group} test points a group"
        line = plots.evidence(seeds=len(self.axes["seed"]), n=n, device=self.device, seconds=self.seconds)
        return f"{len(self.networks)} networks · {line}"

    def state(self) -> dict:
        """Everything the browser needs, ready for JSON; the module's docstring says how it is laid out."""
        weights, masks = {}, {}
        for width in self.axes["width"]:
            networks = [self.networks[width, *rest] for rest in product(*(self.axes[axis] for axis in AXES[1:]))]
            weights[str(width)] = _base64(torch.cat([_weights(network) for network in networks]).numpy(), "<f4")
            masks[str(width)] = _base64(torch.cat([_mask(network) for network in networks]).numpy(), "u1")
        sets = [self.data[key] for key in product(*(self.axes[axis] for axis in AXES[1:4]))]
        return {
            "axes": {axis: list(values) for axis, values in self.axes.items()},
            "start": self.start,
            "amplitude": self.amplitude,
            "minority": [int((one.splits["train"].a == 1).sum()) for one in sets],
            "points": self.points,
            "testPerGroup": self.test_per_group,
            "weights": weights,
            "masks": masks,
            "train": _base64(torch.cat([one.splits["train"].x for one in sets]).numpy(), "<f4"),
            "test": _base64(torch.cat([one.splits["test_balanced"].x for one in sets]).numpy(), "<f4"),
            "colors": {role: plots.COLORS[role] for role in toy.GROUPS},
            "evidence": self.evidence,
        }


def train_grid(
    grid: Grid | None = None,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    amplitude: float = 0.5,
    points: int = 1000,
    steps: int = 400,
    learning_rate: float = toy.LEARNING_RATE,
    device: str = "cpu",
    progress: bool = True,
) -> BoundaryGrid:
    """Train one network for each combination of a grid's settings and the seeds.

    A network of the grid is the one that `linfair_book.toy.train` trains at the same setting: the same points, initial
    weights and (nested) masks, and the same full-batch Adam.

    Args:
        grid: The settings; `GRIDS["small"]` by default.
        seeds: Seeds; each decides data, initial weights and masks.
        amplitude: Height of the boundary.
        points: Training points of both groups together.
        steps: Optimisation steps.
        learning_rate: Adam's.
        device: `cpu` or `cuda`.
        progress: Show a progress bar for each width.

    Returns:
        The networks, on the CPU, with their data.

    Raises:
        ValueError: If there are no seeds, or one is given twice.
    """
    grid, seeds = grid or GRIDS["small"], tuple(seeds)
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"the explorer needs distinct seeds, at least one, got {list(seeds)}")
    sets = {}
    for share, frequency, seed in product(grid.share, grid.frequency, seeds):
        minority = round(share * points)
        sets[share, frequency, seed] = data.load_data(
            "toy",
            seed=seed,
            amplitude=amplitude,
            frequency=frequency,
            majority=points - minority,
            minority=minority,
        )
    schedule = Schedule(epochs=steps, batch_size=None, optimizer="adam", lr=learning_rate)
    on_device = {key: value.to(device) for key, value in sets.items()}
    networks = {}
    start = time.perf_counter()
    for width in grid.width:
        cells = list(product(grid.share, grid.frequency, seeds, grid.budget))
        fresh = {seed: toy.network(seed, width=width) for seed in seeds}
        ensemble = Ensemble([toy.linearized(fresh[seed], budget, seed=seed) for *_, seed, budget in cells]).to(device)
        with threads(1):
            fit(
                ensemble,
                [on_device[cell[:3]] for cell in cells],
                supervised,
                schedule,
                seeds=[seed for *_, seed, _ in cells],
                stage=f"explorer, width {width}",
                progress=progress,
            )
        trained = ensemble.cpu().networks()
        networks |= {(width, *cell): network.eval() for cell, network in zip(cells, trained, strict=True)}
    seconds = time.perf_counter() - start
    axes = {"width": grid.width, "share": grid.share, "frequency": grid.frequency, "seed": seeds, "budget": grid.budget}
    return BoundaryGrid(axes, networks, sets, amplitude, points, steps, device, seconds)


def check_setting(axes: Mapping[str, Sequence], setting: Mapping[str, float]) -> dict[str, float]:
    """One value for each axis, each of them there, in the order of `AXES`.

    Args:
        axes: The values of each axis.
        setting: The values asked for.

    Returns:
        The same values in the order of `AXES`.

    Raises:
        ValueError: For a missing or unknown axis or value; the message says what there is.

    >>> check_setting(
    ...     {axis: (1, 2) for axis in AXES}, {"width": 1, "share": 2, "frequency": 1, "seed": 1, "budget": 3}
    ... )
    Traceback (most recent call last):
    ...
    ValueError: no network with budget = 3; there are 1, 2. Train others with train_grid
    """
    if set(setting) != set(AXES):
        raise ValueError(f"a setting names each of {', '.join(AXES)} once, got {', '.join(setting) or 'nothing'}")
    for axis in AXES:
        if setting[axis] not in axes[axis]:
            known = ", ".join(f"{value:g}" for value in axes[axis])
            raise ValueError(
                f"no network with {axis} = {setting[axis]}; there are {known}. Train others with train_grid"
            )
    return {axis: setting[axis] for axis in AXES}


def restore(state: Mapping, **setting: float) -> nn.Module:
    """One network out of an exported state, as torch runs it: the inverse of `BoundaryGrid.state`.

    Args:
        state: What `BoundaryGrid.state` returned, possibly through JSON.
        **setting: A value for each of `AXES`.

    Returns:
        The network, with gates.

    Raises:
        ValueError: If the state has no network at this setting.
    """
    checked = check_setting(state["axes"], setting)
    width, index = int(checked["width"]), 0
    for axis in AXES[1:]:
        index = index * len(state["axes"][axis]) + state["axes"][axis].index(checked[axis])
    network = gates.install(toy.network(0, width=width), (2,))
    values = _read(state["weights"][str(width)], "<f4", sum(p.numel() for p in _parameters(network)), index)
    kept = _read(state["masks"][str(width)], "u1", gates.total_units(network), index)
    with torch.no_grad():
        for parameter in _parameters(network):
            parameter.copy_(values[: parameter.numel()].view_as(parameter))
            values = values[parameter.numel() :]
        for gate in gates.sites(network).values():
            gate.alpha.copy_(kept[: gate.alpha.numel()].view_as(gate.alpha))
            kept = kept[gate.alpha.numel() :]
    return network.eval()


def _parameters(network: nn.Module) -> list[nn.Parameter]:
    layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
    return [parameter for layer in layers for parameter in (layer.weight, layer.bias)]


def _weights(network: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in _parameters(network)])


def _mask(network: nn.Module) -> Tensor:
    return torch.cat([gate.alpha.detach().flatten() for gate in gates.sites(network).values()])


def _base64(values: np.ndarray, kind: str) -> str:
    return base64.b64encode(values.astype(kind).tobytes()).decode("ascii")


def _read(text: str, kind: str, size: int, index: int) -> Tensor:
    values = np.frombuffer(base64.b64decode(text), dtype=kind)[index * size : (index + 1) * size]
    return torch.from_numpy(values.astype(np.float32))
