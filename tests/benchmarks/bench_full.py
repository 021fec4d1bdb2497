"""Seconds of a training step: Eq. 7 (equal gradients) against Eq. 8 (the Lagrangian on losses) of Tran et al., 2022.

Every arm takes the same batches of the same pruned network, all in one process, with multipliers that are not 0; the
fastest of several turns counts. Once an epoch both also look at the training split: seconds of that, too.

Run: python tests/benchmarks/bench_full.py [--network mlp] [--width 32] [--groups 10] [--batch 128] [--turns 5]
"""

import argparse
import copy
from dataclasses import replace

import torch
from bench_private import fastest

from linfair.data import Split, load_data
from linfair.linearizers.registry import find
from linfair.mitigation import EqualGradients, Lagrangian, Plain
from linfair.models import NETWORKS, build
from linfair.rules import Clipped
from linfair.schedule import plain
from linfair.training import Schedule, Source, fit

ARMS = {
    "control (CE)": Plain(kd=0.0),
    "relaxed, Eq. 8": Lagrangian(kd=0.0, clip=5.0),
    "full, norms alone": EqualGradients(kd=0.0, eigenvalues=False, clip=5.0),
    "full, Eq. 7": EqualGradients(kd=0.0, clip=5.0),
}
RELAXED = "relaxed, Eq. 8"


def main() -> None:
    """Print seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="mlp", choices=NETWORKS)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--groups", type=int, default=10, help="groups that the ten digits are merged to")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    data = load_data("digits", seed=0)
    splits = {name: Split(one.x, one.y, one.a % options.groups) for name, one in data.splits.items()}
    data = replace(data, splits=splits, group_names=data.group_names[: options.groups], shift=0)
    teacher = build(options.network, data.input_shape, data.classes, width=options.width, seed=0)
    fit(teacher, data, schedule=Schedule(epochs=5, lr=0.01), seeds=[0], progress=False)
    [pruned] = find("prune_magnitude").run(teacher, data, [0.5], seeds=[0], options=None, progress=False)
    source, steps, epochs = Source(data, "train"), {}, {}
    batches = [source.take(index) for index in torch.arange(source.n).split(options.batch)[:4]]
    for name, one in ARMS.items():
        model = copy.deepcopy(pruned.model).train()
        objective = one.start(model, teacher, data)
        if hasattr(objective, "multipliers"):
            objective.multipliers[:] = 1e-3
        rule = plain if objective.gradient is None else Clipped(5.0)

        def step(model=model, objective=objective, rule=rule) -> None:
            for batch in batches:
                rule(model, lambda some: objective(model, some), batch)

        steps[name], epochs[name] = step, lambda objective=objective: objective.after_epoch(0)
    step, epoch = fastest(steps, options.turns), fastest(epochs, 1)
    weights = sum(one.numel() for one in teacher.parameters())
    about = f"{options.network} of width {options.width} ({weights:,} parameters), {options.groups} groups"
    print(f"digits, {about}, batch {options.batch}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for name, seconds in step.items():
        ratio, whole = seconds / step[RELAXED], 1000 * seconds / len(batches)
        print(f"  {name:20s} {whole:9.2f} ms a step  {ratio:6.2f} x relaxed   end of epoch {epoch[name]:8.3f} s")


if __name__ == "__main__":
    main()
