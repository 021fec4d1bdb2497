"""Runs behind `linfair_book.released` that need stages or batch normalization: a thin ResNet18, one seed a lab."""

import copy
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import torch
from torch import nn

from linfair.data import GroupedData
from linfair.linearizers import DeepReDuce
from linfair.metrics import group_gradient_norms, parameter_distance
from linfair.training import Source
from linfair_book.released_runs import ORIGINAL, Lab, by_role

CULLED = "1,4"
"""DeepReDuce's configuration here: stages 1 and 4 culled, 38 % of the units kept on 12x12 images."""


def deepreduce_objectives(lab: Lab) -> pd.DataFrame:
    """DeepReDuce trained on its authors' objective, on the released one, and on that with the released rate.

    The authors' 0.1 cross entropy + 0.9 KD at T = 4; the released 0.5 + 0.5 at T = 1; its learning rate, 1e-3, is a
    hundredth of theirs, and so is the last version's of the recipe's.
    """
    own = lab.recipe.method("deepreduce")
    own = replace(own, configurations=(CULLED,), temperature=4.0, kd_weight=0.9)
    released = replace(own, temperature=1.0, kd_weight=0.5)
    slow = replace(released, schedule=replace(own.schedule, lr=own.schedule.lr / 100))
    parts = []
    for version, options in (("authors", own), ("released", released), ("released, rate too", slow)):
        parts.append(lab.accuracies(version, _culled(lab, options)))
    return pd.concat(parts)


def _culled(lab: Lab, options: DeepReDuce) -> nn.Module:
    stages = lab.stages(lab.sets)
    return stages.path(stages.given(lab.teacher), "deepreduce", [0.4], options).records[0].model


@torch.no_grad()
def update_statistics(model: nn.Module, data: GroupedData, *, batch_size: int = 128) -> nn.Module:
    """A copy whose batch normalization has the mean and variance of the training images under the present weights.

    Each layer's statistics become the plain average over batches of nearly equal size; weights and gates stay.

    Args:
        model: One network.
        data: Its data set; images where they are, no random shifts.
        batch_size: Images of a batch.
    """
    model = copy.deepcopy(model)
    layers = [one for one in model.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
    model.train()
    source = Source(data, "train")
    for index, _ in source.epoch(["statistics"], batch_size, augment=False):
        model(source.take(index).x)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    return model.eval()


def initialisation(lab: Lab) -> pd.DataFrame:
    """Original networks from torch's own first weights and, as released, from Kaiming-normal ones 2.4 times as large.

    Beside the accuracies: the norm of the original's trained parameters, the distance to them after fine-tuning, and
    the minority's gradient norm, the scale of which the start sets.
    """
    parts, data = [], lab.sets[0]
    for version, init in (("torch", "torch"), ("released", "kaiming_normal")):
        teacher = lab.teacher if init == "torch" else lab.train(lab.sets, init=init)
        selected = lab.selected if init == "torch" else lab.select(teacher, lab.sets, lab.options())
        tuned = lab.tune(one=selected, teacher=teacher).model
        norms = group_gradient_norms(tuned, data)
        rare = [row.norm for row, role in zip(norms, data.roles, strict=True) if role == "minority"]
        moved = parameter_distance(tuned, teacher)
        numbers = {
            "norm of the original's parameters": moved.original,
            "distance to the original": moved.distance,
            "minority's gradient norm": sum(rare) / len(rare),
        }
        parts += [lab.accuracies(version, teacher, quantity=ORIGINAL), lab.accuracies(version, tuned)]
        parts += [lab.rows(version, name, "times", {"all": [value]}) for name, value in numbers.items()]
    return pd.concat(parts)


def threshold(lab: Lab) -> pd.DataFrame:
    """SNL's mask made binary: batch normalization keeps its statistics (released), or takes new ones first."""
    shocked = lab.selected
    calm = replace(shocked, model=update_statistics(shocked.model, lab.sets[0]))
    parts = []
    for version, one in (("statistics updated", calm), ("released", shocked)):
        right, rare = lab.right(one.model)
        parts.append(lab.rows(version, "accuracy before fine-tuning", "%", by_role(right, rare)))
        parts.append(lab.accuracies(version, lab.tune(one=one).model))
    return pd.concat(parts)


def per_seed(seeds: Sequence[int], runs: Sequence, **options: object) -> dict[str, pd.DataFrame]:
    """Some of this module's functions on one lab for each seed, teacher and mask path shared: name -> rows."""
    found: dict[str, list[pd.DataFrame]] = {run.__name__: [] for run in runs}
    for seed in seeds:
        lab = Lab("resnet18", (seed,), **options)
        for run in runs:
            found[run.__name__].append(run(lab))
    return {name: pd.concat(parts) for name, parts in found.items()}
