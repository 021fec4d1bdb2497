"""Floors: the seconds below which a cell cannot be computed, by arithmetic, before anything is measured.

One training image costs the multiply-accumulates of its forward and backward pass, 2 operations each, and one forward
pass of the teacher more where its logits are not kept. The layers read and write their inputs and outputs: forward
in + out, backward out (gradient) + in (saved) + in (gradient), so out + 2 in. A step reads and writes the weights too,
8 times in float32: forward, backward, gradient, and the optimizer's three reads and two writes (Adam two more). So

    seconds >= max(operations / (operations a second), bytes / (bytes a second)).

The first bound holds for any program. The second is that of layers run one by one: what fuses them moves less.
Additions between layers, order and shift of images, evaluation, diagnostics, every launch and wait are left out.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from linfair.cost import count_macs
from linfair.device import device_name
from linfair.linearizers import registry
from linfair.models import build
from linfair.study.arms import ARMS
from linfair.study.plan import Job, find, plan
from linfair.study.recipes import Recipe, recipe
from linfair.study.work import teacher_id
from linfair.training import Schedule

PAPER_PATH = 300
"""Epochs of SNL's mask path with the paper's growth of 10 %: an assumption, to be replaced by what runs show."""
SHAPE, CLASSES = (3, 32, 32), 10
"""One image of every data set of the paper; the number of classes hardly matters."""


@dataclass(frozen=True)
class Machine:
    """What a machine reaches at best.

    Attributes:
        name: Its name.
        operations: Floating-point operations a second in a large matrix product.
        bytes: Bytes a second, read plus written, in a large copy.
        source: Where the two come from.
    """

    name: str
    operations: float
    bytes: float
    source: str


H200 = Machine(
    "H200", 790e12, 4.3e12, "measured once on an H200: a large bf16 matrix product, a copy; not by this page"
)
"""A fast GPU's ceilings; nothing else on the page was measured on one."""


def ceilings(
    device: str = "cpu", *, precision: str = "float32", size: int = 1024, megabytes: int = 128, turns: int = 5
) -> Machine:
    """Measure a machine's ceilings in this process: the best of some products and copies.

    Args:
        device: `cpu` or `cuda`.
        precision: Of the product, `float32` or `bf16`.
        size: Rows and columns of the matrices.
        megabytes: MiB that are copied; more than the caches hold.
        turns: How often.
    """
    kind = {"float32": torch.float32, "bf16": torch.bfloat16}[precision]
    matrix = torch.randn(size, size, generator=torch.Generator().manual_seed(0)).to(device, kind)
    source = torch.zeros(megabytes * 2**18, device=device)
    target = torch.empty_like(source)

    def best(run: object) -> float:
        seconds = []
        for _ in range(turns + 1):  # the first warms up
            start = time.perf_counter()
            run()
            if device != "cpu":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        return min(seconds[1:])

    operations = 2 * size**3 / best(lambda: matrix @ matrix)
    moved = 2 * source.nbytes / best(lambda: target.copy_(source))
    return Machine(device_name(device), operations, moved, f"{precision} product and copy, measured in this process")


@dataclass(frozen=True)
class ImageCost:
    """What one image costs one network; weights are counted in elements.

    Attributes:
        forward_macs: Multiply-accumulates of the forward pass.
        training_macs: Of forward and backward pass.
        forward_elements: Elements the layers read and write in the forward pass.
        training_elements: In both.
        weights: Parameters.
    """

    forward_macs: int
    training_macs: int
    forward_elements: int
    training_elements: int
    weights: int


def image_cost(model: nn.Module, input_shape: tuple[int, ...]) -> ImageCost:
    """Count one image's operations and elements by running it, forward and backward.

    The first layer's gradient with respect to the image is not needed, nor counted.

    Args:
        model: A network; its gradients are cleared, its running statistics stay.
        input_shape: Shape of one input.

    A linear layer 3 -> 2: 6 forward, and 6 backward for the weights' gradient.

    >>> image_cost(nn.Linear(3, 2), (3,))
    ImageCost(forward_macs=6, training_macs=12, forward_elements=5, training_elements=13, weights=8)
    """
    inputs = outputs = 0

    def count(_module: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
        nonlocal inputs, outputs
        inputs += sum(one.numel() for one in given)
        outputs += result.numel()

    skipped = (nn.Identity, nn.Flatten)
    leaves = [m for m in model.modules() if not list(m.children()) and not isinstance(m, skipped)]
    handles = [leaf.register_forward_hook(count) for leaf in leaves]
    training = model.training
    model.eval()
    like = next(model.parameters())
    x = torch.zeros(1, *input_shape, device=like.device, dtype=like.dtype)
    y = torch.zeros(1, dtype=torch.int64, device=like.device)
    try:
        with FlopCounterMode(display=False) as counter:
            F.cross_entropy(model(x), y).backward()
    finally:
        for handle in handles:
            handle.remove()
        model.zero_grad(set_to_none=True)
        model.train(training)
    return ImageCost(
        forward_macs=count_macs(model, input_shape),
        training_macs=counter.get_total_flops() // 2,
        forward_elements=inputs + outputs,
        training_elements=3 * inputs + 2 * outputs,
        weights=sum(parameter.numel() for parameter in model.parameters()),
    )


@dataclass(frozen=True)
class Work:
    """Operations and bytes of a piece of training.

    Attributes:
        images: Images trained on, each as often as it is visited.
        operations: Floating-point operations, two for a multiply-accumulate.
        bytes: Bytes read plus written.
    """

    images: int = 0
    operations: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.images + other.images, self.operations + other.operations, self.bytes + other.bytes)

    def times(self, count: int) -> "Work":
        """The same so many times."""
        return Work(count * self.images, count * self.operations, count * self.bytes)

    def seconds(self, machine: Machine) -> tuple[float, float]:
        """The floors by operations and by bytes."""
        return self.operations / machine.operations, self.bytes / machine.bytes


def training_work(cost: ImageCost, schedule: Schedule, images: int, *, epochs: int | None = None, teacher: str) -> Work:
    """What one stage of training one network takes.

    Args:
        cost: Of one image.
        schedule: The stage's; its precision says how many bytes an activation has.
        images: Images of the training split.
        epochs: Epochs, if not the schedule's.
        teacher: `none`, `cached` (its logits are computed once) or `every step`.
    """
    if teacher not in ("none", "cached", "every step"):
        raise ValueError(f"teacher must be none, cached or every step, got {teacher!r}")
    epochs = schedule.epochs if epochs is None else epochs
    visits, steps = epochs * images, epochs * math.ceil(images / (schedule.batch_size or images))
    asked = {"none": 0, "cached": images, "every step": visits}[teacher]
    width = 2 if schedule.precision == "bf16" else 4
    passes = 8 if schedule.optimizer == "sgd" else 10
    moved = (
        width * (visits * cost.training_elements + asked * cost.forward_elements) + steps * passes * 4 * cost.weights
    )
    return Work(visits, 2.0 * (visits * cost.training_macs + asked * cost.forward_macs), float(moved))


def path_epochs(growth: float) -> int:
    """Epochs of a mask path, if lambda has to grow by as much as in `PAPER_PATH` epochs of 10 %.

    >>> path_epochs(1.1), path_epochs(1.4)
    (300, 85)
    """
    return math.ceil(PAPER_PATH * math.log(1.1) / math.log(growth))


def configurations(stages: int) -> int:
    """Networks that DeepReDuce trains in its search, 3 stages - 1.

    No stage kept and each alone, then 2 stages - 1 candidates, of which one has been trained already.

    >>> configurations(4)
    11
    """
    return 3 * stages - 1


def cell_floors(
    cost: ImageCost,
    plan: Recipe,
    *,
    images: int,
    method: str = "snl",
    budgets: int = 5,
    arms: Sequence[str] = ("original", "plain", "control", "lagrangian", "kd_over_c"),
    teacher: str = "cached",
    epochs: int | None = None,
    stages: int = 4,
    options: Mapping[str, object] | None = None,
) -> dict[str, Work]:
    """The stages of one cell: base training, mask selection, its control, fine-tuning of every arm at every budget.

    Args:
        cost: Of one image and one network.
        plan: How each stage is trained.
        images: Images of the training split.
        method: `snl`, `deepreduce`, or a method without a mask phase.
        budgets: How many.
        arms: All but the original are fine-tuned.
        teacher: `cached`, or `every step` where images are shifted anew in every epoch.
        epochs: Epochs of the mask path, if known; by default `path_epochs`.
        stages: Of the network, for DeepReDuce's search; ResNets have four.
        options: Options of the method that differ from the plan's. A fixed list of DeepReDuce trains one network for
            each budget; without fine-tuning every mitigated arm trains them anew.

    Returns:
        `base`, `path`, `control` (its mask phase) and `finetune`.
    """
    options, path, control = replace(plan.method(method), **(options or {})), Work(), Work()
    if method == "snl":
        count = path_epochs(options.growth) if epochs is None else epochs
        path = control = training_work(cost, options.schedule, images, epochs=count, teacher=teacher)
    elif method == "deepreduce":
        control = training_work(cost, options.schedule, images, teacher=teacher)
        fixed = options.configurations is not None
        path = control.times(budgets if fixed else configurations(stages))
    mitigated, finetunes = [arm for arm in arms if arm not in ARMS], registry.find(method).finetunes(options)
    if not finetunes:
        path = path.times(1 + len(mitigated))
    tuned = training_work(cost, plan.finetune, images, teacher=teacher)
    return {
        "base": training_work(cost, plan.base, images, teacher="none"),
        "path": path,
        "control": control if "control" in arms else Work(),
        "finetune": tuned.times(budgets * sum(arm != "original" for arm in arms)) if finetunes else Work(),
    }


def stage_table(stages: Mapping[str, Work], machine: Machine) -> pd.DataFrame:
    """The floors of a cell's stages in seconds, and their sum.

    Returns:
        A row for each stage and `all`: `images`, `operations`, `bytes`, `by_operations`, `by_bytes` (seconds) and
        `floor`, the larger of the two.
    """
    named = dict(stages) | {"all": sum(stages.values(), Work())}
    rows = [(stage, one.images, one.operations, one.bytes, *one.seconds(machine)) for stage, one in named.items()]
    table = pd.DataFrame(rows, columns=["stage", "images", "operations", "bytes", "by_operations", "by_bytes"])
    return table.assign(floor=table[["by_operations", "by_bytes"]].max(axis=1))


@cache
def paper_cost(network: str) -> ImageCost:
    """The cost of one 32x32 image in a network at full width; counted without memory or computing (meta tensors).

    >>> paper_cost("resnet18").forward_macs
    555422720
    """
    with torch.device("meta"):
        return image_cost(build(network, SHAPE, CLASSES), SHAPE)


@cache
def _stages(
    network: str,
    profile: str,
    method: str,
    images: int,
    budgets: int,
    arms: tuple[str, ...],
    options: tuple[tuple[str, object], ...],
) -> dict[str, Work]:
    sizes = {"images": images, "method": method, "budgets": budgets, "arms": arms, "options": dict(options)}
    return cell_floors(paper_cost(network), recipe(network, profile), **sizes)


def grid_floors(
    profile: str, images: Mapping[str, int], machine: Machine = H200, *, seeds: int | None = None
) -> pd.DataFrame:
    """The least a whole study takes, all figures: what no run can be faster than, and any will be slower.

    Teachers that cells share are counted once.

    Args:
        profile: `fast` or `paper`.
        images: Training images of each data set.
        machine: Whose ceilings.
        seeds: How many; the profile's by default.

    Returns:
        A row for each data set, network and method, in the queue's order, and `all`: `cells`, `arms` (without those of
        the original networks), `operations`, `bytes`, and the floor in `hours`.
    """
    rows, taught = {}, set()
    for job in plan(find("all"), profile, seeds=seeds):
        work = _job(job, images[job.cell.data], taught)
        at = job.cell.data, job.cell.network, job.cell.method
        cells, arms, before = rows.get(at, (0, 0, Work()))
        rows[at] = cells + 1, arms + sum(arm != "original" for arm in job.arms), before + work
    cells, arms, works = zip(*rows.values(), strict=True)
    rows["all", "", ""] = sum(cells), sum(arms), sum(works, Work())
    found = [
        (*at, cells, arms, work.operations, work.bytes, max(work.seconds(machine)) / 3600)
        for at, (cells, arms, work) in rows.items()
    ]
    return pd.DataFrame(found, columns=["data", "network", "method", "cells", "arms", "operations", "bytes", "hours"])


def _job(job: Job, images: int, taught: set[str]) -> Work:
    cell = job.cell
    work = dict(_stages(cell.network, cell.profile, cell.method, images, len(cell.budgets), job.arms, cell.options))
    if (teacher := teacher_id(cell)) in taught:
        del work["base"]
    taught.add(teacher)
    if set(job.arms) == {"original"}:
        del work["path"]
    return sum(work.values(), Work())
