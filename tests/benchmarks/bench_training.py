"""Speed of training step by step, every ratio from runs that took turns in this process; see `linfair_book.speed`.

Teacher's logits kept or asked for, channels last, fused optimizer, bf16, torch.compile, all that the profile `fast`
uses, and ten small networks as an ensemble against one by one. With `--device cuda` the same on a GPU.

Run: python tests/benchmarks/bench_training.py [--device cuda] [--width 64] [--images 4096] [--batch 128] [--turns 5]
"""

import argparse

from linfair_book.speed import STEPS, Number, ladder, side_by_side

from linfair.training import threads


def show(numbers: list[Number]) -> None:
    """Print numbers as lines, what they were measured on first."""
    print(f"{numbers[-1].settings}; {numbers[-1].n} {numbers[-1].of}; {numbers[-1].device}")
    for one in numbers:
        print(f"  {one.key:48s} {one.value:10.3f} {one.unit}")


def main() -> None:
    """Print seconds, gains and floors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="leave torch.compile out")
    options = parser.parse_args()
    steps = [name for name in STEPS if options.compile or name != "torch.compile"]
    with threads(1):
        show(
            ladder(
                width=options.width,
                images=options.images,
                batch_size=options.batch,
                turns=options.turns,
                device=options.device,
                steps=steps,
            )
        )
        show(side_by_side(turns=options.turns))


if __name__ == "__main__":
    main()
