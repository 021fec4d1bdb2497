"""The audit itself: linearize, fine-tune, choose a repair on validation images, then look at the test images once.

The stages are those of the commands: the mask path and the control of `linfair linearize`, the arms and the choice of
`linfair mitigate`, the diagnostics of `linfair diagnose`, the cost model of `linfair.cost`. Until the last stage they
are given a data set without its test split. Every finished stage lies in the result store: interrupted, the same call
goes on where it was.
"""

import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter

import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

import linfair
from linfair import gates
from linfair.audit.behaviour import behaviour
from linfair.audit.diagnose import Pair, diagnose
from linfair.audit.network import AuditError, Subject
from linfair.audit.repair import DEFAULT_ARMS, Mitigated, arm_list, check_groups, fine_tune, mitigate
from linfair.cost import count_macs, private_inference_cost
from linfair.device import device_name
from linfair.linearizers.record import check_budgets
from linfair.masks import Mask, masks_of
from linfair.mitigation import PLAIN
from linfair.mitigation.choose import NOISE, check_limits, judged_groups
from linfair.study.recipes import Recipe, recipe
from linfair.study.stages import Stages
from linfair.study.store import ResultStore, key, weights_digest
from linfair.training import threads


@dataclass(frozen=True)
class Plan:
    """What is asked of an audit.

    Attributes:
        method: How the ReLUs to keep are chosen, one of `linfair.linearizers.LINEARIZERS`.
        budgets: Shares of ReLUs kept, below 1, descending.
        repair_at: The budget that is explained by eigenvalues and repaired; None is the smallest.
        mitigate: Try repairs.
        arms: Which.
        max_accuracy_loss: Points of overall validation accuracy that a repair may cost.
        significance: The p-value that a repair's gain on validation may have at most to be chosen.
        control: Train the 100 % control.
        curvature: Compute top Hessian eigenvalues.
        bandwidth: Bits a second between client and server.
        rtt: Round trip time in seconds.
        profile: Epochs and rates, `linfair.study.recipe`.
        lr: Learning rate of fine-tuning; None is the recipe's.
    """

    method: str = "snl"
    budgets: tuple[float, ...] = (0.5, 0.2, 0.05)
    repair_at: float | None = None
    mitigate: bool = True
    arms: tuple[str, ...] = DEFAULT_ARMS
    max_accuracy_loss: float = 1.0
    significance: float = NOISE
    control: bool = True
    curvature: bool = True
    bandwidth: float = 1e8
    rtt: float = 0.05
    profile: str = "small"
    lr: float | None = None

    @property
    def named(self) -> float:
        """The budget that is explained and repaired.

        Raises:
            AuditError: If it is none of the budgets.
        """
        if self.repair_at is None:
            return self.budgets[-1]
        if self.repair_at not in self.budgets:
            known = ", ".join(f"{budget:g}" for budget in self.budgets)
            raise AuditError(f"the budget to repair, {self.repair_at:g}, is none of the budgets ({known})")
        return self.repair_at


@dataclass(frozen=True)
class Audit:
    """What an audit found; everything that its report says comes from here.

    Attributes:
        groups: A row per (arm, budget, group) on the test split, with the columns of
            `linfair.audit.diagnose.Diagnosis.table`; arms are `original`, `plain`, `control` and the chosen repair.
        arms: A row per (arm, group) on validation, from `linfair.audit.repair`; None without repairs.
        cost: A row per budget, 1 included: the fields of `linfair.cost.Cost`, `online_seconds`, `freed` (names of the
            layers without a ReLU), `others` (the other nonlinearities, which no number holds).
        mitigated: The choice; None without repairs.
        subject: What was audited.
        plan: What was asked.
        split: The test split that was looked at.
        networks: The network of each (arm, budget), gates binary.
        seconds: Of this run, stages read from the store included.
        trained_seconds: Of all training, when it was done.
        facts: Versions, device, digests.
    """

    groups: pd.DataFrame
    arms: pd.DataFrame | None
    cost: pd.DataFrame
    mitigated: Mitigated | None
    subject: Subject
    plan: Plan
    split: str
    networks: dict[tuple[str, float], nn.Module]
    seconds: float
    trained_seconds: float
    facts: dict[str, str]


def recipe_for(subject: Subject, plan: Plan) -> tuple[Recipe, object]:
    """How students of a network are trained, and the method's options.

    The short recipes' SGD rates are made for linfair's own networks, with batch norm; a network about which nothing is
    known gets as many epochs of AdamW at 1e-3, which needs less luck.

    Raises:
        AuditError: For a learning rate that is none.
    """
    plan_of = recipe(subject.header.network, plan.profile)
    options, tuning = plan_of.method(plan.method), plan_of.finetune
    if not subject.own and plan.profile != "paper":
        tuning = replace(tuning, optimizer="adamw", lr=1e-3)
        if getattr(getattr(options, "schedule", None), "optimizer", "") == "sgd":
            options = replace(options, schedule=replace(options.schedule, optimizer="adamw", lr=1e-3))
    if plan.lr is not None:
        if not 0 < plan.lr < 10:
            raise AuditError(f"the learning rate is above 0, such as 0.001; got {plan.lr}")
        tuning = replace(tuning, lr=plan.lr)
    return replace(plan_of, finetune=tuning), options


def audit(
    subject: Subject,
    plan: Plan | None = None,
    *,
    store: ResultStore | None = None,
    progress: bool = True,
    announce: Callable[[str], None] = lambda line: None,
) -> Audit:
    """Find out who pays when a network is linearized, why, what repair buys and what it costs.

    Args:
        subject: From `read_user` or `read_own`.
        plan: What is asked; budgets 50, 20 and 5 % by SNL, repaired at 5 %, unless told otherwise.
        store: Where finished stages are kept; the user's cache by default.
        progress: Show progress bars.
        announce: Told each stage, and whether it was read or computed.

    Returns:
        The findings; `linfair.audit.write_report` makes files of them.

    Raises:
        ValueError: For a plan that cannot be: unknown method, arm or profile, budgets that are none.
        BudgetOutOfReach: If the method cannot meet a budget.
        TrainingDiverged: If plain fine-tuning does.
    """
    plan, store, start = plan or Plan(), store or ResultStore.default(), perf_counter()
    named = plan.named
    check_limits(plan.max_accuracy_loss, plan.significance)
    arm_list(plan.arms)
    private_inference_cost(1, layers=1, bandwidth=plan.bandwidth, rtt=plan.rtt)
    check_groups(subject.data)
    blind = replace(subject.data, splits={name: subject.data.splits[name] for name in ("train", "val")})
    judged_groups(blind)
    schedules, options = recipe_for(subject, plan)
    header, computes = subject.header, behaviour(subject.model, blind)
    how = {"count": 1 if header.network == "mlp" else None, "progress": progress}
    stages = Stages(blind, [header.seed], store, **how)
    teacher = stages.given(subject.model, computes=computes)
    said = {"store": store, "progress": progress, "announce": announce}
    with threads(stages.threads):
        announce(f"{plan.method}: masks at {', '.join(f'{100 * b:g} %' for b in plan.budgets)}")
        path = stages.path(teacher, plan.method, check_budgets(plan.budgets), options)
        pairs = {one.budget: Pair(subject.model, one.model, blind, header, computes=computes) for one in path.records}
        tuned = {budget: fine_tune(pair, PLAIN, schedules.finetune, **said) for budget, pair in pairs.items()}
        networks = {(PLAIN, budget): one.model for budget, one in tuned.items()}
        spent = path.seconds + sum(one.seconds for one in tuned.values())
        if plan.control:
            announce("100 % control")
            control = stages.control(teacher, path)
            students = [stages.student(teacher, one, schedules.finetune) for one in control.records]
            networks |= {("control", one.record.budget): one.record.model for one in students}
            spent += control.seconds + sum(one.seconds for one in students)
        found = None
        if plan.mitigate:
            found = mitigate(
                pairs[named],
                arms=plan.arms,
                max_accuracy_loss=plan.max_accuracy_loss,
                significance=plan.significance,
                profile=plan.profile,
                schedule=schedules.finetune,
                **said,
            )
            trained = found.table[found.table["arm"] != PLAIN].drop_duplicates("arm")
            spent += float(trained["seconds_finetune"].sum())
            if found.choice.chosen != PLAIN:
                networks[found.choice.chosen, named] = found.model
        split = "test_balanced" if "test_balanced" in subject.data.splits else "test"
        announce(f"{split}: looked at now, for the first time")
        groups = _tested(subject, networks, split, plan, computes, store, progress)
    return Audit(
        groups,
        None if found is None else found.table,
        _costs(subject, networks, plan),
        found,
        subject,
        plan,
        split,
        networks,
        perf_counter() - start,
        spent,
        _facts(subject, networks),
    )


def _tested(
    subject: Subject,
    networks: dict[tuple[str, float], nn.Module],
    split: str,
    plan: Plan,
    computes: str,
    store: ResultStore,
    progress: bool,
) -> pd.DataFrame:
    """The diagnosis of every network on the test split; eigenvalues for the original and the explained budget."""
    frames: list[pd.DataFrame] = []
    order = sorted(networks, key=lambda one: one != (PLAIN, plan.named))  # the original's rows with eigenvalues first
    for arm, budget in tqdm(order, desc=f"diagnosing on {split}", unit="network", disable=not progress, leave=False):
        model = networks[arm, budget].eval()
        curvature = plan.curvature and (arm, budget) == (PLAIN, plan.named)
        digests = weights_digest(subject.model), weights_digest(model)
        settings = {"stage": "audit", "digests": digests, "computes": computes, "split": split, "curvature": curvature}
        settings |= {"content": subject.data.provenance.get("sha256"), "scale": [subject.data.mean, subject.data.std]}
        name = key(settings | {"torch": torch.__version__, "threads": torch.get_num_threads()})
        table = store.read(name)
        if table is None:
            seed = subject.header.seed
            table = diagnose(model, subject.model, subject.data, split, seed=seed, curvature=curvature).table
            store.write(name, table)
        table = table.assign(group_name=table["group"].map(dict(enumerate(subject.data.group_names))))
        if not frames:
            frames.append(table[table["arm"] == "original"])
        frames.append(table[table["arm"] == "linearized"].assign(arm=arm, budget=budget))
    ranks = {"original": 0, PLAIN: 1, "control": 3}
    table = pd.concat(frames, ignore_index=True)
    table = table.assign(rank=table["arm"].map(ranks).fillna(2)).sort_values(
        ["rank", "budget", "group"], ascending=[True, False, True], kind="stable"
    )
    table = table.drop(columns="rank").reset_index(drop=True)
    header = subject.header
    return table.assign(data=header.data, network=header.network, method=plan.method, profile=plan.profile)


def _costs(subject: Subject, networks: dict[tuple[str, float], nn.Module], plan: Plan) -> pd.DataFrame:
    shape = subject.data.input_shape
    macs = count_macs(subject.model, shape)
    (whole,) = masks_of(gates.install(subject.model, shape))
    others = "; ".join(map(str, gates.nonlinearities(subject.model, shape)))
    masks = {1.0: whole} | {budget: mask_of(model) for (arm, budget), model in networks.items() if arm == PLAIN}
    rows = []
    for budget, mask in masks.items():
        cost = private_inference_cost(mask, bandwidth=plan.bandwidth, rtt=plan.rtt, macs=macs)
        freed = ", ".join(site for site, count in mask.per_site.items() if not count)
        about = {"network": subject.header.network, "units": mask.total, "macs": macs, "budget": budget}
        about["others"] = others
        totals = {"compute_seconds": cost.compute_seconds, "online_seconds": cost.online_seconds}
        rows.append(about | vars(cost) | totals | {"sites": len(mask.units), "freed": freed})
    return pd.DataFrame(rows).sort_values("budget", ascending=False, ignore_index=True)


def mask_of(model: nn.Module) -> Mask:
    """The mask of one gated network."""
    (mask,) = masks_of(model)
    return mask


def _facts(subject: Subject, networks: dict[tuple[str, float], nn.Module]) -> dict[str, str]:
    data = subject.data
    facts = {f"SHA-256 of {name}": digest for name, digest in subject.files.items()}
    facts["digest of the original's weights"] = weights_digest(subject.model)
    facts |= {f"digest of {arm}, {100 * budget:g} %": weights_digest(one) for (arm, budget), one in networks.items()}
    facts["data"] = str(data.provenance.get("source", data.name))
    facts["SHA-256 of the split data"] = str(data.provenance.get("sha256"))
    counts = {name: len(part) for name, part in data.splits.items()}
    facts["images"] = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    facts["device"] = device_name(str(data.splits["val"].y.device))
    facts["versions"] = (
        f"linfair {linfair.__version__}, torch {torch.__version__}, Python {platform.python_version()}, "
        f"{platform.system()}"
    )
    return facts


__all__ = ["Audit", "Plan", "audit", "mask_of"]
