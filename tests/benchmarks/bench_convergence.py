"""Has training converged? Validation accuracy after every epoch of base training and of fine-tuning, plain and control.

A study compares plain fine-tuning with a control. The difference means little while one of them still climbs. For one
seed this prints validation accuracy after every epoch (all images, and the group that ends worst), the best epoch, and
how far the last epoch lies below it.

Run: python tests/benchmarks/bench_convergence.py [--data cifar10] [--network resnet18] [--method snl] [--profile cpu]
     [--epochs 0] [--budgets 0.2 0.02] [--out FILE.parquet]
"""

import argparse
import copy
from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import torch
from torch import nn

from linfair.device import device_name
from linfair.engine.store import ResultStore
from linfair.metrics.measure import measure
from linfair.mitigation.registry import resolve
from linfair.paths import save_table
from linfair.study.cell import Worker
from linfair.study.grids import Cell
from linfair.study.tables import overall
from linfair.training import fit, threads


def main() -> None:
    """Train, note validation accuracies after each epoch, print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (
        ("data", "cifar10"),
        ("network", "resnet18"),
        ("method", "snl"),
        ("profile", "cpu"),
        ("out", ""),
    ):
        parser.add_argument(f"--{name}", default=default)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=0, help="of fine-tuning; 0 is the profile's")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.2, 0.02])
    given = parser.parse_args()
    cell = Cell(given.data, given.network, given.method, tuple(given.budgets), (given.seed,), given.profile)
    worker = Worker(cell, ResultStore.default(), True, keep=True)
    stages, plan, seeds, rows = worker.stages, worker.recipe, list(cell.seeds), []

    def noted(stage: str, budget: float, model: nn.Module) -> Callable[[int], None]:
        def after_epoch(epoch: int) -> None:
            found = measure(model, stages.data, seeds, split="val", gradients=())
            rows.append(found.assign(stage=stage, budget=budget, epoch=epoch + 1))

        return after_epoch

    with threads(stages.threads):
        model = stages.untrained(given.network, width=plan.width, init=plan.init)
        fit(model, stages.data, schedule=plan.base, seeds=seeds, after_epoch=noted("base", 1.0, model))
        teacher = stages.given(model)
        path = stages.path(teacher, cell.method, cell.budgets, worker.options)
        schedule = replace(plan.finetune, epochs=given.epochs or plan.finetune.epochs)
        for arm, records in (("plain", path.records), ("control", stages.control(teacher, path).records)):
            for one in records:
                model = copy.deepcopy(one.model)
                objective = resolve(None).start(model, teacher.model, stages.data)
                how = {"seeds": seeds, "stage": "finetune", "after_epoch": noted(arm, one.budget, model)}
                fit(model, stages.data, objective, schedule, **how)
    about = {
        "data": given.data,
        "network": given.network,
        "method": given.method,
        "profile": given.profile,
        "device": device_name("cpu"),
    }
    table = pd.concat(rows, ignore_index=True).assign(**about, torch=torch.__version__)
    if given.out:
        save_table(table, given.out)
    for (stage, budget), part in table.groupby(["stage", "budget"], sort=False):
        whole = overall(part).set_index("epoch")["accuracy"]
        ends = part[part["epoch"] == whole.index[-1]]
        worst = part[part["group"] == ends.loc[ends["accuracy"].idxmin(), "group"]]
        print(f"{stage} at {budget:.0%}: best epoch {whole.idxmax()} of {whole.index[-1]}, the last one", end=" ")
        print(f"{100 * (whole.max() - whole.iloc[-1]):.2f} points below it")
        print("    all  ", " ".join(f"{100 * value:.1f}" for value in whole))
        print("    worst", " ".join(f"{100 * value:.1f}" for value in worst["accuracy"]), worst["group_name"].iloc[0])


if __name__ == "__main__":
    torch.set_num_threads(min(2, torch.get_num_threads()))
    main()
