"""Data with the synthetic bias of Wang et al.: half of the classes are mostly in colour, the others mostly grey.

The label is the class, the group is the *domain*, colour or grey. Of a class's training images a share `skew` is in the
domain that the class is *aligned* with; the test holds every image in both. A network that takes the colour for a sign
of the class errs on the images that *conflict* with their class. At skew 0.5 colour says nothing.

Classes of odd number are aligned with colour, those of even number with grey: for CIFAR-10 these are the halves that
Wang et al. print; for other sets, whose halves nobody prints, the rule is ours.

Source: Z. Wang, K. Qinami, I. C. Karakozis, K. Genova, P. Nair, K. Hata, O. Russakovsky, "Towards Fairness in Visual
Recognition: Effective Strategies for Bias Mitigation", CVPR 2020.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from linfair.data.bundled import DIGITS_PER_CLASS, UCI, handwritten
from linfair.data.core import Collection, GroupedData, ensure
from linfair.data.images import content_digest
from linfair.data.named import DIGITS, grouped
from linfair.data.splits import part
from linfair.data.values import Groups

DOMAINS = ("colour", "grey")


def digits_s(*, seed: int = 0, skew: float = 0.95, shift: int = 2) -> GroupedData:
    """The handwritten digits of `digits`, odd ones mostly in colour and even ones mostly grey.

    Per class 54 images are tested, each in both domains, 100 train and 20 validate; of the last two a share `skew` is
    in the domain of its class. A grey digit has three equal channels, as it was scanned; a coloured one is orange: the
    same red, half as much green, no blue. So every pixel of the digit can be read off the red channel in both domains,
    and the domain off the blue one. The colour is ours. Digits are moved by up to `shift` pixels, as in `digits`.

    Raises:
        ValueError: For a skew outside [0.5, 1), or a shift out of range.
    """
    images, label = handwritten(shift)
    official, rng = np.full(len(label), -1), np.random.default_rng([seed, 1998])
    for digit in range(10):
        index = rng.permutation(np.flatnonzero(label == digit))[:DIGITS_PER_CLASS]
        official[index[:54]], official[index[54:]] = 1, 0
    orange = np.concatenate([images, images // 2, 0 * images], axis=1)
    about = {"same": np.arange(len(label)), "official": official, "origin": UCI}
    source = Collection("digits_s", orange, {"label": label}, **about, sha256=content_digest(orange, {"label": label}))
    data = _biased(source, DIGITS, lambda x: x[:, :1].repeat(3, axis=1), seed, {"skew": skew}, validation=1 / 6)
    data.provenance["options"]["shift"] = shift
    return replace(data, shift=shift)


def _biased(
    source: Collection,
    names: Sequence[str],
    in_grey: Callable[[np.ndarray], np.ndarray],
    seed: int,
    options: dict,
    *,
    validation: float,
) -> GroupedData:
    """A collection in both domains, n coloured images and then the same n in grey, and which of them are in a split."""
    skew, label, n = options["skew"], source.fields["label"], len(source)
    ensure(0.5 <= skew < 1, f"skew is the share of a class in its own domain, at least 0.5 and below 1, got {skew}")
    rng, train = np.random.default_rng([seed, 1911]), source.official == 0
    val, aligned = part(label, source.same, validation, rng, among=train), 1 - np.arange(len(names)) % 2
    parts = {"train": train & ~val, "val": val}
    for split, chosen in parts.items():
        domain = np.full(n, -1)
        for number in range(len(names)):
            mine = rng.permutation(np.flatnonzero(chosen & (label == number)))
            most = min(round(skew * len(mine)), len(mine) - 1)  # one image at least is in the other domain
            domain[mine[:most]], domain[mine[most:]] = aligned[number], 1 - aligned[number]
        parts[split] = np.concatenate([domain == 0, domain == 1])
    parts["test"] = np.tile(source.official == 1, 2)
    both = replace(source, images=np.concatenate([source.images, in_grey(source.images)]), same=np.tile(source.same, 2))
    groups, labels = Groups(np.repeat([0, 1], n), DOMAINS), (np.tile(label, 2), tuple(names))
    data = grouped(source.name, both, labels, seed, options, groups=groups, parts=parts)
    return replace(data, aligned=tuple(aligned.tolist()))
