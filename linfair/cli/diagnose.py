"""`linfair diagnose`: why groups lose."""

import json
import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from cyclopts import Parameter

from linfair import audit
from linfair.cli.options import Device, Json, says
from linfair.linearizers.record import kept_share
from linfair.paths import whole
from linfair.training import threads


@Parameter(name="*")
@dataclass(kw_only=True)
class Files:
    """A teacher, its mask and their data, as `linfair linearize` wrote them."""

    teacher: Annotated[str, says("The original network: teacher.safetensors.")]
    mask: Annotated[str, says("Which ReLUs stay: METHOD-BUDGET.mask.safetensors.")]
    weights: Annotated[str | None, says("Fine-tuned weights to start from; by default the teacher's own.")] = None
    data: Annotated[str | None, says("Checked against the teacher's; by default the teacher's.")] = None
    label: Annotated[str | None, says("What was predicted; checked like the data.")] = None
    group: Annotated[str | None, says("What is compared; checked like the data.")] = None
    device: Device = "cpu"

    def read(self) -> audit.Pair:
        """Read the files and check that they belong together."""
        return audit.read_pair(**vars(self))


def diagnose(
    *,
    files: Files,
    split: Annotated[str, says("Which images: train, val, test or another split of the data.")] = "test",
    estimator: Annotated[
        Literal["exact", "per_batch"],
        says("Of gradient norms and eigenvalues: exact, or per batch as in the paper's released code."),
    ] = "exact",
    batch_size: Annotated[int, says("Defines per_batch; exact does not depend on it.")] = 128,
    curvature: Annotated[bool, Parameter(help="Compute the Hessian eigenvalues.")] = True,
    as_json: Json = False,
    out: Annotated[str | None, says("Write the table to this Parquet file too.")] = None,
) -> None:
    """Show why groups lose: every diagnostic."""
    if out is not None and not out.endswith(".parquet"):
        raise ValueError(f"--out {out}: the table is written as Parquet, give a name that ends in .parquet")
    if batch_size < 1:
        raise ValueError(f"--batch-size must be at least 1, got {batch_size}")
    pair = files.read()
    how = {"seed": pair.header.seed, "estimator": estimator, "curvature": curvature, "batch_size": batch_size}
    with threads(1 if pair.header.network == "mlp" else torch.get_num_threads()):
        found = audit.diagnose(pair.linearized, pair.original, pair.data, split, **how)
    student = found.table[found.table["arm"] == "linearized"]
    kept, total = int(student["kept"].iloc[0]), int(found.table["kept"].max())
    whose = f"the weights of {pair.weights}" if pair.weights else "the teacher's own weights, not fine-tuned"
    left = kept_share(kept, total, kept / total)
    head = f"{pair.header.network} on {pair.header.data}, seed {pair.header.seed}: {left}, {whose}"
    if pair.beside:
        head += f"\nFine-tuned weights lie beside the mask; to diagnose those: --weights {pair.beside}"
    print(head, file=sys.stderr if as_json else sys.stdout)
    if out:
        with whole(out) as part:
            found.table.to_parquet(part, index=False)
        print(f"wrote {out}", file=sys.stderr)
    if as_json:
        known = {"teacher": files.teacher, "mask": files.mask, "weights": files.weights, "kept": kept, "total": total}
        print(json.dumps(known | found.as_json(), indent=2))
    else:
        print(audit.diagnosis_text(found))
