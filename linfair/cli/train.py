"""The command `train`: an original network under any rule of `linfair.rules`, private ones among them."""

from dataclasses import dataclass, fields, replace
from typing import Annotated, Literal

import pandas as pd
from cyclopts import Parameter

from linfair.audit.shown import accuracies
from linfair.checkpoints import Header, save_network
from linfair.cli.options import DATA, Choices, Device, Seed, Training, ranged, run_folder, says, tell
from linfair.data import check_name, load_data
from linfair.device import check_device
from linfair.engine.stages import Stages
from linfair.metrics import group_accuracy
from linfair.models import INITS, NETWORKS, NORMS, threads_of
from linfair.rules import DPSGD, RULES, RuleOptions, canonical, resolve
from linfair.study.recipes import recipe
from linfair.training import correctness

RULE = f"How gradients are computed, options in brackets, dp_sgd(epsilon=3); of {', '.join(RULES)}."
NORM = "Batch norm, or group norm, which private rules need and take by default."
SEEDED = "The file names its seed, from which the noise can be drawn again: it is for study, not for release."


@Parameter(name="*")
@dataclass(kw_only=True)
class Asked(Choices):
    """A network, its data and its training."""

    network: Annotated[Literal[*NETWORKS], says("Which network.")] = "mlp"
    width: Annotated[int | None, ranged(int, 1, 4096, "Width of the first stage; by default the profile's.")] = None
    norm: Annotated[Literal[*NORMS] | None, says(NORM)] = None
    standardised: Annotated[bool, says("Standardise the weights of convolutions.")] = False
    init: Annotated[Literal[*INITS], says("How weights start.")] = "torch"
    data: Annotated[str, says(f"{DATA}.")] = "digits"
    seed: Annotated[int, Seed("Decides split, weights, batches and noise.")] = 0
    rule: Annotated[str, says(RULE)] = "dp_sgd"
    epsilon: Annotated[float | None, ranged(float, 0, 1e6, "What a private rule may spend.", above=True)] = None
    delta: Annotated[float | None, ranged(float, 0, 1, "At which epsilon is counted.", above=True)] = None
    clip: Annotated[float | None, ranged(float, 0, 1e6, "Largest gradient norm of an image.", above=True)] = None
    epochs: Annotated[int | None, ranged(int, 1, 10**6, "By default the profile's.")] = None
    batch_size: Annotated[int | None, ranged(int, 1, 10**7, "On average, under a private rule.")] = None
    lr: Annotated[float | None, ranged(float, 0, 10, "Learning rate; by default the profile's.", above=True)] = None
    profile: Training = "small"
    device: Device = "cpu"

    def ruled(self) -> RuleOptions:
        """The options of the rule, those that have an option of the command among them."""
        name, bracket, rest = self.rule.partition("(")
        try:
            found = resolve(name.strip().replace("-", "_") + bracket + rest)
        except ValueError as error:
            raise ValueError(f"--rule {self.rule}: {error}") from None
        given = {one: getattr(self, one) for one in ("epsilon", "delta", "clip") if getattr(self, one) is not None}
        if wrong := [one for one in given if one not in {field.name for field in fields(found)}]:
            text = f"--{wrong[0]} {given[wrong[0]]:g}: the rule {found.name} has no {wrong[0]}"
            raise ValueError(f"{text}; leave --{wrong[0]} out, or take --rule dp_sgd")
        return replace(found, **given)


def train(
    *, asked: Asked = Asked(), out: Annotated[str | None, says("By default trained/DATA-NETWORK-RULE-SEED.")] = None
) -> None:
    """Train an original network, also privately, and measure every group."""
    rule, plan = asked.ruled(), recipe(asked.network, asked.profile)
    private, given = isinstance(rule, DPSGD), asked.given()
    norm = asked.norm or NORMS[private]
    if private and norm == "batch" and asked.network not in ("mlp", "cnn"):
        text = f"--norm batch: {asked.network} has batch norm, which mixes the images of a batch"
        raise ValueError(f"{text}, and {rule.name} bounds what each adds alone; take --norm group")
    check_name(asked.data)
    check_device(asked.device)
    changed = {one: getattr(asked, one) for one in ("epochs", "batch_size", "lr") if getattr(asked, one) is not None}
    schedule = replace(plan.private, **changed)
    folder = run_folder(out, "trained", asked.data, asked.network, rule.name, asked.seed)
    given |= {"scale": "fixed"} if private else {}  # no training image may decide how others are normalised
    data = load_data(asked.data, seed=asked.seed, **given).to(asked.device)
    n = len(data.splits["train"])
    if private and rule.delta * n >= 1:
        text = f"delta = {rule.delta:g} would let a network give away one of the {n:,} training images whole"
        raise ValueError(f"{text}; take a --delta below {1 / n:.2g}")
    built = {"width": asked.width or plan.width, "init": asked.init, "norm": norm, "standardised": asked.standardised}
    stages = Stages(data, [asked.seed], count=threads_of(asked.network))
    tell(f"{canonical(rule)}: {schedule.epochs} epochs, {n:,} training images, batch size {schedule.batch_size}")
    teacher = stages.teacher(asked.network, schedule, **built, rule=rule)
    header = Header(asked.network, built.pop("width") or 0, data.input_shape, data.classes, asked.data, asked.seed)
    header = replace(header, data_options=tuple(sorted(given.items())), content=data.content, **built)
    header = replace(header, rule=canonical(rule), guarantee=teacher.guarantee, schedule=schedule)
    for split in [name for name in ("test", "test_balanced") if name in data.splits]:
        groups, n_groups = data.splits[split].a, len(data.group_names)
        rows = pd.DataFrame(group_accuracy(correctness(teacher.model, data, split)[0], groups, n_groups))
        about = {"group": data.group_names, "role": data.roles, "n_train": data.counts, "n": rows["n"]}
        table = pd.DataFrame(about | {"accuracy": accuracies(rows)}).to_string(index=False)
        print(f"Accuracy in % on {split} with 95 % Wilson intervals\n{table}\n")
    if private:
        said = teacher.guarantee.text() if teacher.guarantee else "no privacy guarantee: the rule adds no noise"
        print(f"{said}\n{SEEDED}")
    print(f"wrote {save_network(folder / 'teacher.safetensors', teacher.model, header)}")
