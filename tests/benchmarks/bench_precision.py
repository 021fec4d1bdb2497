"""What bf16 does to one trained network and to a study, beside float32.

Measurements of this package are in float32. For one network this says what logits and decisions on the test images
would be in the precision that profile `cpu` trains in. With `--cells` it trains, linearizes (SNL) and fine-tunes that
many seeds in both precisions and compares each group's accuracy, paired over seeds (`linfair_book.speed`).

Run: python tests/benchmarks/bench_precision.py [--data digits] [--network resnet18] [--profile small] [--page]
     python tests/benchmarks/bench_precision.py --cells 10 --out _build/precision [--page]
"""

import argparse
import copy
from datetime import date

import pandas as pd
import torch
from floors import Number, keep
from linfair_book.build import repository
from linfair_book.speed import PRECISION, precision_part
from linfair_book.tables import save

from linfair.data import load_data
from linfair.device import bf16_is_fast, device_name
from linfair.models import build
from linfair.study.grids import Cell
from linfair.study.plan import Job
from linfair.study.recipes import in_every_stage, recipe
from linfair.study.results import collect
from linfair.study.runner import run_jobs
from linfair.study.tables import overall
from linfair.training import fit, predict

KEPT = ["data", "network", "width", "method", "profile", "precision", "arm", "budget", "seed", "split", "group_name"]
KEPT += ["n", "accuracy", "teacher", "device", "torch", "linfair", "code", "seconds"]
"""Without `role` and `group`: what reads a study's rows must not take those of two precisions for one study."""


def study(data: str, network: str, profile: str, cells: int, out: str) -> pd.DataFrame:
    """Accuracies in both precisions, of all images and of each group; cells that are missing in `out` are computed."""
    how = {"profile": profile, "method": "snl", "budgets": (0.2, 0.02)}
    jobs = [
        Job(Cell(data, network, seeds=(seed,), precision=precision, **how), ("original", "plain"))
        for seed in range(cells)
        for precision in ("float32", "bf16")
    ]
    run_jobs(jobs, out, progress=False)
    rows = collect([out]).rows
    rows = rows[rows["split"] == ("test_balanced" if "test_balanced" in set(rows["split"]) else "test")]
    return pd.concat([overall(rows), rows], ignore_index=True)[KEPT]


def one_network(data_name: str, network: str, profile: str, seed: int) -> list[Number]:
    """Train once in each precision, measure each network in both, print the differences."""
    data, how = load_data(data_name, seed=seed), recipe(network, profile)
    start = build(network, data.input_shape, data.classes, width=how.width, seed=seed)
    split = "test_balanced" if "test_balanced" in data.splits else "test"
    y, numbers = data.splits[split].y, []
    about = f"{network} in profile {profile} on {data.name}, {split}, seed {seed}, {date.today()}"
    print(f"{device_name('cpu')}, bf16 in hardware: {bf16_is_fast('cpu')}; {about}")
    for trained in ("float32", "bf16"):
        model = copy.deepcopy(start)
        fit(model, data, schedule=in_every_stage(how, precision=trained).base, seeds=[seed])
        wide = predict(model, data, split)
        with torch.autocast("cpu", torch.bfloat16):
            narrow = predict(model, data, split, measured=False).float()
        moved, other = (wide - narrow).abs(), int((wide.argmax(1) != narrow.argmax(1)).sum())
        right = [100 * float((logits.argmax(1) == y).double().mean()) for logits in (wide, narrow)]
        values = {"range": wide.max() - wide.min(), "moved": moved.mean(), "largest": moved.max(), "decisions": other}
        values |= {"float32": right[0], "bf16": right[1]}
        rest = {"n": len(y), "of": "images", "settings": about, "device": device_name("cpu")}
        numbers += [Number(f"logits/{trained}/{what}", float(value), "", **rest) for what, value in values.items()]
        print(f"trained in {trained}:", ", ".join(f"{what} {float(value):.3g}" for what, value in values.items()))
    return numbers


def main() -> None:
    """One network or a study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--profile", default="small")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cells", type=int, default=0, help="seeds of the study in both precisions")
    parser.add_argument("--out", default="_build/precision", help="folder of the study's rows")
    parser.add_argument("--page", action="store_true", help="put the numbers into the book's table and page")
    given = parser.parse_args()
    if given.cells:
        table = study(given.data, given.network, given.profile, given.cells, given.out)
        print(precision_part(table))
        if given.page:
            save(table, repository() / PRECISION)
    else:
        numbers = one_network(given.data, given.network, given.profile, given.seed)
        if given.page:
            keep(repository(), numbers)


if __name__ == "__main__":
    main()
