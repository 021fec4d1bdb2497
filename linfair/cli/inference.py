"""Commands on private inference: `export` writes what an engine runs, `cost` says what one private answer costs."""

import json
from dataclasses import asdict
from typing import Annotated, Literal

import torch
from cyclopts import Parameter

from linfair import audit as audits
from linfair.cli.network import Network, about, promised
from linfair.cli.options import Json, output, ranged, says, tell
from linfair.cost import PROTOCOLS, Prediction, predicted
from linfair.inference import difference, spu, to_onnx
from linfair.paths import whole

MASK = "Which ReLUs or weights stay, METHOD-BUDGET.mask.safetensors; by default all."
HOW = "How a layer is computed of which only a part of the ReLUs stays; gather compares no others."
MEASURE = "Compute private answers between processes on this machine too; needs `make mpc`."
IMAGES = "Test images of each group, to see how far private scores are off."
LINK = {"semi2k": "; what makes its correlated randomness is left out", "delphi": "; of the ReLUs alone"}


def reduced(network: Network, mask: str | None) -> audits.Pair:
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
    place = output("--out", out, ".onnx")
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


def cost(
    *,
    network: Network = Network(),
    mask: Annotated[str | None, says(MASK)] = None,
    protocol: Annotated[Literal[*PROTOCOLS], says("Of secure computation.")] = "semi2k",
    execution: Annotated[Literal["gather", "multiply"], says(HOW)] = "gather",
    measure: Annotated[bool, Parameter(help=MEASURE, negative=())] = False,
    engine: Annotated[Literal["spu"], says("What computes them.")] = "spu",
    images: Annotated[int, ranged(int, 1, 1000, IMAGES)] = 4,
    bandwidth: Annotated[float, ranged(float, 0, 1e15, "Bits a second.", above=True)] = 1e9,
    rtt: Annotated[float, ranged(float, 0, 3600, "Round trip time in seconds.")] = 0.0,
    as_json: Json = False,
) -> None:
    """Say what one private answer costs, and measure it."""
    if measure and protocol not in spu.PROTOCOLS:
        raise ValueError(f"--protocol {protocol} is not one that {engine} computes: {', '.join(spu.PROTOCOLS)}")
    if measure:
        spu.engine()  # refused before anything long
    pair = reduced(network, mask)
    model, shape, name = pair.linearized, pair.data.input_shape, pair.header.network
    found = predicted(model, shape, protocol, execution=execution, bandwidth=bandwidth, rtt=rtt)
    tell(*[f"not in the prediction: {', '.join(found.left_out)}"] * bool(found.left_out))
    answer, groups = (
        spu.compared(model, pair.data, protocol, execution=execution, each=images) if measure else (None, None)
    )
    if as_json:
        told = {"network": name, "mask": mask, "execution": execution, "predicted": asdict(found)}
        told["predicted"] |= {"bytes": found.bytes, "rounds": found.rounds, "seconds": found.seconds}
        if answer:
            told["measured"] = vars(answer) | {"logits": answer.logits.tolist(), "groups": groups.to_dict("records")}
        print(json.dumps(told, indent=2))
        return
    print(f"{about(pair)}\n{protocol}, {found.parties} parties, {execution}")
    print(_table(found, answer))
    if answer:
        versions = ", ".join(f"{package} {version}" for package, version in answer.versions.items())
        print(f"shares of {answer.field} bits, {answer.fraction_bits} of them behind the point; {versions}")
        print(f"\nScores differ from plaintext by at most {groups['deviation'].max():.2g}. Predictions that flip:")
        print(groups.to_string(index=False, float_format="{:.2g}".format))


def _table(found: Prediction, answer: spu.Answer | None) -> str:
    ms = (answer.seconds if answer else {}).get
    rows = [
        (f"bytes, all parties{LINK.get(found.protocol, '')}", f"{found.bytes:,}", answer and f"{answer.sent_bytes:,}"),
        ("rounds, messages of the busiest party", f"{found.rounds:,}", answer and f"{answer.rounds:,}"),
        ("seconds to compute", f"{found.compute_seconds:.3g}", answer and f"{ms('run'):.3g}"),
        ("seconds to send and to wait", f"{found.transfer_seconds + found.waiting_seconds:.3g}", "on one machine"),
    ]
    stages = {"compile": "to compile", "share": "to share image and weights", "reveal": "to reveal the scores"}
    rows += [(f"seconds {text}", "", f"{ms(stage):.3g}") for stage, text in stages.items() if answer]
    if found.setup[0]:
        rows.append(("bytes once for a connection", f"{found.setup[0]:,}", answer and f"{answer.setup[0]:,}"))
    columns = [("one private answer", "predicted", "measured" * bool(answer)), *rows]
    wide = max(len(row[0]) for row in columns)
    lines = [f"{first:{wide}s}  {second:>13s}  {third or '':>14s}".rstrip() for first, second, third in columns]
    return "\n".join(lines if answer else [line.removesuffix("on one machine").rstrip() for line in lines])
