"""Outliers: take the most exposed training images away, train anew, and see what that costs and whom it exposes.

Said to lower accuracy and raise bias (Hassanpour et al., arXiv 2412.11951), and to expose the next layer (Carlini et
al., arXiv 2206.10469). Both are compared with as many random images. One set of shadow networks ranks and another
measures: by the same, the most exposed would fall, and the next rise, by chance alone.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import nn

from linfair.data import GroupedData, Split
from linfair.metrics.bias import mean_bias
from linfair.metrics.membership import by_point, exposure, leave_one_out, shadows
from linfair.training import predict

Train = Callable[[list[GroupedData], list[int]], nn.Module]


def without(data: GroupedData, gone: np.ndarray) -> GroupedData:
    """A data set without some of its training images, `gone` bool (n,); images are scaled as before."""
    part, kept = data.splits["train"], torch.from_numpy(~gone).to(data.splits["train"].y.device)
    return replace(data, splits=data.splits | {"train": Split(part.x[kept], part.y[kept], part.a[kept])})


def removal(
    data: GroupedData,
    train: Train,
    *,
    share: float = 0.1,
    count: int = 16,
    repeats: int = 4,
    seed: int = 0,
    at_once: int = 64,
) -> pd.DataFrame:
    """What becomes of a network without a `share` of its training images, the most exposed or as many random ones.

    Each accuracy is the mean of `repeats` networks; `train` makes networks of data sets and seeds, `at_once` in a call.
    `who` is `all`, what was trained on; `rest`, whatever is not among the most exposed; or `next`, the next of the
    ranking.
    """
    pool = len(data.splits["train"])
    gone = max(1, round(share * pool))
    scores, inside, _ = _attacked(train, data, count, 3 * seed, at_once)
    order = np.argsort(-by_point(scores, inside), kind="stable")
    place = np.argsort(order)  # 0 is the most exposed image
    chance = np.random.default_rng(seed).permutation(pool) < gone
    rows = []
    for removed, lost in {"nothing": np.zeros(pool, bool), "exposed": place < gone, "random": chance}.items():
        left, kept = without(data, lost), place[~lost]
        scores, inside, part = _attacked(train, left, count, 3 * seed + 1, at_once)
        about = {"seed": seed, "removed": removed, "n_train": len(kept)}
        whose = {"all": np.ones(len(kept), bool), "rest": kept >= gone, "next": (kept >= gone) & (kept < 2 * gone)}
        for who, these in whose.items():
            cells = (part.y * len(data.group_names) + part.a).cpu().numpy()[these]
            found = exposure(scores[:, these], inside[:, these], labels=cells).loc[0]
            row = about | {"who": who, "n": int(these.sum())} | found[["auc", "low", "high"]].to_dict()
            row["tpr_1"] = found["tpr_0.01"]
            rows.append(row | (_useful(train, left, repeats, 3 * seed + 2, at_once) if who == "all" else {}))
    return pd.DataFrame(rows)


def _attacked(train: Train, data: GroupedData, count: int, seed: int, at_once: int) -> tuple:
    seen, inside = shadows(train, data, count, seed=seed, at_once=at_once)
    return leave_one_out("lira_online", seen, inside), inside, data.splits["train"]


def _useful(train: Train, data: GroupedData, repeats: int, seed: int, at_once: int) -> dict[str, float]:
    """Mean accuracy and mean bias on the test images of networks trained on all there is."""
    part, seeds = data.splits["test"], [(1000 * (seed + 1) + k) % 2**32 for k in range(repeats)]
    only, found = replace(data, splits={"train": data.splits["train"]}), []
    for own in (seeds[start:][:at_once] for start in range(0, repeats, at_once)):
        logits = predict(train([only] * len(own), own), [data] * len(own) if len(own) > 1 else data, "test")
        found += logits.view(len(own), *logits.shape[-2:]).argmax(dim=-1)
    biases = [mean_bias(one, part.a, data.classes, draws=1).bias for one in found if len(data.group_names) == 2]
    accuracy = np.mean([(one == part.y).float().mean().item() for one in found])
    return {"n": len(part), "accuracy": float(accuracy), "mean_bias": float(np.mean(biases)) if biases else np.nan}
