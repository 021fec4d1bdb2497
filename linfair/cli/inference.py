"""Commands on private inference: `export` writes what an engine runs."""

import json
from typing import Annotated, Literal

import torch

from linfair import audit as audits
from linfair.audit import Pair
from linfair.cli import options
from linfair.cli.network import Network, about, promised
from linfair.cli.options import says, tell
from linfair.inference import difference, to_onnx
from linfair.paths import whole

MASK = "Which ReLUs or weights stay, METHOD-BUDGET.mask.safetensors; by default all."
HOW = "How a layer is computed of which only a part of the ReLUs stays; gather compares no others."


def reduced(network: Network, mask: str | None) -> Pair:
    """The network that was named, as a mask leaves it; what is to be said of it goes to stderr."""
    own = network.own("weights")
    asked = {"network": network.network} if network.teacher else {}
    pair = audits.read_reduced(teacher=network.teacher, mask=mask, data=network.data, **own, **asked)
    tell(*(f"warning: {text}" for text in pair.warnings))
    if pair.beside:
        tell(f"These are the teacher's own weights; those beside the mask: --weights {pair.beside}")
    return pair


def export(
    *,
    network: Network = Network(),
    mask: Annotated[str | None, says(MASK)] = None,
    execution: Annotated[Literal["gather", "multiply"], says(HOW)] = "gather",
    out: Annotated[str, says("The file to write.")] = "model.onnx",
) -> None:
    """Write a network as ONNX, for engines of private inference."""
    place = options.output("--out", out, ".onnx")
    pair = reduced(network, mask)
    name, data, header = pair.header.network, pair.data, pair.header
    images = data.splits["test"].x.dtype == torch.uint8
    scaled = "pixels on [0, 1], minus mean, over std, of each channel" if images else "features as the data have them"
    notes = {"network": name, "data": header.data, "input": scaled, "labels": json.dumps(data.label_names)}
    notes |= {key: json.dumps(getattr(data, key)) for key in ("mean", "std") if images}
    notes["guarantee"] = pair.guarantee.text() if pair.guarantee else "no privacy guarantee"
    file = to_onnx(pair.linearized, data.input_shape, execution=execution, notes=notes)
    with whole(place) as part:
        part.write_bytes(file)
    x = data.normalise(data.splits["test"].x[:64])
    apart, shape = difference(file, pair.linearized, x), " x ".join(map(str, ("batch", *data.input_shape)))
    print("\n".join([about(pair), *promised(pair.guarantee)]))
    by = "; ".join(", ".join(f"{value:.4g}" for value in values) for values in (data.mean, data.std))
    print(f"input: {shape}, float32; {scaled}" + f" ({by})" * images)
    print(f"ONNX Runtime answers {len(x)} test inputs as torch does: scores differ by at most {apart:.1g}")
    print(f"wrote {place} ({len(file):,} bytes)")
