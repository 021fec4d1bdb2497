"""Private answers of whole networks: what the laws of `linfair.cost` say of those that `tests/benchmarks` measured."""

import pandas as pd
import torch
from torch import nn

from linfair import gates
from linfair.cost import predicted
from linfair.models import build

TABLE = "spu_answers"


def reduced(name: str, width: int, shape: tuple[int, ...], budget: float) -> nn.Module:
    """A network of which that share of ReLUs is kept, anywhere."""
    network = gates.install(build(name, shape, 10, width=width), shape)
    total = gates.total_units(network)
    kept = (torch.randperm(total, generator=torch.Generator().manual_seed(0)) < round(budget * total)).float()
    parts = iter(kept.split([alpha[0].numel() for alpha in gates.alphas(network).values()]))
    return gates.binarise(gates.set_alphas(network, lambda _, alpha: next(parts).view_as(alpha)))


def against(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with what the laws say, `predicted` bytes, rounds and computing, and the bytes' relative `error`."""
    found = []
    for row in rows.itertuples():
        shape = tuple(map(int, row.input.split("x")))
        found.append(predicted(reduced(row.network, row.width, shape, row.budget), shape, row.protocol))
    said = {"predicted": "bytes", "predicted_rounds": "rounds", "predicted_seconds": "compute_seconds"}
    rows = rows.assign(**{name: [getattr(one, of) for one in found] for name, of in said.items()})
    return rows.assign(error=rows["predicted"] / rows["bytes"] - 1)
