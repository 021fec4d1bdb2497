"""One number for utility, privacy and fairness: a weighted harmonic mean of three parts in [0, 1].

Hassanpour et al. (arXiv 2412.11951) propose a *harmonic score* of accuracy, privacy and fairness. Its formula is in no
text that was at hand, so this one is **ours**, and no number of it is theirs:

    score = (w_1 + w_2 + w_3) / (w_1 / part_1 + w_2 / part_2 + w_3 / part_3),

    utility = accuracy,    privacy = 1 - max(0, 2 AUC - 1) / a,    fairness = 1 - bias / b,

with 2 AUC - 1 the attack's advantage. What counts as worst, a and b, decides how much each part moves, so a comparison
of networks must be looked at under several (`sensitivity`).
"""

from collections.abc import Mapping, Sequence
from itertools import product

import pandas as pd

WORST = {"advantage": 1.0, "bias": 0.5}
"""What counts as worst: the largest value that either can have. Smaller values stretch a part's range."""


def harmonic(parts: Mapping[str, float], weights: Mapping[str, float] | None = None) -> float:
    """Weighted harmonic mean of any parts in [0, 1], by name: sum w / sum (w / part), 0 if a part is 0.

    Weights, one for each part and 1 by default, are above 0; what makes no mean raises a ValueError.

    >>> round(harmonic({"utility": 1.0, "privacy": 0.5, "fairness": 0.25}), 6)  # 3 / (1 + 2 + 4)
    0.428571
    >>> harmonic({"utility": 0.9, "privacy": 0.0})
    0.0
    """
    weights = dict.fromkeys(parts, 1.0) if weights is None else weights
    if not parts or any(not 0 <= part <= 1 for part in parts.values()):
        raise ValueError(f"need parts in [0, 1], at least one, got {dict(parts)}")
    if weights.keys() != parts.keys() or any(not 0 < weight < float("inf") for weight in weights.values()):
        raise ValueError(f"need a weight above 0 for each of {', '.join(parts)}, got {dict(weights)}")
    if min(parts.values()) == 0:
        return 0.0
    return sum(weights.values()) / sum(weights[name] / part for name, part in parts.items())


def parts_of(accuracy: float, auc: float, bias: float, *, worst: Mapping[str, float] = WORST) -> dict[str, float]:
    """The three parts of the score, each in [0, 1], from accuracy, the attack's AUC and the mean bias (or another gap).

    An AUC below 1/2 has no advantage. From the `worst` advantage and bias on a part is 0.

    >>> parts_of(0.9, 0.6, 0.1)
    {'utility': 0.9, 'privacy': 0.8, 'fairness': 0.8}
    """
    if not (0 <= accuracy <= 1 and 0 <= auc <= 1 and bias >= 0) or min(worst.values()) <= 0:
        got = f"{accuracy}, {auc}, {bias}, {dict(worst)}"
        raise ValueError(f"need accuracy and AUC in [0, 1], a bias >= 0 and worst values above 0, got {got}")
    lost = {"privacy": max(0.0, 2 * auc - 1) / worst["advantage"], "fairness": bias / worst["bias"]}
    return {"utility": accuracy} | {name: round(max(0.0, 1 - loss), 12) for name, loss in lost.items()}


def sensitivity(
    networks: Mapping[str, tuple[float, float, float]],
    *,
    advantages: Sequence[float] = (0.1, 0.25, 0.5, 1.0),
    biases: Sequence[float] = (0.1, 0.25, 0.5),
    weights: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """How the score and the order of networks hang on what counts as worst.

    `networks` have accuracy, AUC and bias each; `advantages` and `biases` are values of the worst. Returns a row
    for each combination and network: `network`, `advantage`, `bias`, `score`, `rank` (1 is best), and `always`, whether
    the network has this rank under every combination.

    >>> rows = sensitivity({"a": (0.95, 0.6, 0.05), "b": (0.8, 0.5, 0.1)}, advantages=[0.25, 1.0], biases=[0.5])
    >>> rows["rank"].tolist(), bool(rows["always"].any())  # a is better only where its advantage counts for little
    ([2, 1, 1, 2], False)
    """
    rows = [
        {"network": name, "advantage": advantage, "bias": bias}
        | {"score": harmonic(parts_of(*values, worst={"advantage": advantage, "bias": bias}), weights)}
        for advantage, bias in product(advantages, biases)
        for name, values in networks.items()
    ]
    table = pd.DataFrame(rows)
    table["rank"] = table.groupby(["advantage", "bias"])["score"].rank(ascending=False, method="min").astype(int)
    return table.assign(always=table.groupby("network")["rank"].transform("nunique") == 1)
