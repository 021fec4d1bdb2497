"""Private answers of whole networks, measured: what the laws of `linfair.cost` are held against.

No weight of these networks matters for what is sent, so they are drawn, and so are the kept ReLUs. `python -m
linfair_book.spu_answers PROTOCOL` measures those of one protocol that are missing in book/results/spu_answers.parquet,
about five seconds each; it needs `make mpc`.
"""

import sys

import pandas as pd
import torch
from torch import nn

from linfair import gates
from linfair.cost import predicted
from linfair.inference import spu, to_onnx
from linfair.models import build
from linfair_book.tables import grown, place

TABLE = "spu_answers"
KNOWN = ("network", "width", "input", "protocol", "budget")
NETWORKS = (("cnn", 32, "1x12x12"), ("mlp", 64, "1x12x12"), ("resnet18", 8, "1x12x12"))
NETWORKS += (("vgg19", 8, "3x32x32"), ("resnet18", 8, "3x32x32"))
"""Network, width and input; each is measured with all of its ReLUs and with a fifth of them."""


def reduced(name: str, width: int, shape: tuple[int, ...], budget: float) -> nn.Module:
    """A network of which that share of ReLUs is kept, anywhere."""
    network = gates.install(build(name, shape, 10, width=width), shape)
    total = gates.total_units(network)
    kept = (torch.randperm(total, generator=torch.Generator().manual_seed(0)) < round(budget * total)).float()
    parts = iter(kept.split([alpha[0].numel() for alpha in gates.alphas(network).values()]))
    return gates.binarise(gates.set_alphas(network, lambda _, alpha: next(parts).view_as(alpha)))


def measured(name: str, width: int, size: str, protocol: str, budget: float) -> pd.DataFrame:
    """The row of one network and share, under one protocol."""
    shape = tuple(map(int, size.split("x")))
    network = reduced(name, width, shape, budget)
    image = torch.rand(1, *shape, generator=torch.Generator().manual_seed(1))
    found = spu.private_answer(to_onnx(network, shape), image, protocol)
    with torch.no_grad():
        apart = (network.eval()(image) - found.logits).abs().max().item()
    row = dict(zip(KNOWN, (name, width, size, protocol, budget), strict=True))
    row |= {"parties": found.parties, "kept": int(gates.kept_units(network)), "bytes": found.sent_bytes}
    row |= {"rounds": found.rounds, "seconds": found.seconds["run"], "setup_bytes": found.setup[0]}
    return pd.DataFrame([row | {"deviation": apart, "spu": found.versions["spu"]}])


def against(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with what the laws say, `predicted` bytes, rounds and computing, and the bytes' relative `error`."""
    found = []
    for row in rows.itertuples():
        shape = tuple(map(int, row.input.split("x")))
        found.append(predicted(reduced(row.network, row.width, shape, row.budget), shape, row.protocol))
    said = {"predicted": "bytes", "predicted_rounds": "rounds", "predicted_seconds": "compute_seconds"}
    rows = rows.assign(**{name: [getattr(one, of) for one in found] for name, of in said.items()})
    return rows.assign(error=rows["predicted"] / rows["bytes"] - 1)


if __name__ == "__main__":
    chosen = [one for one in NETWORKS if sys.argv[1] != "cheetah" or one[-1] == "1x12x12"]
    grown(place(TABLE), KNOWN, [(*one, sys.argv[1], share) for one in chosen for share in (1.0, 0.2)], measured)
