"""Data sets with groups: inputs, labels y and groups a, split once by one seed.

Everything of a data set lives on one device as it was stored (uint8 for images); it is normalised, and shifted where
asked, when a batch is taken. `toy` is the 2D example of the paper's Fig. 2, `digits` are scikit-learn's bundled
handwritten digits made imbalanced as the paper does with CIFAR-10 (Sec. 5: half the classes keep 90 % of their images,
half 10 %).
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Split:
    """One part of a data set: inputs x (n, ...), labels y (n,) and groups a (n,), the last two int64."""

    x: Tensor
    y: Tensor
    a: Tensor

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class GroupedData:
    """A data set with labels and groups, split.

    Attributes:
        name: Name it is loaded by.
        splits: `train`, `val`, `test` (the training's group shares) and, where there is one, `test_balanced`.
        label_names: Name of each label.
        group_names: Name of each group.
        mean: Per channel, of the training split, on the scale [0, 1]; empty for plain features.
        std: Likewise.
        shift: Images are moved by up to this many pixels each way (0 = never): at random in training, on a fixed grid
            when predictions are averaged over `views`.
        provenance: Source, seed, options, counts: what decides the content.
    """

    name: str
    splits: dict[str, Split]
    label_names: tuple[str, ...]
    group_names: tuple[str, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    shift: int = 0
    provenance: dict[str, object] = field(default_factory=dict)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.splits["train"].x.shape[1:])

    @property
    def classes(self) -> int:
        """Number of labels."""
        return len(self.label_names)

    @property
    def counts(self) -> list[int]:
        """Training images of each group."""
        return torch.bincount(self.splits["train"].a.cpu(), minlength=len(self.group_names)).tolist()

    @property
    def roles(self) -> list[str]:
        """`majority` for groups with at least the mean group's training count, else `minority`."""
        counts = self.counts
        return ["majority" if count * len(counts) >= sum(counts) else "minority" for count in counts]

    @property
    def views(self) -> tuple[tuple[int, int], ...]:
        """The fixed shifts (down, right) over which test predictions are averaged; one, (0, 0), without `shift`."""
        steps = (-self.shift, 0, self.shift) if self.shift else (0,)
        return tuple((down, right) for down in steps for right in steps)

    def to(self, device: str | torch.device) -> "GroupedData":
        """The same data set on another device."""
        moved = {k: Split(s.x.to(device), s.y.to(device), s.a.to(device)) for k, s in self.splits.items()}
        return replace(self, splits=moved)

    def normalise(self, x: Tensor) -> Tensor:
        """Stored images (..., channels, height, width) as float32, mean zero, deviation one; features as they are."""
        if x.dtype != torch.uint8:
            return x
        mean = torch.tensor(self.mean, device=x.device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=x.device).view(-1, 1, 1)
        return (x.float() / 255 - mean) / std


def move(x: Tensor, down: Tensor, right: Tensor, reach: int) -> Tensor:
    """Move images, filling with zeros.

    Args:
        x: Images (n, channels, height, width).
        down: Pixels to move each image down, int64 (n,), within [-reach, reach].
        right: Pixels to move it right.
        reach: The largest shift.

    >>> image = torch.tensor([[1, 2], [3, 4]]).view(1, 1, 2, 2)
    >>> move(image, torch.tensor([1]), torch.tensor([0]), 1).view(2, 2).tolist()
    [[0, 0], [1, 2]]
    """
    height, width = x.shape[-2:]
    padded = F.pad(x, (reach,) * 4)
    rows = torch.arange(height, device=x.device) + reach - down.view(-1, 1)
    columns = torch.arange(width, device=x.device) + reach - right.view(-1, 1)
    image = torch.arange(len(x), device=x.device).view(-1, 1, 1)
    return padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def sine_boundary(x: np.ndarray, *, amplitude: float, frequency: float) -> np.ndarray:
    """The toy's default boundary, amplitude * sin(frequency * pi * x)."""
    return amplitude * np.sin(frequency * np.pi * x)


def parabola_boundary(x: np.ndarray, *, amplitude: float, frequency: float) -> np.ndarray:
    """A strictly convex boundary of the same reach, amplitude * (2 * (frequency * x / 2.5)^2 - 1).

    Prop. 4.3 of the paper speaks of strictly convex boundaries; the toy's sine is not one.
    """
    return amplitude * (2 * (frequency * x / 2.5) ** 2 - 1)


BOUNDARIES = {"sine": sine_boundary, "parabola": parabola_boundary}


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

    Group and label coincide. `test` has the training's shares, `test_balanced` has `test_per_group` points of each
    group.
    """
    if boundary not in BOUNDARIES:
        raise ValueError(f"no boundary {boundary!r}; there are {', '.join(BOUNDARIES)}")
    if min(majority, minority, test_per_group) < 1:
        raise ValueError(f"every group needs points, got majority={majority}, minority={minority}, {test_per_group=}")
    rng = np.random.default_rng([seed, 2024])
    total = majority + minority

    def draw(counts: tuple[int, int]) -> Split:
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

    small = max(1, round(0.2 * minority))
    test_minority = max(1, round(2 * test_per_group * minority / total))
    splits = {
        "train": draw((majority, minority)),
        "val": draw((max(1, round(0.2 * majority)), small)),
        "test": draw((2 * test_per_group - test_minority, test_minority)),
        "test_balanced": draw((test_per_group, test_per_group)),
    }
    names = ("majority", "minority")
    options = dict(boundary=boundary, amplitude=amplitude, frequency=frequency, test_per_group=test_per_group)
    return GroupedData("toy", splits, names, names, provenance=_provenance("generated", seed, options, splits))


DIGITS_PER_CLASS = 174
"""Images of the rarest digit: every class starts from this many, so that all seeds have splits of one size."""


def digits(
    *, seed: int = 0, majority_fraction: float = 0.9, minority_fraction: float = 0.1, shift: int = 2
) -> GroupedData:
    """scikit-learn's handwritten digits, imbalanced by class: a random half of the classes is the minority.

    Per class: 54 images for the balanced test, 120 to train on, of which a majority class keeps 90 % and a minority
    class 10 %; a sixth of what is left is validation. `test` keeps the same fractions of the balanced test. The 8x8
    digits lie on a 12x12 canvas, moved by up to `shift` pixels (centred digits are so easy that nothing can be seen on
    them). Group and label coincide.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998 (test part).
    """
    if not 0 < minority_fraction <= majority_fraction <= 1:
        raise ValueError(
            f"need 0 < minority_fraction <= majority_fraction <= 1, got {minority_fraction}, {majority_fraction}"
        )
    if shift not in range(3):
        raise ValueError(f"shift must be 0, 1 or 2 pixels (the canvas leaves 2), got {shift}")
    from sklearn.datasets import load_digits

    source = load_digits()
    images = np.pad(np.round(source.images * 255 / 16).astype(np.uint8), ((0, 0), (2, 2), (2, 2)))[:, None]
    rng = np.random.default_rng([seed, 1998])
    minority = set(rng.permutation(10)[:5].tolist())
    chosen: dict[str, list[np.ndarray]] = {"train": [], "val": [], "test": [], "test_balanced": []}
    for label in range(10):
        fraction = minority_fraction if label in minority else majority_fraction
        index = rng.permutation(np.flatnonzero(source.target == label))[:DIGITS_PER_CLASS]
        test, pool = index[:54], index[54:]
        kept = pool[: max(2, round(fraction * len(pool)))]
        held = max(1, round(len(kept) / 6))
        chosen["val"].append(kept[:held])
        chosen["train"].append(kept[held:])
        chosen["test"].append(test[: max(1, round(fraction * len(test)))])
        chosen["test_balanced"].append(test)
    splits = {}
    for name, parts in chosen.items():
        index = np.concatenate(parts)
        y = torch.from_numpy(source.target[index].astype(np.int64))
        splits[name] = Split(torch.from_numpy(images[index]), y, y.clone())
    pixels = splits["train"].x.float() / 255
    names = tuple(str(digit) for digit in range(10))
    options = dict(majority_fraction=majority_fraction, minority_fraction=minority_fraction, shift=shift)
    return GroupedData(
        "digits",
        splits,
        names,
        names,
        mean=(pixels.mean().item(),),
        std=(pixels.std().item(),),
        shift=shift,
        provenance=_provenance("scikit-learn load_digits (UCI, 1998)", seed, options, splits),
    )


def _provenance(source: str, seed: int, options: dict, splits: dict[str, Split]) -> dict[str, object]:
    content = hashlib.sha256()
    for name in sorted(splits):
        content.update(splits[name].x.numpy().tobytes())
        content.update(splits[name].y.numpy().tobytes())
        content.update(splits[name].a.numpy().tobytes())
    counts = {name: torch.bincount(split.a).tolist() for name, split in splits.items()}
    return {
        "source": source,
        "seed": seed,
        "options": options,
        "counts": counts,
        "sha256": content.hexdigest(),
    }


DATASETS: dict[str, Callable[..., GroupedData]] = {"toy": toy, "digits": digits}


def load_data(name: str, *, seed: int = 0, **options: object) -> GroupedData:
    """Load a data set by name.

    Args:
        name: One of `DATASETS`.
        seed: Decides the sample and the split, for teacher and students alike.
        **options: Options of that data set.

    Raises:
        ValueError: For an unknown name.

    >>> load_data("digits", seed=1).counts.count(10)
    5
    """
    if name not in DATASETS:
        raise ValueError(f"no data set {name!r}; there are {', '.join(DATASETS)}")
    return DATASETS[name](seed=seed, **options)
