"""Measure a network, or every member of an ensemble, on every split and group: the rows of a result table."""

import platform
from collections.abc import Sequence

import pandas as pd
import torch
from torch import nn

from linfair.data import GroupedData
from linfair.metrics.accuracy import group_accuracy
from linfair.training import Data, correctness


def measure(
    model: nn.Module,
    data: Data,
    seeds: Sequence[int],
    budget: float,
    units: int,
    kept: Sequence[int],
    epochs: Sequence[int],
) -> pd.DataFrame:
    """A row per (seed, split, group) with n, accuracy and its Wilson interval.

    Args:
        model: Network, or ensemble.
        data: Its data set, or one for each member.
        seeds: One for each member.
        budget: ReLU budget, a fraction.
        units: The same as a count.
        kept: ReLUs each member keeps.
        epochs: Epochs each member had trained when its mask was taken.
    """
    sets = [data] if isinstance(data, GroupedData) else list(data)
    rows = []
    for split in sets[0].splits:
        right = correctness(model, data, split)
        for member, (seed, one) in enumerate(zip(seeds, sets, strict=True)):
            measured = group_accuracy(right[member], one.splits[split].a, len(one.group_names))
            for group, role, trained in zip(measured, one.roles, one.counts, strict=True):
                rows.append(
                    {
                        "budget": budget,
                        "budget_units": units,
                        "kept": kept[member],
                        "mask_epochs": epochs[member],
                        "seed": seed,
                        "split": split,
                        "group": group.group,
                        "group_name": one.group_names[group.group],
                        "role": role,
                        "n_train": trained,
                        "n": group.n,
                        "accuracy": group.accuracy,
                        "low": group.low,
                        "high": group.high,
                    }
                )
    return pd.DataFrame(rows)


def device_name(device: str) -> str:
    """The device in words: the GPU's name, or the CPU's kind and threads."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()}, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)})"
