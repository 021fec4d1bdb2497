"""`cost` says what one private answer costs: predicted, and with `--measure` computed by an engine."""

import json
from dataclasses import asdict
from typing import Annotated, Literal

from cyclopts import Parameter

from linfair.cli import options
from linfair.cli.inference import HOW, MASK, reduced
from linfair.cli.network import Network, about
from linfair.cli.options import ranged, says, tell
from linfair.cost import PROTOCOLS, Prediction, predicted
from linfair.inference import spu

MEASURE = "Compute private answers between processes on this machine too; needs `make mpc`."
IMAGES = "Test images of each group, to see how far private scores are off."
LINK = {"semi2k": "; what makes its correlated randomness is left out", "delphi": "; of the ReLUs alone"}


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
    as_json: options.Json = False,
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
    """Predicted beside measured."""
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
