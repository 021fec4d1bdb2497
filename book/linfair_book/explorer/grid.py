"""The explorer's networks: `linfair_book.toy` at every combination of a few settings, as one exported state.

A browser can run these networks, so it needs their weights and nothing else. `BoundaryGrid.state` writes them as JSON:

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

import pandas as pd
import torch
from torch import Tensor, nn

from linfair import data, gates, plots
from linfair.data import GroupedData
from linfair_book import toy

AXES = ("width", "share", "frequency", "seed", "budget")
"""The settings of one network, in the order in which networks are exported."""


@dataclass(frozen=True)
class Grid:
    """Which networks to train: every combination of these values, budgets descending from 1.0."""

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
    """Networks by a value for each of the axes, data sets by (share, frequency, seed), and the line of evidence."""

    axes: dict[str, tuple]
    networks: dict[tuple, nn.Module]
    data: dict[tuple, GroupedData]
    evidence: str

    def correct(self, **setting: float) -> dict[str, int]:
        """Points of the balanced test that one network puts on the right side, by group, as torch counts them."""
        checked = check_setting(self.axes, setting)
        test = self.data[checked["share"], checked["frequency"], checked["seed"]].splits["test_balanced"]
        with torch.no_grad():
            right = self.networks[tuple(checked.values())](test.x).argmax(dim=1) == test.y
        return {name: int(right[test.a == group].sum()) for group, name in enumerate(toy.GROUPS)}

    def rows(self, *, width: int, share: float, frequency: float) -> pd.DataFrame:
        """Accuracies of all seeds and budgets at one setting, as `linfair_book.toy.summarise` takes them."""
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
        width, share, frequency, seed, budget = self.axes.values()
        values = max(width), min(share), max(frequency), seed[0], 0.5 if 0.5 in budget else budget[-1]
        return dict(zip(AXES, values, strict=True))

    def state(self) -> dict:
        """Everything the browser needs, ready for JSON; the module's docstring says how it is laid out."""
        train, test = ([one.splits[split] for one in self.data.values()] for split in ("train", "test_balanced"))
        weights, masks = {}, {}
        for width in self.axes["width"]:
            networks = [network for key, network in self.networks.items() if key[0] == width]
            weights[str(width)] = _base64([one for network in networks for one in _parameters(network)], "<f4")
            alphas = [gate.alpha for network in networks for gate in gates.sites(network).values()]
            masks[str(width)] = _base64(alphas, "u1")
        amplitude = next(iter(self.data.values())).provenance["options"]["amplitude"]
        found = {"axes": {axis: list(values) for axis, values in self.axes.items()}, "start": self.start}
        found |= {"amplitude": amplitude, "minority": [int(part.a.sum()) for part in train], "points": len(train[0])}
        found |= {"testPerGroup": self.test_per_group, "weights": weights, "masks": masks}
        found |= {name: _base64([part.x for part in one], "<f4") for name, one in (("train", train), ("test", test))}
        return found | {"colors": {role: plots.COLORS[role] for role in toy.GROUPS}, "evidence": self.evidence}


def train_grid(
    grid: Grid | None = None,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    points: int = 1000,
    steps: int = 400,
    device: str = "cpu",
    progress: bool = True,
) -> BoundaryGrid:
    """Train the network of `linfair_book.toy.train` at each combination of a grid's settings and the seeds."""
    grid, seeds = grid or GRIDS["small"], toy.distinct(seeds)
    sets = {}
    for share, frequency, seed in product(grid.share, grid.frequency, seeds):
        sizes = {"majority": points - round(share * points), "minority": round(share * points)}
        sets[share, frequency, seed] = data.load_data("toy", seed=seed, frequency=frequency, **sizes)
    on_device = {key: value.to(device) for key, value in sets.items()}
    networks = {}
    start = time.perf_counter()
    for width in grid.width:
        cells = list(product(grid.share, grid.frequency, seeds, grid.budget))
        how = {"width": width, "steps": steps, "device": device, "stage": f"explorer, width {width}"}
        of_cells = [on_device[cell[:3]] for cell in cells]
        ensemble, _ = toy.fitted([cell[2:] for cell in cells], of_cells, **how, progress=progress)
        trained = ensemble.cpu().networks()
        networks |= {(width, *cell): network.eval() for cell, network in zip(cells, trained, strict=True)}
    seconds = time.perf_counter() - start
    axes = dict(zip(AXES, (grid.width, grid.share, grid.frequency, seeds, grid.budget), strict=True))
    n = f"{len(next(iter(sets.values())).splits['test_balanced']) // 2} test points a group"
    line = plots.evidence(seeds=len(seeds), n=n, device=device, seconds=seconds)
    return BoundaryGrid(axes, networks, sets, f"{len(networks)} networks · {line}")


def check_setting(axes: Mapping[str, Sequence], setting: Mapping[str, float]) -> dict[str, float]:
    """One value for each axis, each of them there, in the order of `AXES`."""
    if set(setting) != set(AXES):
        raise ValueError(f"a setting names each of {', '.join(AXES)} once, got {', '.join(setting) or 'nothing'}")
    for axis in AXES:
        if setting[axis] not in axes[axis]:
            known = ", ".join(f"{value:g}" for value in axes[axis])
            raise ValueError(f"no network with {axis} = {setting[axis]}; there are {known}; train_grid trains others")
    return {axis: setting[axis] for axis in AXES}


def _parameters(network: nn.Module) -> list[Tensor]:
    layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
    return [parameter for layer in layers for parameter in (layer.weight, layer.bias)]


def _base64(values: Sequence[Tensor], kind: str) -> str:
    flat = torch.cat([one.detach().flatten() for one in values]).numpy()
    return base64.b64encode(flat.astype(kind).tobytes()).decode("ascii")
