"""Private answers of whole networks, measured: what the laws of `linfair.cost` are held against.

No weight of these networks matters for what is sent, so they are drawn, and so are the kept ReLUs. `python
tests/benchmarks/spu_answers.py PROTOCOL` measures those of one protocol that book/results/spu_answers.parquet lacks,
about five seconds each; it needs `make mpc`.
"""

import sys

import pandas as pd
import torch
from linfair_book.spu_answers import TABLE, reduced
from linfair_book.tables import grown, place

from linfair import gates
from linfair.inference import spu, to_onnx

KNOWN = ("network", "width", "input", "protocol", "budget")
NETWORKS = (("cnn", 32, "1x12x12"), ("mlp", 64, "1x12x12"), ("resnet18", 8, "1x12x12"))
NETWORKS += (("vgg19", 8, "3x32x32"), ("resnet18", 8, "3x32x32"))
"""Network, width and input; each is measured with all of its ReLUs and with a fifth of them."""


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


if __name__ == "__main__":
    chosen = [one for one in NETWORKS if sys.argv[1] != "cheetah" or one[-1] == "1x12x12"]
    grown(place(TABLE), KNOWN, [(*one, sys.argv[1], share) for one in chosen for share in (1.0, 0.2)], measured)
