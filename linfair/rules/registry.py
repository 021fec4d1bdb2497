"""The rules by name, and a training under one."""

from collections.abc import Sequence

from torch import nn

from linfair.ledger import Guarantee
from linfair.names import call, checked, unknown, written
from linfair.rules.adaptive import DPGlobalAdapt
from linfair.rules.options import ASAM, SAM, SGD, Clipped, RuleOptions
from linfair.rules.private import DPSAT, DPSGD
from linfair.schedule import SMALL, Schedule
from linfair.training import Data, fit

_OWN = (SGD, Clipped, SAM, ASAM, DPSGD, DPSAT, DPGlobalAdapt)
RULES = {one.name: one for one in _OWN}  #: The options of each, whose `start` gives the rule of one training


def resolve(rule: str | object | None) -> RuleOptions:
    """The options meant by a name, by a name with options, by options themselves, or by None (plain gradients).

    Raises:
        ValueError: If there is no such rule, or it has no such option.

    >>> resolve("dp_sgd(epsilon=3)").epsilon, resolve(None)
    (3.0, SGD(average=0.0, multiplicity=1))
    """
    if rule is None or isinstance(rule, RuleOptions):
        return SGD() if rule is None else rule
    if not isinstance(rule, str):
        raise ValueError(f"a rule is one of {', '.join(RULES)}, or its options such as DPSGD(epsilon=3); got {rule!r}")
    try:
        name, given = call(rule)
    except ValueError as error:
        raise ValueError(f"{error}, for example dp_sgd(epsilon=3); rules are {', '.join(RULES)}") from None
    if name not in RULES:
        raise ValueError(unknown("no rule", name, RULES))
    return RULES[name](**checked(given, RULES[name], f"rule {name}"))


def canonical(rule: str | object | None) -> str:
    """The one way to write a rule: options in their own order, those at their default left out.

    >>> canonical("dp_sgd( epsilon = 8.0 )"), canonical("dp_sgd(clip=0.1, epsilon=3)"), canonical(None)
    ('dp_sgd', 'dp_sgd(epsilon=3.0, clip=0.1)', 'sgd')
    """
    options = resolve(rule)
    return written(options.name, options)


def train(
    model: nn.Module,
    data: Data,
    schedule: Schedule = SMALL,
    *,
    rule: str | object | None = "sgd",
    seeds: Sequence[int] | None = None,
    **options: object,
) -> tuple[list[dict[str, object]], Guarantee | None]:
    """Train a network, or every member of an ensemble, in place under a rule: a name, `dp_sgd(epsilon=3)`, or options.

    Others are arguments of `linfair.training.fit`; a private rule draws Poisson batches of `batch_size` on average.

    Returns:
        The rows of `fit`, and the guarantee of a private training (for an ensemble, that of each member), else None. It
        counts this training alone: the weights at its start must be those of `build`, not learned from the same images.

    Raises:
        ValueError: For an unknown rule or option, or a network or objective that the rule cannot train.
    """
    rule = resolve(rule)
    started = rule.start(model, data, schedule, seeds=seeds, stage=options.get("stage", "base"))
    for name in ("gradient", "batches"):
        if (own := getattr(started, name)) is not None:
            if options.get(name) is not None:
                raise ValueError(f"rule {rule.name} has {name} of its own: leave yours out, or take another rule")
            options[name] = own
    average, given = started.average, options.get("after_step")
    kept = [one for one in (started.gradient, average) if hasattr(one, "state")]
    options["parts"] = [*(options.get("parts") or ()), *kept]
    if average is not None:
        options["after_step"] = lambda steps: (average.after_step(steps), given and given(steps))
    history = fit(model, data, schedule=schedule, seeds=seeds, **options)
    if average is not None:
        average.finish()
    return history, started.guarantee
