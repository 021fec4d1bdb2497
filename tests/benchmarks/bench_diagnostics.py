"""Time of the diagnostics that stand in a study's rows, by part, in this process.

`digits` is the book's small study: an ensemble of ten MLPs 64-64 on the digits, eleven networks to measure (the
original, five budgets with and without ReLUs removed). `images` is the paper's size: ResNet18 on five groups of
32x32 images, 4,700 of each, generated; its weights are not trained, which changes how many products a search takes.

Run: python tests/benchmarks/bench_diagnostics.py [--what digits images] [--per-group 4700] [--batch 512] [--threads 1]
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from linfair import gates
from linfair.data import GroupedData, Split, load_data
from linfair.ensemble import Ensemble
from linfair.masks import RELUS
from linfair.metrics.curvature import top_eigenvalue_pairs
from linfair.metrics.gradients import group_gradient_norm_pairs
from linfair.metrics.measure import Original, measure
from linfair.models import build
from linfair.study import recipe
from linfair.training import fit, supervised


def seconds(run: Callable[[], object]) -> float:
    """Time of one call, the device's work included."""
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def digits(seeds: int) -> None:
    """Print what forward and gradient columns of all arms cost, and the eigenvalues of the originals."""
    sets = [load_data("digits", seed=seed) for seed in range(seeds)]
    teacher = Ensemble([build("mlp", sets[0].input_shape, 10, seed=seed) for seed in range(seeds)])
    fit(teacher, sets, supervised, recipe("mlp", "smoke").base, seeds=range(seeds), stage="base", progress=False)
    student = RELUS.install(teacher, sets[0].input_shape)
    student = gates.binarise(gates.set_alphas(student, lambda _, alpha: (torch.rand_like(alpha) < 0.4).float()))
    counts = 0.4, 51, [51] * seeds, [0] * seeds
    took = {}
    for name, options in {
        "means": {"gradients": ()},
        "means and gradients": {},
        "eigenvalues too": {"curvature": ("train",)},
    }.items():
        original = Original(teacher, sets)
        took[name, "original"] = seconds(
            lambda original=original, options=options: measure(
                teacher, sets, range(seeds), *counts, original=original, **options
            )
        )
        took[name, "student"] = seconds(
            lambda original=original, options=options: measure(
                student, sets, range(seeds), *counts, original=original, **options
            )
        )
    for (name, model), value in took.items():
        print(f"  {name:22s} {model:9s} {value:7.2f} s")
    forward = took["means and gradients", "original"] + 10 * took["means and gradients", "student"]
    curved = took["eigenvalues too", "original"] - took["means and gradients", "original"]
    print(
        f"  the study's 11 networks: means and gradients {forward:.1f} s; eigenvalues of the originals {curved:.1f} s"
    )


def images(per_group: int, batch: int, device: str) -> None:
    """Print what gradient norms and both top eigenvalues of a ResNet18 cost."""
    rng = np.random.default_rng(0)
    n, groups = 5 * per_group, np.repeat(np.arange(5), per_group)
    means = rng.integers(0, 200, (5, 3, 32, 32))
    x = torch.from_numpy(np.clip(means[groups] + rng.integers(0, 56, (n, 3, 32, 32)), 0, 255).astype(np.uint8))
    labels = torch.from_numpy(groups)
    names = tuple("01234")
    split = {"train": Split(x, labels, labels)}
    data = GroupedData("generated", split, names, names, mean=(0.5,) * 3, std=(0.25,) * 3).to(device)
    network = gates.install(build("resnet18", (3, 32, 32), 5, seed=0), (3, 32, 32)).to(device)
    group_gradient_norm_pairs(network, data, batch_size=batch)  # the first call tunes and allocates
    took = seconds(lambda: group_gradient_norm_pairs(network, data, batch_size=batch))
    print(f"  gradient norms, {n:,} images, batch {batch}: {took:.2f} s")
    found: list = []
    took = seconds(lambda: found.extend(top_eigenvalue_pairs(network, data, batch_size=batch)))
    products = sum(
        two.products + (one.products if one is not two and one.value != two.value else 0) for one, two in found
    )
    print(f"  both eigenvalues: {took:.1f} s, {products} products, {1000 * took / products:.0f} ms each")
    print("  " + "; ".join(f"{one.value:.4g} {'ok' if one.converged else '*'}" for one, _ in found))
    if device != "cpu":
        print(f"  peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


def main() -> None:
    """Print the seconds of each part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--what", nargs="*", default=["digits"], choices=("digits", "images"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--per-group", type=int, default=4700)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(options.threads)
    for what in options.what:
        on = "cpu" if what == "digits" else device
        print(f"{what} on {on}, {options.threads} threads")
        digits(options.seeds) if what == "digits" else images(options.per_group, options.batch, on)


if __name__ == "__main__":
    main()
