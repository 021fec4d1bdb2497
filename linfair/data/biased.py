"""Data with the synthetic bias of Wang et al.: half of the classes are mostly in colour, the others mostly grey.

The label is the class, the group is the *domain*, colour or grey. Of a class's training images a share `skew` is in the
domain that the class is *aligned* with (at 0.5 colour says nothing); the test holds every image in both. Classes of odd
number are aligned with colour, even ones with grey: for CIFAR-10 as Wang et al. print it, for other sets ours.

Source: Z. Wang, K. Qinami, I. C. Karakozis, K. Genova, P. Nair, K. Hata, O. Russakovsky, "Towards Fairness in Visual
Recognition: Effective Strategies for Bias Mitigation", CVPR 2020.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from PIL import Image

from linfair.data.bundled import DIGITS_PER_CLASS, UCI, handwritten
from linfair.data.core import Collection, GroupedData, ensure
from linfair.data.images import check_size, content_digest, small
from linfair.data.named import VALIDATION, Root, grouped
from linfair.data.official import CLASSES
from linfair.data.sources import read
from linfair.data.splits import part, thin
from linfair.data.values import Groups

DOMAINS = ("colour", "grey")


def digits_s(*, seed: int = 0, skew: float = 0.95, shift: int = 2) -> GroupedData:
    """The handwritten digits of `digits`, odd ones mostly in colour and even ones mostly grey.

    Per class 54 images are tested, each in both domains, 100 train and 20 validate; of the last two a share `skew`, in
    [0.5, 1), is in the domain of its class. A coloured digit is orange: the same red as a grey one, half as much green,
    no blue, so the digit can be read off the red channel in both domains. Digits are moved by up to `shift` pixels.
    """
    images, label = handwritten(shift)
    official, rng = np.full(len(label), -1), np.random.default_rng([seed, 1998])
    for digit in range(10):
        index = rng.permutation(np.flatnonzero(label == digit))[:DIGITS_PER_CLASS]
        official[index[:54]], official[index[54:]] = 1, 0
    orange = np.concatenate([images, images // 2, 0 * images], axis=1)
    about = {"same": np.arange(len(label)), "official": official, "origin": UCI}
    source = Collection("digits_s", orange, {"label": label}, **about, sha256=content_digest(orange, {"label": label}))
    data = _biased(source, lambda x: x[:, :1].repeat(3, axis=1), seed, {"skew": skew}, 1 / 6)
    data.provenance["options"]["shift"] = shift
    return replace(data, shift=shift)


def cifar_s(
    name: str,
    *,
    seed: int = 0,
    root: Root = None,
    skew: float = 0.95,
    images: int | None = None,
    size: int = 32,
    validation: float = VALIDATION,
) -> GroupedData:
    """CIFAR-10S or CIFAR-100S: every class keeps its training images, a share `skew` of them in its own domain.

    Before validation is taken a class has 5,000 (of CIFAR-100 500) images to train on, or its part of `images`, which
    are drawn by the seed, equally many of each class. Images of side `size` are resized before they turn grey, which is
    Pillow's mode L in three equal channels. The test holds all 10,000 official test images in both domains.
    """
    source, options = read(name.removesuffix("s"), root), {"skew": skew, "size": size, "validation": validation}
    options |= {} if images is None else {"images": images}
    check_size(size)
    return _biased(replace(source, name=name), in_grey, seed, options, validation)


def in_grey(images: np.ndarray) -> np.ndarray:
    """RGB images, uint8 of shape (n, 3, height, width), through Pillow's mode L, again with three channels."""
    n, _, height, width = images.shape
    lines = np.ascontiguousarray(images.transpose(0, 2, 3, 1)).reshape(n * height, width, 3)  # one tall picture
    return np.asarray(Image.fromarray(lines).convert("L")).reshape(n, 1, height, width).repeat(3, axis=1)


def _biased(
    source: Collection, grey: Callable[[np.ndarray], np.ndarray], seed: int, options: dict, validation: float
) -> GroupedData:
    """A collection in colour and then the same in grey, and which of these images are in a split."""
    skew, label, names = options["skew"], source.fields["label"], CLASSES[source.name.replace("0s", "0")]
    ensure(0.5 <= skew < 1, f"skew is the share of a class in its own domain, at least 0.5 and below 1, got {skew}")
    rng, train, aligned = np.random.default_rng([seed, 1911]), source.official == 0, 1 - np.arange(len(names)) % 2
    if (images := options.get("images")) is not None:
        counts, each = np.bincount(label[train], minlength=len(names)), images // len(names)
        allowed = f"a multiple of {len(names)} from {4 * len(names)} to {len(names) * counts.min():,}"
        ensure(4 <= each <= counts.min() and images % len(names) == 0, f"images must be {allowed}, got {images}")
        train = thin(label, (each / counts).tolist(), rng, among=train)
    used = train | (source.official == 1)
    label, same, train = label[used], source.same[used], train[used]
    val, n = part(label, same, validation, rng, among=train), len(label)
    parts = {"train": train & ~val, "val": val}
    for split, chosen in parts.items():
        domain = np.full(n, -1)
        for number in range(len(names)):
            mine = rng.permutation(np.flatnonzero(chosen & (label == number)))
            most = min(round(skew * len(mine)), len(mine) - 1)  # one image at least is in the other domain
            domain[mine[:most]], domain[mine[most:]] = aligned[number], 1 - aligned[number]
        parts[split] = np.concatenate([domain == 0, domain == 1])
    parts["test"] = np.tile(~train, 2)
    x = source.images[used]
    if size := options.get("size"):
        x = np.stack([small(Image.fromarray(one), size) for one in x.transpose(0, 2, 3, 1)])
    source = replace(source, images=np.concatenate([x, grey(x)]), same=np.tile(same, 2))
    groups, labels = Groups(np.repeat([0, 1], n), DOMAINS), (np.tile(label, 2), names)
    data = grouped(source.name, source, labels, seed, options, groups=groups, parts=parts)
    return replace(data, aligned=tuple(aligned.tolist()))
