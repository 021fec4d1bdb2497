"""What bf16 does to one trained network and to a study, beside float32.

Measurements of this package are in float32. For one network this says what logits and decisions on the test images
would be in the precision that profile `cpu` trains in. With `--cells` it trains, linearizes (SNL) and fine-tunes that
many seeds in both precisions and compares each group's accuracy, paired over seeds. The margin of 1 point was stated
before any of these cells was computed; an interval that sticks out means that equivalence is not shown.

Run: python tests/benchmarks/bench_precision.py [--data digits] [--network resnet18] [--profile small] [--seed 0]
     python tests/benchmarks/bench_precision.py --cells 10 --out _build/precision
"""

import argparse
import copy

import pandas as pd
import torch

from linfair.data import load_data
from linfair.device import bf16_is_fast, device_name
from linfair.models import build
from linfair.study.compare import equivalent
from linfair.study.grids import Cell
from linfair.study.plan import Job
from linfair.study.recipes import in_every_stage, recipe
from linfair.study.results import collect
from linfair.study.runner import run_jobs
from linfair.training import fit, predict, supervised

MARGIN = 1.0
"""Points of accuracy, stated before the cells are computed."""


def study(data: str, network: str, profile: str, cells: int, out: str) -> None:
    """Compute the cells that are missing in `out`, in both precisions, and print each group's difference."""
    how = {"profile": profile, "method": "snl", "budgets": (0.2, 0.02)}
    jobs = [
        Job(Cell(data, network, seeds=(seed,), precision=precision, **how), ("original", "plain"))
        for seed in range(cells)
        for precision in ("float32", "bf16")
    ]
    run_jobs(jobs, out, progress=False)
    rows = collect([out]).rows
    rows = rows[rows["split"].isin(["test", "test_balanced"])]
    found = equivalent(rows, "bf16", "float32", column="precision", margin=MARGIN)
    shown = found.rows[["arm", "budget", "split", "group_name", "n", "mean", "low", "high", "lies_within"]]
    with pd.option_context("display.width", 160, "display.max_rows", None):
        print(shown.round(2).to_string(index=False))
    print(found.verdict)


def main() -> None:
    """Train once in each precision, measure each network in both, print the differences; or compare two studies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--profile", default="small")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cells", type=int, default=0, help="seeds of the study in both precisions")
    parser.add_argument("--out", default="_build/precision", help="folder of the study's rows")
    options = parser.parse_args()
    if options.cells:
        study(options.data, options.network, options.profile, options.cells, options.out)
        return
    data, how = load_data(options.data, seed=options.seed), recipe(options.network, options.profile)
    start = build(options.network, data.input_shape, data.classes, width=how.width, seed=options.seed)
    split = "test_balanced" if "test_balanced" in data.splits else "test"
    y = data.splits[split].y
    print(f"{device_name('cpu')}, bf16 in hardware: {bf16_is_fast('cpu')}; {options.network} on {data.name}, {split}")
    for trained in ("float32", "bf16"):
        network = copy.deepcopy(start)
        fit(network, data, supervised, in_every_stage(how, precision=trained).base, seeds=[options.seed], stage="base")
        wide = predict(network, data, split)
        with torch.autocast("cpu", torch.bfloat16):
            narrow = predict(network, data, split, measured=False).float()
        moved, other = (wide - narrow).abs(), wide.argmax(1) != narrow.argmax(1)
        right = [100 * (logits.argmax(1) == y).double().mean() for logits in (wide, narrow)]
        print(
            f"trained in {trained}: accuracy {right[0]:.2f} % measured in float32, {right[1]:.2f} % in bf16,", end=" "
        )
        print(f"{int(other.sum())} of {len(y)} decisions differ;", end=" ")
        print(
            f"logits, within {wide.max() - wide.min():.3g}, by {moved.mean():.2g} on average, {moved.max():.2g} at most"
        )


if __name__ == "__main__":
    main()
