"""All linearizers by name, and the one call that runs any of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import nn
from torch.nn.modules.conv import _ConvNd

from linfair.ensemble import Ensemble
from linfair.functional import check_scores
from linfair.ledger import STEPS, UNDESCRIBED, Guarantee, Step, after
from linfair.linearizers import oneshot
from linfair.linearizers.deepreduce import DeepReDuce, deepreduce
from linfair.linearizers.finetuning import FINETUNE, finetune, starting, under
from linfair.linearizers.record import LinearizedModel
from linfair.linearizers.snl import SNL, snl
from linfair.masks import RELUS, Reduction
from linfair.names import call, checked, unknown
from linfair.training import Data, Schedule, correctness


@dataclass(frozen=True)
class Linearizer:
    """One method, the `source` it is from, and what it removes."""

    name: str
    summary: str  #: What it does, in one line
    source: str
    options: type  #: Dataclass of its options; its defaults are the method's own settings
    run: Callable[..., list[LinearizedModel]]  #: Called like `snl`: one record per budget, before fine-tuning
    reduction: Reduction = RELUS
    privacy: Step = UNDESCRIBED  #: What it does to a privacy guarantee; a method that does not say ends it
    given: tuple[tuple[str, object], ...] = ()  #: Options that were typed behind its name

    def does(self, options: object) -> Step:
        """What the method does to a privacy guarantee with these options."""
        again = self.privacy.keeps and getattr(options, "reestimate", False)
        return STEPS["batch-norm re-estimation"] if again else self.privacy

    def settings(self, profile: str, network: str = "") -> object:
        """The method's options for a network under a profile: its own settings, but for what `profiles` changes."""
        found = under(getattr(self.options, "profiles", {}), profile, network) or {}
        return self.options(**found | dict(self.given))

    def phase(self, options: object, teacher: nn.Module, data: Data, seeds: Sequence[int]) -> dict[str, object]:
        """Schedule, objective and start of the method's own training, as `control` takes them."""
        objective = options.distill(teacher, data) if hasattr(options, "distill") else None
        start = starting(teacher, getattr(options, "start", "teacher"), seeds)
        return {"schedule": getattr(options, "schedule", None), "objective": objective, "start": start}

    def reduces(self, options: object) -> Reduction:
        """What the method removes with these options."""
        return getattr(options, "reduction", self.reduction)  # weights or all parameters, of a pruner

    def finetunes(self, options: object) -> bool:
        """Whether fine-tuning follows the method's own training, which otherwise is the whole run."""
        return getattr(options, "finetuning", True)


_CHO = "Cho et al., Selective Network Linearization for Efficient Private Inference, ICML 2022"
_JHA, _OURS = "Jha et al., DeepReDuce: ReLU Reduction for Fast Private Inference, ICML 2021", "one-shot control"
_PATH = "learns weights and one gate per ReLU together under a growing l1 penalty; one path for all budgets"
_STAGES = "culls whole stages and thins every second layer, searched by stage criticality"
_NEGATIVE = "keeps the units with the largest mean of max(-x, 0), which linearizing changes"
_SNIP = "keeps the units with the largest |dL/dalpha|, after Lee et al., SNIP, ICLR 2019"
LINEARIZERS = {}
for _run, _kind, _source, _step, _summary in (
    (snl, SNL, _CHO, "SNL", _PATH),
    (deepreduce, DeepReDuce, _JHA, "DeepReDuce", _STAGES),
    (oneshot.random, oneshot.OneShot, _OURS, "random mask", "keeps units drawn at random over the network"),
    (oneshot.uniform, oneshot.OneShot, _OURS, "random mask", "keeps the same random share of every site"),
    (oneshot.negative_part, oneshot.OneShot, _OURS, "negative_part", _NEGATIVE),
    (oneshot.snip, oneshot.OneShot, _OURS, "SNIP", _SNIP),
):
    LINEARIZERS[_run.__name__] = Linearizer(_run.__name__, _summary, _source, _kind, _run, privacy=STEPS[_step])

ALIASES = {"magnitude": "negative_part"}  #: Names that methods had before, as in older rows and commands


def find(method: str) -> Linearizer:
    """The method of that name, or of a name that it had before."""
    method = ALIASES.get(method, method)
    known = methods()
    if method not in known:
        raise ValueError(unknown("no linearizer or pruner", method, known))
    return known[method]


def of_kind(kind: str, method: str | None = None) -> Linearizer:
    """The method of that name that removes units of that kind; without a name `snl`, or magnitude pruning."""
    method = method or {"relu": "snl", "weight": "magnitude"}[kind]
    method, given = call(method) if "(" in method else (method, {})
    known = {name.removeprefix("prune_"): one for name, one in methods().items() if one.reduction.kind == kind}
    name = ALIASES.get(method, method) if kind == "relu" else method.removeprefix("prune_")
    if name not in known:
        raise ValueError(unknown(f"no {'linearizer' if kind == 'relu' else 'pruner'}", method, known))
    one = known[name]
    given = checked(given, one.options, name)
    one.options(**given)  # the method's own checks
    return replace(one, given=tuple(sorted(given.items())))


def methods() -> dict[str, Linearizer]:
    """Every method by name, whatever it removes."""
    from linfair.pruners import PRUNERS  # which imports this module

    return LINEARIZERS | PRUNERS


def linearize(
    teacher: nn.Module,
    data: Data,
    *,
    budgets: Sequence[float],
    method: str = "snl",
    seeds: Sequence[int] | None = None,
    profile: str = "paper",
    options: object | None = None,
    finetuning: Schedule | None = None,
    guarantee: Guarantee | None = None,
    progress: bool = True,
) -> list[LinearizedModel]:
    """Linearize a trained network to ReLU budgets, and fine-tune (CE + KD, T = 4).

    The teacher, a network or an `Ensemble`, is not changed; its data set is on its device, for an ensemble a list, one
    for each member, as `seeds` are. Budgets are fractions of the units to keep, descending, `method` is one of
    `LINEARIZERS`. Where `options` or a schedule of `finetuning` are not given, `profile` says how long to train: as in
    the `paper`, `small` for bundled data on a CPU, or another of `FINETUNE`. `guarantee` is the teacher's of privacy.

    Returns:
        One record per budget: mask, exact count, history, fine-tuned network in evaluation mode, validation accuracy
        before and after.

    Raises:
        ValueError: For an unknown method or profile, options of another method, or wrong budgets.
        GateError: If the network has no ReLU that can be gated, or returns probabilities instead of scores.
        BudgetOutOfReach: If the method cannot meet a budget.
    """
    one = find(method)
    if options is not None and not isinstance(options, one.options):
        raise ValueError(f"{method} takes options of {one.options.__name__}, got {type(options).__name__}")
    convolutional = any(isinstance(module, _ConvNd) for module in teacher.modules())
    if not (schedule := under(FINETUNE, profile, "" if convolutional else "mlp")):
        raise ValueError(unknown("no profile", profile, [name for name in FINETUNE if "," not in name]))
    options = options or one.settings(profile, "" if convolutional else "mlp")
    networks, sets = (teacher.networks(), data) if isinstance(teacher, Ensemble) else ([teacher], [data])
    for network, own in zip(networks, sets, strict=False):
        check_scores(network, own.input_shape)
    records, how = [], {"seeds": range(len(networks)) if seeds is None else seeds, "progress": progress}
    left = after(guarantee, one.does(options))
    for found in one.run(teacher, data, budgets, options=options, **how):
        tuned = before = replace(found, guarantee=left)
        if one.finetunes(options):
            tuned = finetune(before, teacher, data, schedule=finetuning or schedule, **how)
        accuracy = [tuple(correctness(it.model, data, "val").mean(dim=1).tolist()) for it in (before, tuned)]
        tuned.model.eval()
        records.append(replace(tuned, accuracy_before=accuracy[0], accuracy_after=accuracy[1]))
    return records
