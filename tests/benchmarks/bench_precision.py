"""What bf16 does to one trained network: logits and decisions on the test images, beside float32.

Measurements of this package are in float32; this says what they would be in the precision that profile `cpu` trains in.

Run: python tests/benchmarks/bench_precision.py [--data digits] [--network resnet18] [--profile small] [--seed 0]
"""

import argparse
import copy

import torch

from linfair.data import load_data
from linfair.device import bf16_is_fast, device_name
from linfair.models import build
from linfair.study.recipes import in_precision, recipe
from linfair.training import fit, predict, supervised


def main() -> None:
    """Train once in each precision, measure each network in both, print the differences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--profile", default="small")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    data, how = load_data(options.data, seed=options.seed), recipe(options.network, options.profile)
    start = build(options.network, data.input_shape, data.classes, width=how.width, seed=options.seed)
    split = "test_balanced" if "test_balanced" in data.splits else "test"
    y = data.splits[split].y
    print(f"{device_name('cpu')}, bf16 in hardware: {bf16_is_fast('cpu')}; {options.network} on {data.name}, {split}")
    for trained in ("float32", "bf16"):
        network = copy.deepcopy(start)
        fit(network, data, supervised, in_precision(how, trained).base, seeds=[options.seed], stage="base")
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
