"""Names of rows, arms and options in a reader's words, for the claims page."""

import re

from linfair_book.judging.judge import Judged
from linfair_book.judging.rows import INIT

from linfair.names import NAMES

WORDS = {name: NAMES[name] for name in ("svhn subset", "resnet18", "snl", "deepreduce", "prune_magnitude")}
WORDS |= {"digits_s": "digits with a bias", "mlp": "an MLP", "cnn": "a small CNN"}
WORDS |= {
    "digits (scale=fixed, shift=0)": "centred digits",
    "utkface_gender (group=race)": "UTKFace by gender and race",
}
WORDS |= {"digits (minority_fraction=0.9, scale=fixed, shift=0)": "centred digits with as many images of the minority"}
WORDS |= {"check_every=1": "counted at every step", "exact=True": "exact counts", "rewind=True": "its mask alone"}
WORDS |= {"negative_part": "most negative inputs", "lagrangian(mu=0.005, clip=5.0)": "mitigated (mu 0.005, clipped)"}
WORDS |= {"thin": "short training", "small": "the book's schedule", "cpu": "a laptop's schedule"}
WORDS |= {"start=fresh": "from fresh weights", "start=teacher": "from the teacher's weights"}
WORDS |= {"sgd": "SGD", "clipped": "SGD with batches clipped", "sam": "SAM", "asam": "ASAM"}
WORDS |= {"dp_sgd": "DP-SGD", "dp_sat": "DP-SAT", "epsilon inf": "without privacy", "at before": "before that epoch"}
WORDS |= {"attack loss": "attack by the loss", "attack lira_online": "online LiRA", "plain of snl": "plain of SNL"}
WORDS |= {"technique all": "all techniques", "technique nothing": "no technique", "conflicting": "against the skew"}
WORDS |= {"removed nothing": "nothing removed", "removed random": "random ones removed", "rest": "what is left"}
WORDS |= {"aligned": "images with the skew", "relative": "% of the accuracy", "violated": "violations"}
WORDS |= {"equal_gradients(kd=0.0, eigenvalues=False)": "equal gradients"}
WORDS |= {"original from lagrangian(kd=0.0)": "a mitigated original"}
"""What the names of rows, arms and options mean to a reader."""

SHORT = {r"\(kd=0\.0\)": "", r"lagrangian": "mitigated", r"\(mu=(.*?)\)": r" (mu \1)", r"^utkface_": "UTKFace by "}
SHORT |= {
    r" from mitigated": ", from a mitigated original",
    r"epochs=(\d+)": r"\1 epochs",
    r"shadows (\d+)": r"\1 shadows",
    r"(\d\.\d)\d{2,} %": r"\1 %",
}
"""Parts of such names as a reader meets them."""


def in_words(name: object) -> str:
    """A name of the rows in a reader's words, part by part.

    >>> in_words("utkface_race"), in_words("epsilon inf, skew 0.95"), in_words("lagrangian(mu=0.01)")
    ('UTKFace by race', 'without privacy, skew 0.95', 'mitigated (mu 0.01)')
    """
    text = WORDS.get(str(name)) or ", ".join(WORDS.get(part, part) for part in str(name).split(", "))
    for pattern, words in SHORT.items():
        text = re.sub(pattern, words, text)
    return text


def name(judged: Judged) -> str:
    """A set of rows in words: data, network with its width, method, profile, seeds."""
    names = judged.names
    width = f", width {int(names['width'])}" if int(names["width"]) else ""
    method = "without reduction" if names["method"] == "original" else in_words(names["method"])
    options = f", {in_words(names['options'])}" if names["options"] else ""
    options += f", weights start {names['init']}" if names["init"] != INIT else ""
    first = [in_words(names["data"]), f"{in_words(names['network'])}{width}", method + options]
    return ", ".join([*first, in_words(names["profile"])])
