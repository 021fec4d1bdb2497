"""Private answers of whole networks, measured: what the laws of `linfair.cost` are held against.

No weight of these networks matters for what is sent, so they are drawn, and so are the kept ReLUs. `python -m
linfair_book.spu_answers PROTOCOL` measures those of one protocol that are missing in book/results/spu_answers.parquet,
about five seconds each; it needs `make mpc`.
"""

import sys
from collections.abc import Iterator

import pandas as pd
import torch
from torch import nn

from linfair import gates
from linfair.cost import predicted
from linfair.inference import spu, to_onnx
from linfair.models import build
from linfair_book.tables import committed, place, save

TABLE = "spu_answers"
DIGITS, IMAGES = (1, 12, 12), (3, 32, 32)
NETWORKS = {
    ("cnn", 32, DIGITS): (1.0, 0.2),
    ("mlp", 64, DIGITS): (1.0, 0.2),
    ("resnet18", 8, DIGITS): (1.0, 0.2),
    ("vgg19", 8, IMAGES): (1.0, 0.2),
    ("resnet18", 8, IMAGES): (1.0, 0.2),
}
"""Network, width and input, with the shares of ReLUs kept."""


def reduced(name: str, width: int, shape: tuple[int, ...], budget: float) -> nn.Module:
    """A network of which that share of ReLUs is kept, anywhere."""
    network = gates.install(build(name, shape, 10, width=width), shape)
    total = gates.total_units(network)
    kept = (torch.randperm(total, generator=torch.Generator().manual_seed(0)) < round(budget * total)).float()
    places = dict(
        zip(gates.sites(network), kept.split([a[0].numel() for a in gates.alphas(network).values()]), strict=True)
    )
    return gates.binarise(gates.set_alphas(network, lambda site, alpha: places[site].view_as(alpha)))


def measured(protocol: str, done: set[tuple]) -> Iterator[dict[str, object]]:
    """A row for each network and share that is not done."""
    for (name, width, shape), budgets in NETWORKS.items():
        image = torch.rand(1, *shape, generator=torch.Generator().manual_seed(1))
        for budget in budgets:
            key = {
                "network": name,
                "width": width,
                "input": "x".join(map(str, shape)),
                "protocol": protocol,
                "budget": budget,
            }
            if tuple(key.values()) in done or (protocol == "cheetah" and shape == IMAGES):
                continue
            network = reduced(name, width, shape, budget)
            found = spu.private_answer(to_onnx(network, shape), image, protocol)
            with torch.no_grad():
                apart = (network.eval()(image) - found.logits).abs().max().item()
            yield key | {
                "parties": found.parties,
                "kept": int(gates.kept_units(network)),
                "bytes": found.sent_bytes,
                "rounds": found.rounds,
                "seconds": found.seconds["run"],
                "setup_bytes": found.setup[0],
                "deviation": apart,
                "spu": found.versions["spu"],
            }


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
    table = committed(TABLE) if place(TABLE).exists() else pd.DataFrame()
    known = ["network", "width", "input", "protocol", "budget"]
    for line in measured(sys.argv[1], set(table[known].itertuples(index=False, name=None)) if len(table) else set()):
        table = pd.concat([table, pd.DataFrame([line])], ignore_index=True)
        save(table, place(TABLE))
        print(line)
