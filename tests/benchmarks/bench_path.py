"""Time of SNL's mask phase for five budgets: one path for all against a run for each; the ratio, and that masks agree.

Run: python tests/benchmarks/bench_path.py [--seeds 10]
"""

import argparse
import time

import torch

from linfair import build, fit, load_data
from linfair.ensemble import Ensemble
from linfair.linearizers import snl
from linfair.study import recipe
from linfair.training import supervised

BUDGETS = (0.8, 0.6, 0.4, 0.2, 0.02)


def main() -> None:
    """Print seconds, epochs and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    seeds = range(parser.parse_args().seeds)
    torch.set_num_threads(1)
    plan = recipe("mlp", "small")
    data = [load_data("digits", seed=seed) for seed in seeds]
    teacher = Ensemble([build("mlp", data[0].input_shape, data[0].classes, seed=seed) for seed in seeds])
    fit(teacher, data, supervised, plan.base, seeds=seeds, stage="base")
    options = plan.method("snl")
    start = time.perf_counter()
    path = snl(teacher, data, BUDGETS, seeds=seeds, options=options)
    together = time.perf_counter() - start
    start = time.perf_counter()
    alone = [snl(teacher, data, [budget], seeds=seeds, options=options)[0] for budget in BUDGETS]
    apart = time.perf_counter() - start
    same = all(
        a.jaccard(b) == 1.0
        for one, two in zip(path, alone, strict=True)
        for a, b in zip(one.masks, two.masks, strict=True)
    )
    epochs = len(path[0].history), sum(len(one.history) for one in alone)
    print(f"one path {together:.1f} s, {epochs[0]} epochs; {len(BUDGETS)} runs {apart:.1f} s, {epochs[1]} epochs")
    print(f"ratio {apart / together:.2f} in time, {epochs[1] / epochs[0]:.2f} in epochs; masks equal: {same}")


if __name__ == "__main__":
    main()
