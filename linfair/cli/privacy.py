"""Commands on privacy: `expose` attacks a network."""

import json
from dataclasses import replace
from typing import Annotated, Literal

from linfair import audit as audits
from linfair.audit.network import load_teacher
from linfair.cli import options
from linfair.cli.options import Device, Training, ranged, says, tell
from linfair.metrics.membership import ATTACKS
from linfair.paths import save_table

MASK = "Attack the network that this mask leaves of the teacher: METHOD-BUDGET.mask.safetensors."
HOW = "How members are told from others; loss needs no shadows."
OUT = "Write the table to this Parquet file too, and every image's score beside it."


def expose(
    *,
    teacher: Annotated[str, says("The network: teacher.safetensors.")],
    mask: Annotated[str | None, says(MASK)] = None,
    weights: Annotated[str | None, says("Its fine-tuned weights; by default the teacher's own.")] = None,
    data: Annotated[str | None, says("Checked against the teacher's; by default the teacher's.")] = None,
    attack: Annotated[Literal[*ATTACKS], says(HOW)] = "lira_online",
    shadows: Annotated[int, ranged(int, 1, 256, "Networks to train as the teacher was, on random halves.")] = 16,
    seed: Annotated[int, options.Seed("Decides the halves and the shadows' own seeds.")] = 0,
    most: Annotated[int, ranged(int, 0, 10**6, "How many of the most exposed training images to name.")] = 10,
    profile: Training = "small",
    device: Device = "cpu",
    as_json: options.Json = False,
    out: Annotated[str | None, says(OUT)] = None,
) -> None:
    """Show who is exposed: membership inference per group."""
    if weights and not mask:
        raise ValueError(f"--weights {weights} are those of a linearized or pruned network: name its --mask too")
    out = options.output("--out", out, ".parquet") if out else None
    if mask:
        pair = audits.read_pair(teacher, mask, weights=weights, device=device, data=data)
        model, of, header = pair.linearized, pair.data, replace(pair.header, guarantee=pair.guarantee)
    else:
        model, of, header = load_teacher(teacher, device, data=data)
    options.cache()
    how = {"kind": attack, "count": shadows, "seed": seed, "profile": profile}
    found = audits.expose(model, of, header, **how, announce=tell)
    print(json.dumps(found.as_json(most), indent=2) if as_json else audits.exposed_text(found, most=most))
    if out:
        tell(f"wrote {save_table(found.table, out)}")
        tell(f"wrote {save_table(found.points, out.with_name(f'{out.stem}-points.parquet'))}")
