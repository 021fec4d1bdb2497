"""The audit itself: linearize, fine-tune, choose a repair on validation images, then look at the test images once.

The stages are those of the commands `linearize`, `mitigate` and `diagnose`. Until the last one they are given a data
set without its test split. Every finished stage lies in the result store: interrupted, the same call goes on there.
"""

import platform
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from time import perf_counter

import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from linfair import gates
from linfair.audit.diagnose import Pair, diagnose, provenance
from linfair.audit.expose import Exposed, expose, pool_of
from linfair.audit.network import AuditError, Subject, behaviour
from linfair.audit.repair import DEFAULT_ARMS, Mitigated, arm_list, mitigate
from linfair.cost import Operation, check_link, count_macs, predicted, private_inference_cost
from linfair.engine.stages import Stages, machine
from linfair.engine.store import ResultStore, key, weights_digest
from linfair.ledger import Guarantee
from linfair.linearizers.record import check_budgets, share
from linfair.linearizers.registry import find
from linfair.masks import RELUS, Reduction
from linfair.mitigation import PLAIN
from linfair.mitigation.choose import NOISE, check_groups, check_limits
from linfair.models import threads_of
from linfair.names import called
from linfair.study.recipes import recipe
from linfair.training import Schedule, threads


@dataclass(frozen=True)
class Plan:
    """What is asked of an audit.

    Attributes:
        method: How the ReLUs to keep are chosen, one of `linfair.linearizers.LINEARIZERS`, or the weights, one of
            `PRUNERS`.
        given: Its options that differ from the profile's, as (name, value) pairs.
        budgets: Shares of ReLUs or weights kept, below 1, descending.
        repair_at: The budget that is explained by eigenvalues and repaired; None is the smallest.
        mitigate: Try repairs.
        arms: Which repairs, with plain fine-tuning.
        tolerance: Points of accuracy that any one group may lose; the report's first line answers at which budget.
        max_accuracy_loss: Points of overall validation accuracy that a repair may cost.
        significance: The p-value that a repair's gain on validation may have at most to be chosen.
        control: Train the 100 % control.
        curvature: Compute top Hessian eigenvalues.
        bandwidth: Bits a second between client and server.
        rtt: Round trip time in seconds.
        exposure: Attack the original and the explained network by membership inference (linfair's networks only).
        profile: Epochs and rates, see `linfair.study.recipes`.
        lr: Learning rate of fine-tuning; None is the recipe's.
    """

    method: str = "snl"
    given: tuple[tuple[str, object], ...] = ()
    budgets: tuple[float, ...] = (0.5, 0.2, 0.05)
    repair_at: float | None = None
    mitigate: bool = True
    arms: tuple[str, ...] = DEFAULT_ARMS
    tolerance: float = 2.0
    max_accuracy_loss: float = 1.0
    significance: float = NOISE
    control: bool = True
    curvature: bool = True
    bandwidth: float = 1e8
    rtt: float = 0.05
    exposure: bool = False
    profile: str = "small"
    lr: float | None = None

    @property
    def reduction(self) -> Reduction:
        """What is removed."""
        method = find(self.method)
        return method.reduces(method.options(**dict(self.given)))

    @property
    def named(self) -> float:
        """The budget that is explained and repaired."""
        if self.repair_at not in (None, *self.budgets):
            known = f"name one of {', '.join(f'{budget:g}' for budget in self.budgets)}"
            raise AuditError(f"the budget to repair, {self.repair_at:g}, is not one of the budgets: {known}")
        return self.budgets[-1] if self.repair_at is None else self.repair_at


@dataclass(frozen=True)
class Audit:
    """What an audit found; everything that its report says comes from here."""

    #: A row per (arm, budget, group) on the test split, with the columns of `Diagnosis.table`; arms are `original`,
    #: `plain`, `control` and the chosen repair
    groups: pd.DataFrame
    #: A row per budget, 1 included: the fields of `linfair.cost.Cost`, `online_seconds`, `freed` (names of the layers
    #: without a ReLU), `others` (the other nonlinearities, which no number holds), `dominant` (one that sends more than
    #: all ReLUs together)
    cost: pd.DataFrame
    mitigated: Mitigated | None  #: The choice; None without repairs
    subject: Subject  #: What was audited
    plan: Plan  #: What was asked
    split: str  #: The test split that was looked at
    networks: dict[tuple[str, float], nn.Module]  #: The network of each (arm, budget), gates binary
    seconds: float  #: Of this run, stages read from the store included
    trained_seconds: float  #: Of all training, when it was done
    facts: dict[str, str]  #: Versions, device, digests
    #: What is left of the original's guarantee of privacy for each of the networks
    guarantees: dict[tuple[str, float], Guarantee | None] = field(default_factory=dict)
    exposed: dict[str, Exposed] = field(default_factory=dict)  #: By network in words; empty unless it was asked for


def recipe_for(subject: Subject, plan: Plan) -> tuple[Schedule, object]:
    """How students are fine-tuned, and the method's options; a user's network gets AdamW, which needs less luck."""
    found, careful = recipe(subject.header.network, plan.profile), {"optimizer": "adamw", "lr": 1e-3}
    options, tuning = replace(found.method(plan.method), **dict(plan.given)), found.finetune
    if not find(plan.method).finetunes(options):
        text = f"an audit fine-tunes what {plan.method} makes, so finetuning = False is not for it"
        raise AuditError(f"{text}; leave it out")
    if not subject.own and plan.profile != "paper":
        tuning = replace(tuning, **careful)
        if getattr(getattr(options, "schedule", None), "optimizer", "") == "sgd":
            options = replace(options, schedule=replace(options.schedule, **careful))
    if plan.lr is not None:
        if not 0 < plan.lr < 10:
            raise AuditError(f"the learning rate is above 0 and below 10, such as 0.001; got {plan.lr}")
        tuning = replace(tuning, lr=plan.lr)
    return tuning, options


def audit(
    subject: Subject,
    plan: Plan | None = None,
    *,
    store: ResultStore | None = None,
    progress: bool = True,
    announce: Callable[[str], None] = lambda line: None,
) -> Audit:
    """Find out who pays when a network is linearized, why, what repair buys and what it costs.

    `subject` is from `read_user` or `read_own`; no plan is the usual audit. Finished stages are kept in the store, the
    user's cache by default; `announce` is told each stage, and whether it was computed or read.

    Raises:
        ValueError: For a plan that cannot be: an unknown method, arm or profile, budgets or limits outside their range.
        BudgetOutOfReach: If the method cannot meet a budget.
        TrainingDiverged: If plain fine-tuning does.
    """
    plan, store, start = plan or Plan(), store or ResultStore.default(), perf_counter()
    named, reduction = plan.named, plan.reduction

    def total() -> int:
        return reduction.total(reduction.install(subject.model, subject.data.input_shape))

    budgets = check_budgets(plan.budgets, total=total)
    if budgets[0] == 1:
        raise AuditError("a budget of 1 is the original network, with which the others are compared: leave it out")
    limits = {"max_accuracy_loss": plan.max_accuracy_loss, "significance": plan.significance}
    check_limits(**limits)
    arm_list(plan.arms)
    if not 0 <= plan.tolerance <= 100:
        raise AuditError(f"the tolerance is 0 to 100 points that a group may lose, got {plan.tolerance}")
    check_link(plan.bandwidth, plan.rtt)
    check_groups(subject.data)
    if plan.exposure and not subject.own:
        raise AuditError("--exposure trains shadow networks as linfair trained the network: it needs --teacher FILE")
    if plan.exposure:
        pool_of(subject.data)  # refuses data that cannot be attacked, before anything is trained
    blind = replace(subject.data, splits={name: subject.data.splits[name] for name in ("train", "val")})
    schedule, options = recipe_for(subject, plan)
    header, computes = subject.header, behaviour(subject.model, blind)
    stages = Stages(blind, [header.seed], store, count=threads_of(header.network), progress=progress)
    teacher = stages.given(subject.model, computes=computes, guarantee=header.guarantee)
    with threads(stages.threads):
        announce(f"{plan.method}: masks at {', '.join(map(share, budgets))}")
        paths = {PLAIN: stages.path(teacher, plan.method, budgets, options)}
        if plan.control:
            announce("100 % control")
            paths["control"] = stages.control(teacher, paths[PLAIN])
        found, networks, guarantees, spent = None, {}, {}, sum(one.seconds for one in paths.values())
        for arm, masked in [(arm, one) for arm, path in paths.items() for one in path.records]:
            student = stages.student(teacher, masked, schedule)
            announce(f"{student.name}: {arm} at {share(masked.budget)}: {'read' if student.read else 'computed'}")
            networks[arm, masked.budget] = student.record.model
            guarantees[arm, masked.budget] = student.record.guarantee
            spent += student.seconds
        if plan.mitigate:
            masked = next(one for one in paths[PLAIN].records if one.budget == named)
            how = {"profile": plan.profile, "schedule": schedule, "store": store, "progress": progress}
            pair = Pair(subject.model, masked.model, blind, header, guarantee=masked.guarantee)
            found = mitigate(pair, arms=plan.arms, announce=announce, **limits, **how)
            trained = found.table[found.table["arm"] != PLAIN].drop_duplicates("arm")
            spent += float(trained["seconds_finetune"].sum())
            networks[found.choice.chosen, named], guarantees[found.choice.chosen, named] = found.model, found.guarantee
        split = "test_balanced" if "test_balanced" in subject.data.splits else "test"
        announce(f"{split}: looked at now, for the first time")
        tables = []
        order = sorted(networks, key=lambda one: one != (PLAIN, named))  # the original's rows with eigenvalues first
        for arm, budget in tqdm(order, desc=f"diagnosing on {split}", disable=not progress, leave=False):
            curvature = plan.curvature and (arm, budget) == (PLAIN, named)
            table = _tested(subject, networks[arm, budget].eval(), split, computes, store, curvature=curvature)
            tables += [table[table["arm"] == "original"]] * (not tables)
            tables.append(table[table["arm"] != "original"].assign(arm=arm, budget=budget))
        both = {"the original": (subject.model, header.guarantee)}
        both[share(named)] = networks[PLAIN, named], guarantees[PLAIN, named]
        how = {"profile": plan.profile, "store": store, "progress": progress, "announce": announce}
        exposed = {
            name: expose(model, subject.data, replace(header, guarantee=left), **how)
            for name, (model, left) in (both.items() if plan.exposure else ())
        }
    ranks = {"original": 0, PLAIN: 1, "control": 3}
    groups = pd.concat(tables, ignore_index=True).assign(data=header.data, network=header.network, method=plan.method)
    groups = groups.assign(profile=plan.profile, rank=groups["arm"].map(ranks).fillna(2))
    groups = groups.sort_values(["rank", "budget", "group"], ascending=[True, False, True], kind="stable")
    groups, costs = groups.drop(columns="rank").reset_index(drop=True), _costs(subject, networks, plan)
    seconds, about = perf_counter() - start, _facts(subject, networks, guarantees)
    return Audit(groups, costs, found, subject, plan, split, networks, seconds, spent, about, guarantees, exposed)


def _tested(
    subject: Subject, model: nn.Module, split: str, computes: str, store: ResultStore, *, curvature: bool
) -> pd.DataFrame:
    """The diagnosis of one network on the test split, from the store if it is there."""
    data, digests = subject.data, (weights_digest(subject.model), weights_digest(model))
    settings = {"stage": "audit", "digests": digests, "computes": computes, "split": split, "curvature": curvature}
    settings |= {"content": data.provenance.get("sha256"), "scale": [data.mean, data.std]}
    name = key(settings | machine(data.splits[split].y.device.type, torch.get_num_threads()))
    if (table := store.read(name)) is None:
        table = diagnose(model, subject.model, data, split, seed=subject.header.seed, curvature=curvature).table
        store.write(name, table)
    return table.assign(group_name=table["group"].map(dict(enumerate(data.group_names))))


def _costs(subject: Subject, networks: dict[tuple[str, float], nn.Module], plan: Plan) -> pd.DataFrame:
    model, shape, rows = subject.model, subject.data.input_shape, []
    about = {"network": subject.header.network, "macs": count_macs(model, shape)}
    others = gates.nonlinearities(model, shape)
    about["others"] = "; ".join(map(str, others))
    reduction, (every,) = plan.reduction, RELUS.masks(RELUS.install(model, shape))
    calls = [Operation("ReLU", every.total), *(Operation(one.kind, one.units, one.comparisons) for one in others)]
    sent = {kind: part[0] / 1e6 for kind, part in predicted(calls).parts.items()}
    most = max(sent, key=sent.get)
    about["dominant"] = "" if most == "ReLU" else f"{most} ({sent[most]:.3g} MB against {sent['ReLU']:.3g} MB)"
    switched = {1.0: reduction.install(model, shape)}
    switched |= {at: one for (arm, at), one in networks.items() if arm == PLAIN}
    for budget, network in sorted(switched.items(), reverse=True):
        (mask,) = reduction.masks(network)
        relus = mask if reduction is RELUS else every
        cost = private_inference_cost(relus, bandwidth=plan.bandwidth, rtt=plan.rtt, macs=about["macs"])
        totals = {"compute_seconds": cost.compute_seconds, "online_seconds": cost.online_seconds}
        freed = [site for site, count in mask.per_site.items() if not count]
        here = {"units": mask.total, "kept_units": mask.kept, "budget": budget, "sites": len(mask.units)}
        here |= {"held": len(mask.units) - len(freed), "freed": ", ".join(freed)}
        rows.append(about | here | vars(cost) | totals)
    return pd.DataFrame(rows)


def _facts(
    subject: Subject,
    networks: dict[tuple[str, float], nn.Module],
    guarantees: dict[tuple[str, float], Guarantee | None],
) -> dict[str, str]:
    data, made = subject.data, provenance(subject.model, subject.data)
    facts = {f"SHA-256 of {name}": digest for name, digest in subject.files.items()}
    facts["digest of the original's weights"] = made["teacher"]
    named = {(arm, budget): f"{called(arm)}, {share(budget)}" for arm, budget in networks}
    facts |= {f"digest of {named[place]}": weights_digest(one) for place, one in networks.items()}
    promised = {"the original": subject.header.guarantee} | {named[place]: one for place, one in guarantees.items()}
    facts |= {f"privacy of {whose}": one.text() for whose, one in promised.items() if one is not None}
    facts["data"] = str(data.provenance.get("source", data.name))
    facts["SHA-256 of the split data"] = str(data.provenance.get("sha256"))
    facts["images"] = ", ".join(f"{called(name)} {len(part):,}" for name, part in data.splits.items())
    versions = f"linfair {made['linfair']}, torch {made['torch']}, Python {platform.python_version()}"
    return facts | {"device": made["device"], "versions": f"{versions}, {platform.system()}"}
