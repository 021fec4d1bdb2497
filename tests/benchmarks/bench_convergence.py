"""Has training converged? Validation accuracy after every epoch of base training and of fine-tuning, plain and control.

A study compares plain fine-tuning with a control. The difference means little while one of them still climbs. For one
seed this prints validation accuracy after every epoch (all images, and the group that ends worst), the best epoch, and
how far the last epoch lies below it.

Run: python tests/benchmarks/bench_convergence.py [--data cifar10] [--network resnet18] [--profile cpu] [--epochs 0]
     [--budgets 0.2 0.02] [--out FILE.parquet]
"""

import argparse
import copy
from collections.abc import Callable

import pandas as pd
import torch
from torch import nn

from linfair.engine.store import ResultStore
from linfair.metrics.measure import measure
from linfair.mitigation.registry import resolve
from linfair.study.cell import Worker
from linfair.study.grids import Cell
from linfair.training import fit, threads


def main() -> None:
    """Train, note validation accuracies after each epoch, print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("data", "cifar10"), ("network", "resnet18"), ("profile", "cpu"), ("out", "")):
        parser.add_argument(f"--{name}", default=default)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=0, help="of fine-tuning; 0 is the profile's")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.2, 0.02])
    given = parser.parse_args()
    cell = Cell(given.data, given.network, "snl", tuple(given.budgets), (given.seed,), given.profile)
    worker = Worker(cell, ResultStore.default(), True, keep=True)
    stages, data = worker.stages, worker.stages.data
    rows: list[pd.DataFrame] = []

    def noted(stage: str, budget: float, model: nn.Module) -> Callable[[int], bool]:
        def after_epoch(epoch: int) -> bool:
            found = measure(model, data, [given.seed], split="val")
            model.train()
            rows.append(found[["group_name", "n", "accuracy"]].assign(stage=stage, budget=budget, epoch=epoch + 1))
            return False

        return after_epoch

    with threads(stages.threads):
        start = stages.untrained(given.network, width=worker.recipe.width, init=worker.recipe.init)
        fit(start, data, schedule=worker.recipe.base, seeds=[given.seed], after_epoch=noted("base", 1.0, start))
        teacher = worker.teacher
        schedule = worker.recipe.finetune
        if given.epochs:
            schedule = type(schedule)(**(vars(schedule) | {"epochs": given.epochs}))
        for arm, path in (("plain", worker.path), ("control", stages.control(teacher, worker.path))):
            for one in path.records:
                model = copy.deepcopy(one.model)
                objective = resolve(None).start(model, teacher.model, data)
                how = {"seeds": [given.seed], "stage": "finetune", "after_epoch": noted(arm, one.budget, model)}
                fit(model, data, objective, schedule, **how)
    table = pd.concat(rows, ignore_index=True)
    table = table.assign(data=given.data, network=given.network, profile=given.profile, seed=given.seed)
    if given.out:
        table.to_parquet(given.out, index=False)
    for (stage, budget), part in table.groupby(["stage", "budget"], sort=False):
        overall = part.groupby("epoch").apply(lambda some: (some["n"] * some["accuracy"]).sum() / some["n"].sum())
        last = part[part["epoch"] == part["epoch"].max()]
        worst = part[part["group_name"] == last.loc[last["accuracy"].idxmin(), "group_name"]].set_index("epoch")
        print(f"{stage} at {budget:.0%}: best epoch {overall.idxmax()} of {overall.index[-1]}, the last one", end=" ")
        print(f"{100 * (overall.max() - overall.iloc[-1]):.2f} points below it")
        print("    all  ", " ".join(f"{100 * value:.1f}" for value in overall))
        print("    worst", " ".join(f"{100 * value:.1f}" for value in worst["accuracy"]), worst["group_name"].iloc[0])


if __name__ == "__main__":
    torch.set_num_threads(min(2, torch.get_num_threads()))
    main()
