"""Networks as files: safetensors weights, with the header that says how to build the network again."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from linfair import gates
from linfair.data import GroupedData
from linfair.models import NETWORKS, build
from linfair.paths import whole

FORMAT = "linfair-network-1"
PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
"""Endings of files that may hold code."""


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

    def check_data(self, data: GroupedData, path: str | Path) -> None:
        """Refuse data, split by the header's seed, that are no longer those that the network was trained on."""
        if (self.input_shape, self.classes) != (data.input_shape, data.classes):
            problem = f"inputs {data.input_shape} of {data.classes} labels, not {self.input_shape} of {self.classes}"
        elif self.content and self.content != data.content:
            problem = "other images or labels, or other splits of them"
        else:
            return
        raise CheckpointError(
            f"{self.data} has changed since {path} was trained on it: it now has {problem}. Training images might be "
            "tested, or labels be taken for others: put the data back as they were, or train anew with "
            "`linfair linearize`"
        )

    def build(self) -> nn.Module:
        """The network before training, with frozen gates if it has any."""
        options = {"width": self.width or None, "seed": self.seed, "init": self.init}
        model = build(self.network, self.input_shape, self.classes, **options)
        return gates.freeze(gates.install(model, self.input_shape)) if self.gated else model


def save_network(path: str | Path, model: nn.Module, header: Header) -> Path:
    """Write a network; the file appears whole or not at all."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with whole(path) as part:
        save_file(tensors, part, metadata={"format": FORMAT, "header": json.dumps(asdict(header))})
    return Path(path)


def load_network(path: str | Path) -> tuple[nn.Module, Header]:
    """Read a network.

    Raises:
        CheckpointError: If the file is missing, truncated, no network of linfair, or its weights fit another one.
    """
    try:
        with safe_open(path, framework="pt") as file:
            notes = file.metadata() or {}
            if notes.get("format") != FORMAT:
                raise CheckpointError(f"{path} is no network written by linfair (its header lacks {FORMAT!r})")
            fields = json.loads(notes["header"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise CheckpointError(f"no network at {path}") from None
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        if Path(path).suffix in PICKLES:
            raise CheckpointError(
                f"{path} may hold code that runs when it is read, and is no network of linfair. `linfair linearize` "
                "writes teacher.safetensors; for a network of your own there is `linfair audit --weights`"
            ) from None
        raise CheckpointError(f"{path} is truncated or no network file ({error})") from error
    try:
        fields |= {"input_shape": tuple(fields["input_shape"])}
        header = Header(**fields | {"data_options": tuple((k, v) for k, v in fields.get("data_options", ()))})
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"the header of {path} describes no network of this linfair ({error})") from error
    if header.network not in NETWORKS:
        raise CheckpointError(f"{path} holds network {header.network!r}; this linfair knows {', '.join(NETWORKS)}")
    try:
        model = header.build()
        model.load_state_dict(tensors)
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"the weights in {path} do not fit {header.network}: {error}") from error
    return model, header
