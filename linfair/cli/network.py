"""Commands on one network: what there is, `linearize`, `diagnose`, `mitigate`, `expose` and `audit`."""

import json
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from linfair import audit as audits
from linfair import gates
from linfair.audit import AuditError, Plan
from linfair.audit.repair import DEFAULT_ARMS, arm_list
from linfair.checkpoints import load_network, save_network
from linfair.cli import options
from linfair.cli.options import Arms, Budgets, Choices, Device, Training, commas, numbers, ranged, says, tell
from linfair.data import check_name, load_data
from linfair.data.describe import notes
from linfair.ledger import Guarantee
from linfair.linearizers import LINEARIZERS, Linearizer
from linfair.linearizers.configurations import stage_units
from linfair.linearizers.record import check_budgets, kept_share
from linfair.masks import RELUS, WORDS
from linfair.metrics.membership import ATTACKS
from linfair.mitigation.choose import FEW, NOISE
from linfair.mitigation.registry import MITIGATIONS, PLAIN, Mitigation
from linfair.models import INITS, NETWORKS, build, threads_of
from linfair.paths import save_table
from linfair.pruners import PRUNERS
from linfair.study import grid, recipe
from linfair.training import threads
from linfair.weights import removed

optional = partial(commas, numbers, show_default=False)  # numbers that are not given by default
Floats = tuple[float, ...] | None
OURS = "Or one of linfair's"
MODEL = "Python FILE:FUNCTION that is run and returns the network; it may take (input_shape, classes)."
TO = "Where to write; by default"
ESTIMATOR = "Of gradient norms and eigenvalues: exact, or per batch as in the paper's released code."
LOSS = "Points of overall validation accuracy that an arm may lose against plain fine-tuning."
GAIN = "Keep plain fine-tuning unless the p-value of a repair's gain on validation is at most this; 1 takes the best."
MASK = "Attack the network that this mask leaves of the teacher: METHOD-BUDGET.mask.safetensors."
HOW = "How members are told from others; loss needs no shadows."
OUT = "Write the table to this Parquet file too, and every image's score beside it."
JUDGED = "Groups with fewer validation images are judged together; 1 judges each alone. The old name is --min-images."


def networks() -> None:
    """Show the networks and their ReLU units, at full width on 32x32 images: in all and by stage."""
    head = f"{'network':14s} {'width':>5s} {'parameters':>12s} {'ReLU units':>11s}"
    print(f"{head}  by stage; other nonlinearities   (3x32x32, 10 classes)")
    for name, (_, _, width) in NETWORKS.items():
        network = build(name, (3, 32, 32), 10)
        weights = sum(parameter.numel() for parameter in network.parameters())
        units = stage_units(gates.install(network, (3, 32, 32)))
        stages = "; ".join([" + ".join(f"{n:,}" for n in units), *map(str, gates.nonlinearities(network, (3, 32, 32)))])
        print(f"{name:14s} {width:5d} {weights:12,d} {sum(units):11,d}  {stages}")


def _shows(registry: Mapping[str, Linearizer | Mitigation], what: str) -> Callable[[], None]:
    def show() -> None:
        for name, one in registry.items():
            print(f"{name}: {one.summary}\n    source: {one.source}")
            told = [kind.__doc__ or "" for kind in one.options.__mro__]  # some options are those of all mitigations
            pattern = re.compile(r"^ {8}(\w+): (.+?)(?=^ {8}\w+: |^ {4}\S|\Z)", re.S | re.M)
            described = {name: text for doc in reversed(told) for name, text in pattern.findall(doc)}
            for option in fields(one.options):
                value = getattr(one.options(), option.name)
                text = " ".join(described.get(option.name, "").split())
                print(f"    {option.name}: {text}" if is_dataclass(value) else f"    {option.name} = {value!r}: {text}")
                if is_dataclass(value):
                    print("        " + ", ".join(f"{f.name}={getattr(value, f.name)!r}" for f in fields(value)))
            print()

    show.__doc__ = f"Show {what}: source, options, defaults."
    return show


linearizers = _shows(LINEARIZERS, "the methods that choose which ReLUs stay")
pruners = _shows(PRUNERS, "the methods that choose which weights stay")
mitigations = _shows(MITIGATIONS, "the ways of fine-tuning, plain and mitigated")


@Parameter(name="*")
@dataclass(kw_only=True)
class Files:
    """A teacher, its mask and their data, as `linfair linearize` or `linfair reduce` wrote them."""

    teacher: Annotated[str, says("The original network: teacher.safetensors.")]
    mask: Annotated[str, says("Which ReLUs or weights stay: METHOD-BUDGET.mask.safetensors.")]
    weights: Annotated[str | None, says("Fine-tuned weights to start from; by default the teacher's own.")] = None
    data: Annotated[str | None, says("Checked against the teacher's; by default the teacher's.")] = None
    label: Annotated[str | None, says("What was predicted; checked like the data.")] = None
    group: Annotated[str | None, says("What is compared; checked like the data.")] = None
    device: Device = "cpu"


@Parameter(name="*")
@dataclass(kw_only=True)
class Trained(Choices):
    """A network and its data: trained first, or the teacher of a file."""

    network: Annotated[Literal[*NETWORKS] | None, says("By default mlp.")] = None
    width: Annotated[int | None, ranged(int, 1, 4096, "Width of the first stage; by default the profile's.")] = None
    init: Annotated[Literal[*INITS] | None, says("How weights start; by default torch's own way.")] = None
    data: Annotated[str | None, says(f"{options.DATA}; by default digits.")] = None
    seed: Annotated[int | None, options.Seed("Decides split, weights and training; by default 0.")] = None
    profile: Training = "small"
    device: Device = "cpu"
    teacher: Annotated[str | None, says("A network written by linfair, instead of training one.")] = None
    control: Annotated[bool, Parameter(help="Train the 100 % control arm too.")] = True


def linearize(
    *,
    trained: Trained = Trained(),
    method: options.Method = "snl",
    budgets: Budgets = (0.5, 0.2, 0.1),
    out: Annotated[str | None, says(f"{TO} linearized/DATA-NETWORK-METHOD-SEED.")] = None,
) -> None:
    """Linearize a network and measure every group."""
    _reduce(trained, options.chosen("relu", method), budgets, out, "linearized")


def reduce(
    *,
    trained: Trained = Trained(),
    kind: options.Kind = "weight",
    method: options.Named = None,
    budgets: Annotated[Budgets, Parameter(name=["--keep", "--budgets"])] = (0.5, 0.3, 0.1),
    out: Annotated[str | None, says(f"{TO} reduced/DATA-NETWORK-METHOD-SEED.")] = None,
) -> None:
    """Remove ReLUs or weights of a network and measure every group."""
    _reduce(trained, options.chosen(kind, method), budgets, out, "reduced")


def _reduce(run: Trained, method: Linearizer, budgets: Sequence[float], out: str | None, called: str) -> None:
    given, name = run.given(), method.name
    network, data, width, seed, built = run.network, run.data, run.width, run.seed, {}
    if run.teacher:
        header = load_network(run.teacher)[1]
        header.check_asked(run.teacher, network=network, data=data, width=width, seed=seed, **given)
        network, data, width, seed = header.network, header.data, header.width or None, header.seed
        given, built = dict(header.data_options), {"norm": header.norm, "standardised": header.standardised}
    network, data, seed = network or "mlp", data or "digits", seed or 0
    check_name(data)
    folder = options.run_folder(out, called, data, network, name, seed)

    def total() -> int:
        of, wide = load_data(data, seed=seed, **given), width or recipe(network, run.profile).width
        model = build(network, of.input_shape, of.classes, width=wide)
        reduction = method.reduces(method.settings(run.profile, network))
        return reduction.total(reduction.install(model, of.input_shape))

    check_budgets(budgets, ends=False, total=total)
    how = {"profile": run.profile, "device": run.device, "width": width, "teacher": run.teacher, "init": run.init}
    how |= {"method": name, "options": dict(method.given), "data_options": given} | built
    (cell,) = grid(data, network, budgets=budgets, seeds=[seed], **how)
    if data.startswith("folder"):
        tell(*(f"data: {line}" for line in notes(load_data(data, seed=seed, **given).provenance).values()))
    if run.profile != "paper":
        chosen = replace(recipe(network, run.profile).method(name), **dict(method.given))
        tell(f"Options of {name} in profile {run.profile} (not the paper's): {chosen}")
    table = audits.linearize_to(folder, cell, with_control=run.control, announce=tell)
    for split in [one for one in ("test", "test_balanced") if one in set(table["split"])]:
        print(audits.group_table(table, split=split) + "\n")
    original, header = load_network(folder / "teacher.safetensors")
    others = "; ".join(map(str, gates.nonlinearities(original, header.input_shape)))
    if others and method.reduction is RELUS:
        print(f"Nonlinearities that stay, for one input: {others}")
    print(f"Masks, weights and the table are in {folder}")


def diagnose(
    *,
    files: Files,
    split: Annotated[str, says("Which images: train, val, test or another split of the data.")] = "test",
    estimator: Annotated[Literal["exact", "per_batch"], says(ESTIMATOR)] = "exact",
    batch_size: Annotated[int, ranged(int, 1, 10**6, "Defines per_batch; exact does not depend on it.")] = 128,
    curvature: Annotated[bool, Parameter(help="Compute the Hessian eigenvalues.")] = True,
    as_json: options.Json = False,
    out: Annotated[str | None, says("Write the table to this Parquet file too.")] = None,
) -> None:
    """Show why groups lose: every diagnostic."""
    out = options.output("--out", out, ".parquet") if out else None
    pair = audits.read_pair(**vars(files))
    how = {"seed": pair.header.seed, "estimator": estimator, "curvature": curvature, "batch_size": batch_size}
    with threads(threads_of(pair.header.network)):
        found = audits.diagnose(pair.linearized, pair.original, pair.data, split, **how)
    whose = f"the weights of {files.weights}" if files.weights else "the teacher's own weights, not fine-tuned"
    head = f"{about(pair)}, {whose}"
    if pair.beside:
        head += f"\nFine-tuned weights lie beside the mask; to diagnose those: --weights {pair.beside}"
    print("\n".join([head, *promised(pair.guarantee)]), file=sys.stderr if as_json else sys.stdout)
    if out:
        tell(f"wrote {save_table(found.table, out)}")
    known = {"teacher": files.teacher, "mask": files.mask, "weights": files.weights}
    known |= {name: int(found.table["kept"].agg(which)) for name, which in (("kept", "min"), ("total", "max"))}
    print(json.dumps(known | found.as_json(), indent=2) if as_json else audits.diagnosis_text(found))


def about(pair: audits.Pair) -> str:
    """What a network is and what is left of it."""
    left, reduction = "nothing is removed", removed(pair.linearized, pair.original)
    if pair.linearized is not pair.original:
        kept, total = reduction.kept(pair.linearized)[0], reduction.total(pair.linearized)
        left = kept_share(kept, total, kept / total, WORDS[reduction.kind])
    return f"{pair.header.network} on {pair.header.data}, seed {pair.header.seed}: {left}"


def promised(guarantee: Guarantee | None) -> list[str]:
    """A line on a network's guarantee of privacy, if it ever had one."""
    return [guarantee.text()] if guarantee else []


def mitigate(
    *,
    files: Files,
    max_accuracy_loss: Annotated[float, options.Points(LOSS)] = 1.0,
    arms: Arms = DEFAULT_ARMS,
    mu: Annotated[tuple[float, ...], optional("Try the lagrangian arms at these steps.")] = (),
    significance: Annotated[float, options.Significance(GAIN)] = NOISE,
    min_images: Annotated[int, ranged(int, 1, 10**9, JUDGED, name=["--judge-from", "--min-images"])] = FEW,
    profile: Training = "small",
    out: Annotated[str | None, says(f"{TO} beside the mask, MASK-mitigated.")] = None,
) -> None:
    """Repair a linearized or pruned network."""
    if len(set(mu)) < len(mu):
        raise ValueError(f"--mu {','.join(map(str, mu))} holds a number twice; give each once")
    arm_list(arms, mu)
    stem = Path(files.mask).name.removesuffix(".safetensors").removesuffix(".mask")
    folder = options.output("--out", out or Path(files.mask).parent / f"{stem}-mitigated")
    options.cache()
    pair = audits.read_pair(**vars(files))
    if not files.weights and pair.beside:
        print(f"Starting from the teacher's own weights; from those beside the mask: --weights {pair.beside}")
    limits = {"max_accuracy_loss": max_accuracy_loss, "significance": significance, "min_images": min_images}
    found = audits.mitigate(pair, arms=arms, mu=mu, profile=profile, announce=tell, **limits)
    print("\n".join([f"{about(pair)}; fine-tuned in profile {profile}", *promised(found.guarantee)]))
    print(audits.mitigated_text(found))
    header = replace(pair.header, guarantee=found.guarantee)
    weights = save_network(folder / "chosen.weights.safetensors", found.model, header)
    print(f"\nwrote {weights} ({found.choice.chosen}) and {save_table(found.table, folder / 'report.parquet')}")


def expose(
    *,
    teacher: Annotated[str, says("The network: teacher.safetensors.")],
    mask: Annotated[str | None, says(MASK)] = None,
    weights: Annotated[str | None, says("Its fine-tuned weights; by default the teacher's own.")] = None,
    data: Annotated[str | None, says("Checked against the teacher's; by default the teacher's.")] = None,
    attack: Annotated[Literal[*ATTACKS], says(HOW)] = "lira_online",
    shadows: Annotated[int, ranged(int, 1, 256, "Networks to train as the teacher was, on random halves.")] = 16,
    seed: Annotated[int, options.Seed("Decides the halves and the shadows' own seeds.")] = 0,
    most: Annotated[int, ranged(int, 0, 10**6, "How many of the most exposed training images to name.")] = 10,
    profile: Training = "small",
    device: Device = "cpu",
    as_json: options.Json = False,
    out: Annotated[str | None, says(OUT)] = None,
) -> None:
    """Show who is exposed: membership inference per group."""
    out = options.output("--out", out, ".parquet") if out else None
    pair = audits.read_reduced(teacher=teacher, mask=mask, weights=weights, device=device, data=data)
    header = replace(pair.header, guarantee=pair.guarantee)
    options.cache()
    how = {"kind": attack, "count": shadows, "seed": seed, "profile": profile}
    found = audits.expose(pair.linearized, pair.data, header, **how, announce=tell)
    print(json.dumps(found.as_json(most), indent=2) if as_json else audits.exposed_text(found, most=most))
    if out:
        tell(f"wrote {save_table(found.table, out)}")
        tell(f"wrote {save_table(found.points, out.with_name(f'{out.stem}-points.parquet'))}")


@Parameter(name="*", group="What is asked")
@dataclass(frozen=True, kw_only=True)
class Asked(Plan):  # noqa: D101 - the plan's own words, with what may be typed
    __doc__ = Plan.__doc__
    kind: options.Kind = "relu"
    method: options.Named = None
    given: Annotated[tuple[tuple[str, object], ...], Parameter(parse=False)] = ()
    budgets: Budgets = Plan.budgets
    repair_at: Annotated[float | None, options.Significance()] = None
    arms: Arms = Plan.arms
    tolerance: Annotated[float, options.Points()] = Plan.tolerance
    max_accuracy_loss: Annotated[float, options.Points()] = Plan.max_accuracy_loss
    significance: Annotated[float, options.Significance()] = Plan.significance
    bandwidth: Annotated[float, ranged(float, 0, 1e15, above=True)] = Plan.bandwidth
    rtt: Annotated[float, ranged(float, 0, 3600)] = Plan.rtt
    profile: Training = Plan.profile
    lr: Annotated[float | None, ranged(float, 0, 10, above=True)] = None


@Parameter(name="*", group="Your own network")
@dataclass(kw_only=True)
class Network(Choices):
    """A user's network and data, or a teacher of linfair's, which knows its data."""

    model: Annotated[str | None, says(MODEL)] = None
    weights: Annotated[str | None, says("Its state dict, as safetensors.")] = None
    data: Annotated[str | None, says(f"{options.DATA}.")] = None
    size: Annotated[int | None, ranged(int, 1, 1024, "Side of a folder's images in pixels; by default 32.")] = None
    mean: Annotated[Floats, optional("Of each channel, images on [0, 1]; by default the data's.")] = None
    std: Annotated[Floats, optional("What channels are divided by; by default the data's.")] = None
    seed: Annotated[int | None, options.Seed("Decides the split and the training; by default 0.")] = None
    teacher: Annotated[str | None, says("teacher.safetensors of linfair linearize.", group=OURS)] = None
    network: Annotated[Literal[*NETWORKS] | None, says("Checked against the teacher's.", group=OURS)] = None

    def own(self, *free: str) -> dict[str, object]:
        """What was typed of a user's own network, as options of `read_user`; a teacher has but the `free` ones."""
        known = {name: getattr(self, name) for name in ("model", "weights", "mean", "std", "seed", "size")}
        own = {name: value for name, value in (known | self.given()).items() if value is not None}
        given = [f"--{name.replace('_', '-')}" for name in own if name not in free]
        missing = ", ".join(f"--{name}" for name in ("model", "weights", "data") if getattr(self, name) is None)
        if self.teacher and given:
            raise AuditError(f"--teacher knows its network, data and split: leave out {', '.join(given)}")
        if not self.teacher and (missing or self.network):
            why = f"missing: {missing}" if missing else "--network goes with --teacher"
            yours = "name your own network with --model FILE:FUNCTION --weights FILE.safetensors --data NAME"
            raise AuditError(f"{yours}, or one of linfair's with --teacher FILE ({why})")
        return own


def audit(
    *,
    network: Network = Network(),
    asked: Asked = Asked(),
    device: Device = "cpu",
    out: Annotated[str, says("Folder to write to.")] = "report",
    words: Annotated[tuple[str, ...], Parameter(parse=False)],
) -> None:
    """Write one report on your own model: who pays, why, repair, cost."""
    own = network.own()
    method = options.chosen(asked.kind, asked.method)
    known = vars(asked) | {"method": method.name, "given": method.given}
    plan = Plan(**{name: value for name, value in known.items() if name != "kind"})
    folder = options.output("--out", out)
    if network.teacher:
        subject = audits.read_own(network.teacher, network=network.network, data=network.data, device=device)
    else:
        subject = audits.read_user(data=network.data, device=device, **own)
    tell(*(f"data: {line}" for line in notes(subject.data.provenance).values()))
    tell(*(f"warning: {text}" for text in subject.warnings))
    options.cache()
    found = audits.audit(subject, plan, announce=tell)
    page = audits.write_report(found, folder, command=shlex.join(["linfair", *words]))
    said = audits.words(found, "light", "who", "when", "repair", "besides")
    print("\n".join([*said, *promised(found.guarantees[PLAIN, plan.named])]))
    print(f"\nwrote {page}, and beside it the tables, masks and weights; one seed, see its section on limits")
