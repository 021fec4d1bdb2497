"""What `linfair diagnose` prints and writes."""

import json
import sys
from argparse import ArgumentParser, Namespace

import torch

from linfair.paths import whole


def diagnose(options: Namespace) -> None:
    """Read teacher, mask and weights, check that they belong together, measure every group, print or write."""
    from linfair.audit.diagnose import diagnose, diagnosis_text, read_pair
    from linfair.linearizers.record import kept_share
    from linfair.training import threads

    if options.out is not None and not options.out.endswith(".parquet"):
        raise ValueError(f"--out {options.out}: the table is written as Parquet, give a name that ends in .parquet")
    if options.batch_size < 1:
        raise ValueError(f"--batch-size must be at least 1, got {options.batch_size}")
    pair = read_pair(
        options.teacher,
        options.mask,
        weights=options.weights,
        data=options.data,
        label=options.label,
        group=options.group,
        device=options.device,
    )
    with threads(1 if pair.header.network == "mlp" else torch.get_num_threads()):
        found = diagnose(
            pair.linearized,
            pair.original,
            pair.data,
            options.split,
            seed=pair.header.seed,
            estimator=options.estimator,
            curvature=options.curvature,
            batch_size=options.batch_size,
        )
    student = found.table[found.table["arm"] == "linearized"]
    kept, total = int(student["kept"].iloc[0]), int(found.table["kept"].max())
    whose = f"the weights of {pair.weights}" if pair.weights else "the teacher's own weights, not fine-tuned"
    left = kept_share(kept, total, kept / total)
    head = f"{pair.header.network} on {pair.header.data}, seed {pair.header.seed}: {left}, {whose}"
    if pair.beside:
        head += f"\nFine-tuned weights lie beside the mask; to diagnose those: --weights {pair.beside}"
    print(head, file=sys.stderr if options.json else sys.stdout)
    if options.out:
        with whole(options.out) as part:
            found.table.to_parquet(part, index=False)
        print(f"wrote {options.out}", file=sys.stderr)
    if options.json:
        files = {"teacher": options.teacher, "mask": options.mask, "weights": options.weights}
        print(json.dumps(files | {"kept": kept, "total": total} | found.as_json(), indent=2))
    else:
        print(diagnosis_text(found))


def pair_options(parser: ArgumentParser, *, weights: str) -> None:
    """Add the options that name a teacher, its mask and their data; `weights` is what --weights means."""
    parser.add_argument("--teacher", required=True, metavar="FILE", help="the original: teacher.safetensors")
    parser.add_argument(
        "--mask", required=True, metavar="FILE", help="which ReLUs stay: METHOD-BUDGET.mask.safetensors"
    )
    parser.add_argument("--weights", metavar="FILE", help=f"{weights} (default: the teacher's own)")
    parser.add_argument("--data", metavar="NAME", help="checked against the teacher's (default: the teacher's)")
    parser.add_argument("--label", metavar="NAME", help="likewise, what was predicted")
    parser.add_argument("--group", metavar="NAME", help="likewise, what is compared")


def diagnose_options(parser: ArgumentParser) -> None:
    """Add the options of `linfair diagnose`."""
    pair_options(parser, weights="fine-tuned weights")
    parser.add_argument("--split", default="test", metavar="NAME", help="train, val, test, ... (default: test)")
    parser.add_argument(
        "--estimator",
        default="exact",
        choices=("exact", "per_batch"),
        help="of gradient norms and eigenvalues: exact, or per batch as in the paper's released code",
    )
    parser.add_argument("--batch-size", type=int, default=128, help="defines per_batch; exact does not depend on it")
    parser.add_argument("--no-curvature", dest="curvature", action="store_false", help="skip the Hessian eigenvalues")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument("--out", metavar="FILE", help="write the table as Parquet too")
