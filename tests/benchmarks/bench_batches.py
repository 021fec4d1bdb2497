"""Time of an epoch of CIFAR-10-sized batches: our on-device path and a `DataLoader`; ratios of runs in this process.

All of them give the same images, normalised to float32, and the labels, in a random order; none augments. The data set
is generated: 50,000 images of 3x32x32 bytes.

Run: python tests/benchmarks/bench_batches.py [--images 50000] [--batch 128] [--turns 3] [--workers 0 2]
"""

import argparse
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from linfair.data import GroupedData, Split
from linfair.data.torchvision import torchvision
from linfair.training import Source


class Pictures(Dataset):
    """What torchvision's CIFAR10 does for an image: an array to a PIL image, then the transforms."""

    def __init__(self, data: GroupedData) -> None:
        transforms = torchvision().transforms
        self.images = data.splits["train"].x.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels = data.splits["train"].y.tolist()
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(data.mean, data.std)])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def generated(images: int) -> GroupedData:
    """A data set of the size of CIFAR-10's training images."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.integers(0, 256, (images, 3, 32, 32), dtype=np.uint8))
    y = torch.from_numpy(rng.integers(0, 10, images))
    names = tuple("0123456789")
    return GroupedData("generated", {"train": Split(x, y, y)}, names, names, mean=(0.5,) * 3, std=(0.25,) * 3)


def ours(data: GroupedData, batch: int) -> Callable[[], Iterator[tuple[Tensor, Tensor]]]:
    """An epoch as `fit` takes it."""

    def run() -> Iterator[tuple[Tensor, Tensor]]:
        source = Source(data, "train")
        for index, shifts in source.epoch(["0/base/0"], batch, augment=False):
            taken = source.take(index, shifts)
            yield taken.x, taken.y

    return run


def loader(data: GroupedData, batch: int, workers: int, device: str) -> Callable[[], Iterator[tuple[Tensor, Tensor]]]:
    """An epoch of a `DataLoader`, its batches moved to the device."""
    pictures = Pictures(data)

    def run() -> Iterator[tuple[Tensor, Tensor]]:
        pinned = device == "cuda"
        for x, y in DataLoader(pictures, batch, shuffle=True, num_workers=workers, pin_memory=pinned):
            yield x.to(device, non_blocking=pinned), y.to(device, non_blocking=pinned)

    return run


def seconds(run: Callable[[], Iterator[tuple[Tensor, Tensor]]], images: int, synchronise: Callable[[], None]) -> float:
    """Time of one epoch; every image must come exactly as often as it should."""
    synchronise()
    start = time.perf_counter()
    count = sum(len(y) for _, y in run())
    synchronise()
    took = time.perf_counter() - start
    if count != images:
        raise RuntimeError(f"an epoch had {count} images, not {images}")
    return took


def main() -> None:
    """Print seconds an epoch and the ratios, for every device there is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 2])
    options = parser.parse_args()
    data = generated(options.images)
    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        runs = {"on the device": ours(data.to(device), options.batch)}
        runs |= {f"DataLoader, {w} workers": loader(data, options.batch, w, device) for w in options.workers}
        synchronise = torch.cuda.synchronize if device == "cuda" else lambda: None
        best = dict.fromkeys(runs, float("inf"))
        for _ in range(options.turns):
            for name, run in runs.items():
                best[name] = min(best[name], seconds(run, options.images, synchronise))
        print(f"{device}, {torch.get_num_threads()} threads, {options.images:,} images, batch {options.batch}")
        for name, took in best.items():
            print(f"  {name:24s} {took:8.3f} s an epoch   {took / best['on the device']:6.1f} x ours")


if __name__ == "__main__":
    main()
