"""Networks as files: safetensors weights, with the header that says how to build the network again."""

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from linfair import gates, rules, weights
from linfair.data import GroupedData
from linfair.ledger import Guarantee
from linfair.models import INITS, NETWORKS, NORMS, build
from linfair.names import checked, some
from linfair.paths import unfit, whole
from linfair.schedule import Schedule
from linfair.tensors import TEXT, apart, check_finite, check_kinds, kinds, parsed, read, refusing, typed

FORMAT = "linfair-network-1"


class CheckpointError(ValueError):
    """A network file that cannot be used; the message says why."""


@dataclass(frozen=True)
class Header:
    """How a network was built, and on what it was trained."""

    network: str  # its name in `linfair.models.NETWORKS`
    width: int  # 0 is the full network
    input_shape: tuple[int, ...]
    classes: int
    data: str  # name of the data set
    seed: int  # of data split, weights and training
    gated: bool = False  # the file holds gates (a linearized network)
    data_options: tuple[tuple[str, object], ...] = ()  # that differ from the data set's own
    init: str = "torch"  # how its weights started, see `linfair.models.INITS`
    content: str = ""  # `GroupedData.content` of that data set, split; empty where it is not known
    pruned: int = 0  # kept weights of a pruned network, whose other weights are 0; 0 for any other network
    norm: str = "batch"  # what it normalises by, see `linfair.models.NORMS`
    standardised: bool = False  # its convolutions standardise their weights
    rule: str = ""  # how the original's gradients were computed, see `linfair.rules`; empty is plain backpropagation
    guarantee: Guarantee | None = None  # of privacy, with what ended it; None for a network that never had one
    schedule: Schedule | None = None  # how the original was trained; None where it is not known

    @property
    def reduced(self) -> str:
        """What kind of network it is, if no original one."""
        return "linearized" * self.gated or "pruned" * bool(self.pruned)

    def check_data(self, data: GroupedData, path: str | Path) -> None:
        """Refuse data, split by the header's seed, that are no longer those that the network was trained on."""
        if (self.input_shape, self.classes) != (data.input_shape, data.classes):
            problem = f"inputs {data.input_shape} of {data.classes} labels, not {self.input_shape} of {self.classes}"
        elif self.content and self.content != data.content:
            problem = "other images or labels, or other splits of them"
        else:
            return
        text = f"{self.data} has changed since {path} was trained on it: it now has {problem}. Training images might "
        text += "be tested, or labels be taken for others: put the data back as they were, or train anew with "
        raise CheckpointError(f"{text}`linfair linearize`")

    def check_asked(self, path: str | Path, **asked: object) -> None:
        """Refuse what was asked for, but not trained with; on other data training images might be tested."""
        known = vars(self) | dict(self.data_options)
        for name, value in asked.items():
            if value not in (None, known.get(name)):
                option = f"--{name.replace('_', '-')}"
                found = f"{name} {known[name]}" if name in known else f"the data's own {name}"
                text = f"{option} {value}, but {path} was trained with {found}; leave {option} out"
                raise CheckpointError(f"{text}, or give a network trained with {value}")

    def build(self) -> nn.Module:
        """The network before training, with frozen gates if it has any."""
        options = {"width": self.width or None, "seed": self.seed, "init": self.init}
        options |= {"norm": self.norm, "standardised": self.standardised}
        model = build(self.network, self.input_shape, self.classes, **options)
        return gates.freeze(gates.install(model, self.input_shape)) if self.gated else model


def save_network(path: str | Path, model: nn.Module, header: Header) -> Path:
    """Write a network, a pruned one without its switches; the file appears whole or not at all."""
    header = replace(header, gated=bool(gates.sites(model)))
    if weights.switches(model):
        header, model = replace(header, pruned=weights.masks_of(model)[0].kept), weights.plain(model)
    with whole(path) as part:
        save_file(apart(model.state_dict()), part, metadata={"format": FORMAT, "header": json.dumps(asdict(header))})
    return Path(path)


_FIELDS = {
    "network": (f'"({"|".join(NETWORKS)})"', f"one of {', '.join(NETWORKS)}"),
    "width": (r"\d{1,5}", "a whole number from 0 to 99,999"),
    "input_shape": (r"\[[1-9]\d{0,7}(, [1-9]\d{0,7}){0,4}\]", "a list of whole numbers above 0"),
    "classes": (r"[1-9]\d{0,4}", "a whole number from 2 to 99,999"),
    "data": (TEXT, "the name of a data set"),
    "seed": (r"\d{1,18}", "a whole number of at most 18 digits"),
    "gated": ("true|false", "true or false"),
    "data_options": (rf"\[(\[{TEXT}, ({TEXT}|[-+.e\d]+|true|false)\](, )?)*\]", "pairs of a name and a value"),
    "init": (f'"({"|".join(INITS)})"', f"one of {', '.join(INITS)}"),
    "content": ('"[0-9a-f]{0,64}"', "hexadecimal digits"),
    "pruned": (r"\d{1,18}", "a whole number"),
    "norm": (f'"({"|".join(NORMS)})"', f"one of {', '.join(NORMS)}"),
    "standardised": ("true|false", "true or false"),
    "rule": (
        r'"([a-z_]{1,40}(\([a-z_]+=[-+.\w]+(, [a-z_]+=[-+.\w]+){0,20}\))?)?"',
        "a rule, such as dp_sgd(epsilon=3.0)",
    ),
    "guarantee": (r"null|\{.*\}", "null, or the numbers of a privacy guarantee"),
    "schedule": (r"null|\{.{1,900}\}", "null, or the options of a Schedule"),
}
"""Fields of a header, the first six always there: how JSON writes them, and that in words."""
_NUMBER = (r"\d{1,30}(\.\d+)?(e[-+]?\d+)?", "a number above 0")
_GUARANTEE = dict.fromkeys(("epsilon", "delta", "noise", "clip", "rate"), _NUMBER) | {
    "steps": (r"\d{1,18}", "a whole number"),
    "accountant": ('"(rdp|prv)"', "rdp or prv"),
    "unit": ('"training image"', "training image"),
    "ended": (r'"[^"\\]{0,80}"', "the name of a step"),
}


def _schedule(given: dict[str, object]) -> Schedule:
    """How a network was trained, as its header says; a ValueError for what no training can be."""
    found = checked(given, Schedule, "has a header with a schedule")
    if "epochs" not in found:
        raise ValueError("has a schedule without epochs in its header")
    for name, value in found.items():
        least = name in ("epochs", "batch_size", "lr")
        if isinstance(value, int | float) and (value < 0 or least and not value):
            raise ValueError(f"has {name} = {value} in its schedule; {name} is {'above 0' if least else '0 or more'}")
    return Schedule(**found)


def _check_held(rule: object, network: nn.Module) -> None:
    """Refuse a guarantee that holds where the rest of a header says that it cannot."""
    if not isinstance(rule, rules.DPSGD) or rule.noise == 0:
        said = f"the rule {rule.name!r}, which guarantees nothing"
    elif any(isinstance(one, nn.modules.batchnorm._BatchNorm) for one in network.modules()):
        said = "batch norm, which mixes the images of a batch"
    else:
        return
    text = f"claims a privacy guarantee that holds, and {said}: both cannot be; a private network has a private rule "
    raise ValueError(f'{text}and no batch norm (norm = "group"), or says what ended its guarantee')


def load_network(path: str | Path) -> tuple[nn.Module, Header]:
    """Read a network; its header and the kinds of its tensors are checked before it is built.

    Raises:
        CheckpointError: If the file is missing, truncated, no network of linfair, or its weights fit another one.
    """
    if unfit(path) == "does not exist":
        raise CheckpointError(f"no network at {path}; `linfair linearize` writes teacher.safetensors")
    with refusing(path, CheckpointError):
        notes, tensors = read(path, "network file")
        if notes.get("format") != FORMAT:
            raise ValueError(f"is no network written by linfair: its format is {notes.get('format')!r}, not {FORMAT!r}")
        fields = typed(parsed(notes.get("header", "null")), _FIELDS, needed=6)
        shape, options = tuple(fields["input_shape"]), tuple(map(tuple, fields.get("data_options", ())))
        if guarantee := fields.get("guarantee"):
            guarantee = Guarantee(**typed(guarantee, _GUARANTEE, needed=len(_GUARANTEE), what="guarantee"))
        schedule = _schedule(fields["schedule"]) if fields.get("schedule") is not None else None
        fields |= {"input_shape": shape, "data_options": options, "guarantee": guarantee, "schedule": schedule}
        header = Header(**fields)
        rule = rules.resolve(header.rule or None)
        width = header.width or NETWORKS[header.network][2]
        alphas = {name: one for name, one in tensors.items() if header.gated and name.endswith(".alpha")}
        units = sum(map(Tensor.numel, alphas.values())) if header.gated and header.network != "mlp" else math.inf
        if math.prod(shape) > 2**24 or width * math.prod(shape[1:]) > units:
            raise ValueError(f"has input_shape = {list(shape)} in its header, too large for the gates that it holds")
        whose, given = f"{header.network} of width {width} on inputs {'x'.join(map(str, shape))}", kinds(tensors)
        with torch.device("meta"):  # takes no memory
            built = build(header.network, shape, header.classes, width=width, norm=header.norm)
            plain = kinds(built.state_dict())
        if guarantee and guarantee.holds:
            _check_held(rule, built)
        check_kinds({name: kind for name, kind in given.items() if name not in alphas}, plain, whose)
        model = header.build()
        check_kinds(given, kinds(model.state_dict()), whose)
        check_finite(tensors)
        if odd := [name for name, one in alphas.items() if not torch.equal(one * one, one)]:
            raise ValueError(f"has gates that are neither 0 nor 1, in {some(odd)}")
    model.load_state_dict(tensors)
    return model, header
