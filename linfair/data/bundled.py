"""Data that need no download: the paper's 2D toy (Fig. 2) and scikit-learn's handwritten digits."""

import numpy as np
import torch

from linfair.data.core import GroupedData, Split, ensure, provenance_of
from linfair.names import unknown

BOUNDARIES = {
    "sine": lambda x, *, amplitude, frequency: amplitude * np.sin(frequency * np.pi * x),
    "parabola": lambda x, *, amplitude, frequency: amplitude * (2 * (frequency * x / 2.5) ** 2 - 1),
}
"""The toy's curves; the parabola is strictly convex, as Prop. 4.3 of the paper asks, the sine is not."""


def toy(
    *,
    seed: int = 0,
    boundary: str = "sine",
    amplitude: float = 0.5,
    frequency: float = 2.5,
    majority: int = 900,
    minority: int = 100,
    test_per_group: int = 1000,
) -> GroupedData:
    """The 2D example of the paper's Fig. 2: uniform points of [-1, 1]^2, the minority above a curve.

    Group and label coincide. The curve is one of `BOUNDARIES`; `amplitude` is its reach, `frequency` the waves of the
    sine on [-1, 1], or how fast the parabola rises. `majority` and `minority` are the training points below and above
    it; `test` has the same shares, and as many points in all as `test_balanced`, where a group has `test_per_group`. A
    ValueError refuses an unknown boundary, a group without points, and a curve that leaves one side empty.
    """
    if boundary not in BOUNDARIES:
        raise ValueError(unknown("no boundary", boundary, BOUNDARIES))
    if min(majority, minority, test_per_group) < 1:
        raise ValueError(f"every group needs points, got majority={majority}, minority={minority}, {test_per_group=}")
    rng = np.random.default_rng([seed, 2024])

    def draw(*counts: int) -> Split:
        parts = [np.empty((0, 2)), np.empty((0, 2))]
        while any(len(part) < count for part, count in zip(parts, counts, strict=True)):
            points = rng.uniform(-1, 1, (4 * sum(counts), 2))
            above = points[:, 1] > BOUNDARIES[boundary](points[:, 0], amplitude=amplitude, frequency=frequency)
            if above.all() or not above.any():
                raise ValueError(f"the boundary with amplitude {amplitude} leaves one side of [-1, 1]^2 empty")
            parts = [np.concatenate([part, points[side]]) for part, side in zip(parts, (~above, above), strict=True)]
        x = np.concatenate([part[:count] for part, count in zip(parts, counts, strict=True)])
        y = torch.repeat_interleave(torch.arange(2), torch.tensor(counts))
        return Split(torch.tensor(x, dtype=torch.float32), y, y.clone())

    above = max(1, round(2 * test_per_group * minority / (majority + minority)))
    splits = {
        "train": draw(majority, minority),
        "val": draw(max(1, round(0.2 * majority)), max(1, round(0.2 * minority))),
        "test": draw(2 * test_per_group - above, above),
        "test_balanced": draw(test_per_group, test_per_group),
    }
    names = ("majority", "minority")
    options = dict(boundary=boundary, amplitude=amplitude, frequency=frequency, test_per_group=test_per_group)
    return GroupedData("toy", splits, names, names, provenance=provenance_of("generated", seed, options, splits))


DIGITS_PER_CLASS = 174  #: Images of the rarest digit; every class starts from as many, so splits have one size
UCI = "scikit-learn load_digits (UCI, 1998)"


def handwritten(shift: int) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's 8x8 digits on a 12x12 canvas, uint8 of shape (n, 1, 12, 12), and which digits they are."""
    ensure(shift in range(3), f"shift must be 0, 1 or 2 pixels (the canvas leaves 2), got {shift}")
    from sklearn.datasets import load_digits

    source = load_digits()
    images = np.pad(np.round(source.images * 255 / 16).astype(np.uint8), ((0, 0), (2, 2), (2, 2)))[:, None]
    return images, source.target.astype(np.int64)


def digits(
    *, seed: int = 0, majority_fraction: float = 0.9, minority_fraction: float = 0.1, shift: int = 2
) -> GroupedData:
    """scikit-learn's handwritten digits, imbalanced as the paper's CIFAR-10 (Sec. 5): a random half is the minority.

    Per class: 54 images for the balanced test, 120 to train on, of which a majority class keeps 90 % and a minority
    class 10 %; a sixth of what is left is validation. `test` keeps the same fractions of the balanced test. The 8x8
    digits lie on a 12x12 canvas, moved by up to `shift` pixels (centred digits are so easy that nothing can be seen on
    them). Group and label coincide. The fractions and the shift (0 to 2) may be others.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998 (test part).
    """
    if not 0 < minority_fraction <= majority_fraction <= 1:
        given = f"{minority_fraction}, {majority_fraction}"
        raise ValueError(f"need 0 < minority_fraction <= majority_fraction <= 1, got {given}")
    images, target = handwritten(shift)
    rng = np.random.default_rng([seed, 1998])
    minority = set(rng.permutation(10)[:5].tolist())
    drawn = []
    for label in range(10):
        fraction = minority_fraction if label in minority else majority_fraction
        index = rng.permutation(np.flatnonzero(target == label))[:DIGITS_PER_CLASS]
        test, pool = index[:54], index[54:]
        kept = pool[: max(2, round(fraction * len(pool)))]
        held = max(1, round(len(kept) / 6))
        drawn.append((kept[held:], kept[:held], test[: max(1, round(fraction * len(test)))], test))
    splits = {}
    for name, parts in zip(("train", "val", "test", "test_balanced"), zip(*drawn, strict=True), strict=True):
        index = np.concatenate(parts)
        y = torch.from_numpy(target[index])
        splits[name] = Split(torch.from_numpy(images[index]), y, y.clone())
    pixels = splits["train"].x.float() / 255
    names, scale = tuple(map(str, range(10))), {"mean": (pixels.mean().item(),), "std": (pixels.std().item(),)}
    options = dict(majority_fraction=majority_fraction, minority_fraction=minority_fraction, shift=shift)
    provenance = provenance_of(UCI, seed, options, splits)
    return GroupedData("digits", splits, names, names, **scale, shift=shift, provenance=provenance)
