"""One training loop for every stage.

`fit` takes a network (or an ensemble), data, an *objective* (network, batch -> loss) and a `Schedule`; another way to
compute gradients is a *rule* (`linfair.schedule`), other batches are a *plan* (`Batches`). What an epoch draws (order,
shifts, what a network drops) depends on seed, stage and epoch alone, whatever else shares the machine or the ensemble.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import KW_ONLY, asdict, dataclass, field, replace
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from linfair.data import GroupedData, move
from linfair.device import full_precision, products
from linfair.ensemble import Ensemble, Isolation
from linfair.functional import in_mode
from linfair.gates import held
from linfair.replay import Replay, aside, repeats, worthwhile
from linfair.resume import STAGE, Kept
from linfair.schedule import SMALL, Gradient, Schedule, plain

Data = GroupedData | Sequence[GroupedData]
AT_ONCE = 1024
"""Inputs that `predict` gives to a network at a time."""


class TrainingDiverged(RuntimeError):
    """The loss, or a multiplier of a constraint, left the finite numbers or its stated limit."""


@dataclass(frozen=True)
class Failure:
    """Why one member of a training diverged, and what would help: two phrases of an error message."""

    what: str
    advice: str


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Compute on so many CPU threads (None: as many as now) until it ends: the order of a sum depends on them."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Batch:
    """Inputs (normalised), labels, groups and positions in the split; an ensemble's have a members axis in front."""

    x: Tensor
    y: Tensor
    a: Tensor
    index: Tensor
    augmented: bool
    again: bool = False  #: Whether its step asks for its loss a second time, as SAM does


Batches = Callable[[Tensor, int | None, torch.Generator], Sequence[Tensor]]
"""Groups of the training split (n,) on the CPU, the schedule's batch size and a generator -> the positions of each
batch of one epoch of one member."""


def evenly(order: Tensor, batch_size: int | None) -> Sequence[Tensor]:
    """Positions as batches of at most `batch_size` that differ by one image at most; None makes one batch of all.

    >>> [part.tolist() for part in evenly(torch.arange(5), 3)]
    [[0, 1, 2], [3, 4]]
    """
    return order.tensor_split(math.ceil(len(order) / (batch_size or len(order))))


def shuffled(groups: Tensor, batch_size: int | None, generator: torch.Generator) -> Sequence[Tensor]:
    """Every image once, in random order."""
    return evenly(torch.randperm(len(groups), generator=generator), batch_size)


def seed_of(key: str) -> int:
    """A seed of torch's generators from a text."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:7])


def _padded(values: Tensor, sizes: Sequence[int], wanted: Sequence[int], fill: int) -> Tensor:
    """Batches (..., n) one after another, of these sizes, each made as long as is wanted."""
    parts = zip(values.split(sizes, dim=-1), wanted, strict=True)
    return torch.cat([F.pad(one, (0, more - one.shape[-1]), value=fill) for one, more in parts], dim=-1)


class Source:
    """One split as batches: of one data set, or of equally large ones side by side for an ensemble.

    Inputs come in the number format of a network's weights, where these have one.
    """

    def __init__(self, data: Data, split: str, network: nn.Module | None = None) -> None:
        self.single = isinstance(data, GroupedData)
        self.sets = [data] if self.single else list(data)
        parts = [one.splits[split] for one in self.sets]
        if len({(part.x.shape, part.x.device) for part in parts}) != 1:
            sizes = sorted({tuple(part.x.shape) for part in parts})
            raise ValueError(f"data sets of an ensemble must have equally large {split} splits, got {sizes}")
        self.x, self.y, self.a = (torch.stack([getattr(part, name) for part in parts]) for name in "xya")
        self.n = self.y.shape[1]
        weights = () if network is None else network.named_parameters()
        kinds = {one.dtype for name, one in weights if one.is_floating_point() and name.rpartition(".")[2] != "alpha"}
        self.kind = kinds.pop() if len(kinds) == 1 else None

    def take(self, index: Tensor, shifts: Tensor | None = None) -> Batch:
        """The inputs at positions index (members, b), moved by shifts (2 or 3, members, b); the third says mirrored."""
        member = torch.arange(len(self.sets), device=index.device).view(-1, 1)
        x = self.x[member, index]
        if shifts is not None:
            down, right, *mirrored = shifts.flatten(1)
            moved = move(x.flatten(0, 1), down, right, self.sets[0].reach)
            for one in mirrored:
                moved = torch.where(one.view(-1, 1, 1, 1) > 0, moved.flip(-1), moved)
            x = moved.view_as(x)
        x = torch.stack([one.normalise(part) for one, part in zip(self.sets, x, strict=True)])
        x = x.to(self.kind or x.dtype) if x.is_floating_point() else x
        fields = x, self.y[member, index], self.a[member, index], index
        return Batch(*(value[0] if self.single else value for value in fields), augmented=shifts is not None)

    def epoch(
        self, keys: list[str], batch_size: int | None, augment: bool, batches: Batches = shuffled, pads: bool = False
    ) -> list:
        """Positions (and shifts) of one epoch's batches, drawn for each member by its key; -1 `pads` shorter ones."""
        orders, shifts, plans, reach = [], [], [], self.sets[0].reach
        for member, key in enumerate(keys):
            generator = torch.Generator().manual_seed(seed_of(key))
            parts = tuple(batches(self.a[member].cpu(), batch_size, generator))
            orders.append(torch.cat(parts))
            plans.append(tuple(map(len, parts)))
            if augment and reach:
                shifts.append(torch.randint(-reach, reach + 1, (2, len(orders[-1])), generator=generator))
            if shifts and self.sets[0].crop:
                mirrored = torch.randint(0, 2, (1, len(orders[-1])), generator=generator)
                shifts[-1] = torch.cat([shifts[-1], mirrored])
        sizes = tuple(map(max, *plans)) if len(plans) > 1 else plans[0]
        if len(set(plans)) > 1:
            if not pads:
                raise ValueError("this plan gives an ensemble batches of other sizes: train one network at a time")
            orders = [_padded(one, own, sizes, -1) for one, own in zip(orders, plans, strict=True)]
            shifts = [_padded(one, own, sizes, 0) for one, own in zip(shifts, plans, strict=False)]
        order = torch.stack(orders).to(self.y.device).split(sizes, dim=1)
        moved = torch.stack(shifts, dim=1).to(self.y.device).split(sizes, dim=2) if shifts else [None] * len(order)
        return list(zip(order, moved, strict=True))


def _wide(logits: Tensor) -> Tensor:
    """Logits for a loss: bfloat16 becomes float32, anything wider stays."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross entropy of each input, logits (..., n, classes), labels (..., n) -> (..., n)."""
    return F.cross_entropy(_wide(logits).flatten(0, -2), y.flatten(), reduction="none").view(y.shape)


def distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Distillation loss of each input, T^2 KL(softmax(teacher / T) || softmax(student / T)) (Hinton et al., 2015).

    Logits are (..., n, classes); no gradient flows into the teacher's.
    """
    p = F.log_softmax(_wide(teacher.detach()) / temperature, dim=-1)
    q = F.log_softmax(_wide(student) / temperature, dim=-1)
    return temperature**2 * (p.exp() * (p - q)).sum(dim=-1)


def supervised(model: nn.Module, batch: Batch) -> Tensor:
    """Objective of base training: mean cross entropy."""
    return cross_entropy(model(batch.x), batch.y).mean(dim=-1)


supervised.repeats = True


@dataclass(eq=False, repr=False)
class Distill:
    """Objective of mask learning and fine-tuning, ce * CE + kd * KD: L^KD = CE + KD with T = 4 (SNL, Algorithm 1).

    The teacher runs in evaluation mode without gradients; where inputs do not change its logits are computed once.
    """

    teacher: nn.Module
    data: Data
    _: KW_ONLY
    temperature: float = 4.0
    ce: float = 1.0
    kd: float = 1.0
    repeats: ClassVar[bool] = True
    _cache: Tensor | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.teacher.eval()

    def teacher_logits(self, batch: Batch) -> Tensor:
        """The teacher's logits on a batch."""
        with torch.no_grad():
            if batch.augmented:
                return self.teacher(batch.x)
            if self._cache is None:
                self._cache = predict(self.teacher, self.data, "train")
            return self._cache.gather(-2, batch.index.unsqueeze(-1).expand(*batch.index.shape, self._cache.shape[-1]))

    def per_input(self, logits: Tensor, batch: Batch) -> Tensor:
        """Loss ce * CE + kd * KD of each input, given the student's logits (..., n, classes) -> (..., n)."""
        if not self.kd:  # then no teacher is asked
            return self.ce * cross_entropy(logits, batch.y)
        taught = distillation(logits, self.teacher_logits(batch), self.temperature)
        return self.ce * cross_entropy(logits, batch.y) + self.kd * taught

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """Loss of the batch, ce * CE + kd * KD, one number for each member."""
        return self.per_input(model(batch.x), batch).mean(dim=-1)


@torch.random.fork_rng(devices=[])  # the caller's generator stays as it is
@aside()
def fit(
    model: nn.Module,
    data: Data,
    objective: Callable[[nn.Module, Batch], Tensor] = supervised,
    schedule: Schedule = SMALL,
    *,
    seeds: Sequence[int] | None = None,
    stage: str = "base",
    label: str | None = None,
    after_epoch: Callable[[int], bool] | None = None,
    after_step: Callable[[int], None] | None = None,
    check: Callable[[int], dict[int, Failure]] | None = None,
    gradient: Gradient | None = None,
    batches: Batches | None = None,
    isolate: bool = False,
    parts: Sequence[object] | None = None,
    progress: bool = True,
) -> list[dict[str, object]]:
    """Train a network, or every member of an ensemble, in place; a row per epoch: `epoch`, each member's mean `loss`.

    Args:
        model: A network, or an `Ensemble`.
        data: A data set, or one for each member; on the network's device.
        objective: Network and batch -> loss, one number for each member; cross entropy by default. One that `repeats`
            (see `linfair.replay`) trains faster on a GPU.
        schedule: How; by default as the small networks of this package are trained on bundled data.
        seeds: One for each member: order and shifts; 0, 1, ... by default.
        stage: Its name, part of what the seeds draw: two arms with the same stage see the same batches.
        label: Shown in the progress bar and in errors; the stage's name by default.
        after_epoch: Called with the epoch's number after it; training ends early when it returns True.
        after_step: Called after each step with the number of steps done.
        check: Called with the epoch's number before `after_epoch`; says which members diverged, beyond the loss.
        gradient: Rule that computes the gradients of a batch, see `linfair.schedule`; None is backpropagation. Its
            `check(model, objective, schedule, batches)`, where it has one, refuses what it cannot train; with `pads` it
            takes an ensemble's batches of different sizes, filled up with positions -1 that count for nothing.
        batches: Plan of an epoch's batches, see `Batches`; None is every image once, in random order.
        isolate: Put diverged members of an ensemble back to the end of their last good epoch and go on, instead of
            raising; rows then have each member's epoch of divergence, or None, in `diverged`, and its loss is nan.
        parts: What changes beside the network, hooks and objective included, so that a single network can go on where
            it was stopped: objects as `linfair.resume.Kept` takes them. None keeps nothing.
        progress: Show a progress bar.

    Raises:
        TrainingDiverged: If a member's loss is no longer finite or `check` says so; names epoch and seeds.
    """
    members, label = model.members if isinstance(model, Ensemble) else 1, label or stage
    seeds = range(members) if seeds is None else seeds
    gradient, batches = gradient or plain, batches or shuffled
    source = Source(data, "train", model)
    device = source.y.device
    if (check_fit := getattr(gradient, "check", None)) is not None:
        check_fit(model, objective, schedule, batches)
    if isinstance(model, Ensemble) == source.single or len(seeds) != members or len(source.sets) != members:
        text = f"{members} networks need as many data sets and seeds, got {len(source.sets)} and {len(seeds)} (a plain "
        raise ValueError(f"{text}network takes one data set, an ensemble a list)")
    last = schedule.channels_last and source.single and schedule.sound_channels_last(device.type)
    if last:
        model.to(memory_format=torch.channels_last)
    optimizer = schedule.make_optimizer(model)
    run = torch.compile(model) if schedule.compile else model
    autocast = partial(torch.autocast, device.type, torch.bfloat16, enabled=schedule.precision == "bf16")
    rates = [group["lr"] for group in optimizer.param_groups]
    state = None
    if STAGE.get() is not None and parts is not None and source.single:
        about = {"stage": stage, "label": label, "seeds": list(seeds), "n": source.n, "how": asdict(schedule)}
        about["rules"] = [getattr(rule, "__qualname__", repr(rule)) for rule in (gradient, batches)]
        state = Kept(STAGE.get(), about, model, optimizer, parts)
    history: list[dict[str, object]] = [] if state is None else state.rows
    isolation = Isolation(model) if isolate and isinstance(model, Ensemble) else None

    def plan(epoch: int) -> list[tuple[Tensor, Tensor | None]]:
        keys = [f"{seed}/{stage}/{epoch}" for seed in seeds]
        return source.epoch(keys, schedule.batch_size, schedule.augment, batches, getattr(gradient, "pads", False))

    def loss_of(batch: Batch, network: Callable[..., Tensor] = run) -> Tensor:
        with autocast():
            return objective(network, batch)

    def step_of(index: Tensor, *shifts: Tensor) -> Tensor:
        batch = source.take(index, *shifts)
        if last and batch.x.ndim == 4:
            batch = replace(batch, x=batch.x.contiguous(memory_format=torch.channels_last))
        with products(tf32=schedule.tf32):
            return gradient(model, loss_of, batch)

    alike = source.single and gradient is plain and repeats(objective) and not schedule.compile
    replay = Replay(step_of, model) if alike and worthwhile(device.type) else None
    steps = sum(len(plan(epoch)) for epoch in range(len(history)))
    left = range(len(history), len(history) if state is not None and state.done else schedule.epochs)
    bar = tqdm(left, label, schedule.epochs, leave=False, initial=len(history), unit="epoch", disable=not progress)
    for epoch in bar:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * schedule.rate(epoch)
        model.train()
        total, visited = torch.zeros(members, device=device), torch.zeros(members, dtype=torch.int64, device=device)
        torch.manual_seed(seed_of(f"{seeds[0]}/{stage}/{epoch}"))  # for networks that draw numbers, such as dropout
        with held(model) if after_step is None else nullcontext():
            for index, shifts in plan(epoch):
                loss = (replay or step_of)(index, *[] if shifts is None else [shifts])
                optimizer.step()
                images = (index >= 0).sum(dim=1)  # others fill up an ensemble's batches
                total, visited, steps = total + loss * images, visited + images, steps + 1
                if after_step is not None:
                    after_step(steps)
        losses = (total / visited.clamp(min=1)).tolist()
        if replay is not None:
            replay.end_epoch()
        advice = f"lower the learning rate ({schedule.lr})"
        failed = {m: Failure("the loss is not finite", advice) for m in range(members) if not math.isfinite(losses[m])}
        if check is not None:
            with products(tf32=schedule.tf32), autocast():
                failed |= check(epoch)
        history.append({"epoch": epoch, "loss": losses})
        if isolation is not None:
            when = isolation.update(epoch, failed)
            history[-1]["loss"] = [loss if m is None else math.nan for loss, m in zip(losses, when, strict=True)]
            history[-1]["diverged"] = when
            if None not in when:  # nobody is left to train
                break
        elif failed:
            why = next(iter(failed.values()))
            bad = [seeds[member] for member, reason in sorted(failed.items()) if reason == why]
            raise TrainingDiverged(f"{label}: {why.what} in epoch {epoch} for seeds {bad}; {why.advice}")
        bar.set_postfix(loss=f"{sum(losses) / members:.3f}", refresh=False)
        ends = after_epoch is not None and after_epoch(epoch)
        if state is not None:
            state.epoch_done(history, last=ends or epoch + 1 == schedule.epochs)
        if ends:
            break
    bar.close()
    if last:  # so that a network is the same whether it was just trained or read from a file
        model.to(memory_format=torch.contiguous_format)
    return history


@torch.no_grad()
def predict(
    model: nn.Module, data: Data, split: str, *, view: tuple[int, int] = (0, 0), measured: bool = True
) -> Tensor:
    """Logits of a whole split in evaluation mode, ((members,) n, classes), its inputs moved by `view`.

    What is `measured` runs without autocast and TF32, never less precise than the weights; what only steers a training
    runs in that training's precision.
    """
    source = Source(data, split, model)
    if max(map(abs, view)) > (shift := source.sets[0].shift):
        raise ValueError(f"{source.sets[0].name} allows shifts of {shift} pixels, view={view} was asked for")
    logits = []
    with in_mode(model), full_precision() if measured else nullcontext():
        for index in torch.arange(source.n, device=source.y.device).split(AT_ONCE):
            index = index.expand(len(source.sets), -1)
            moved = torch.tensor(view, device=index.device).view(2, 1, 1).expand(2, *index.shape)
            logits.append(model(source.take(index, moved if view != (0, 0) else None).x))
    return torch.cat(logits, dim=-2)


def answers(model: nn.Module, data: Data, split: str) -> tuple[Tensor, Tensor]:
    """Share of fixed `views` on which each input of a split is predicted right, (members, n), and its logits."""
    source = Source(data, split)
    found = {view: predict(model, data, split, view=view) for view in source.sets[0].views}
    found = {view: logits.view(*source.y.shape, -1) for view, logits in found.items()}
    right = sum((logits.argmax(dim=-1) == source.y).float() for logits in found.values())
    return right / len(found), found[0, 0]


def correctness(model: nn.Module, data: Data, split: str) -> Tensor:
    """Share of the data set's fixed views, one without shifts, on which each input is predicted right, (members, n)."""
    return answers(model, data, split)[0]
