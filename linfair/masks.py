"""Masks: which units stay ReLUs, as a file that any network can use; and what sets them, a `Reduction`.

A mask is written as safetensors: one boolean tensor per site (True = the ReLU is kept) and, in the header, the names
and shapes of the sites and a hash of the network's structure. Nothing in it is executed on loading.
"""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from linfair import gates
from linfair.ensemble import Ensemble
from linfair.gates import GateError
from linfair.ledger import STEPS
from linfair.names import some
from linfair.paths import unfit, whole
from linfair.tensors import TEXT, check_kinds, kinds, parsed, read, refusing, typed

FORMAT = "linfair-mask-1"
WORDS = {"relu": "ReLUs", "weight": "weights"}  #: The kinds of units, in words
REDUCED = {"relu": "linearized", "weight": "pruned"}  #: What a network is called that lost some


@dataclass(frozen=True)
class Mask:
    """Which `units` of one network are kept, by site, True = kept; `structure` is the network's `structure_hash`."""

    units: dict[str, Tensor]
    structure: str
    kind: str = "relu"  #: What a unit is: a `relu` or a `weight`
    step: str = ""  #: The step of `linfair.ledger.STEPS` that chose the units; empty where it is not known
    teacher: str = ""  #: Digest of the weights of the network that it was chosen for

    @property
    def per_site(self) -> dict[str, int]:
        """Number of kept ReLUs by site."""
        return {site: int(unit.sum()) for site, unit in self.units.items()}

    @property
    def kept(self) -> int:
        """Number of kept ReLUs."""
        return sum(self.per_site.values())

    @property
    def total(self) -> int:
        """Number of units."""
        return sum(unit.numel() for unit in self.units.values())

    def jaccard(self, other: "Mask") -> float:
        """Shared kept units over units kept in either mask; 1 for equal masks, two empty ones included."""
        _same_sites(self.units, other.units, "the other mask")
        both = sum(int((unit & other.units[site]).sum()) for site, unit in self.units.items())
        either = self.kept + other.kept - both
        return both / either if either else 1.0

    def save(self, path: str | Path) -> Path:
        """Write the mask; the file appears whole or not at all."""
        shapes = json.dumps({site: list(unit.shape) for site, unit in self.units.items()})
        header = {"format": FORMAT, "structure": self.structure, "kept": str(self.kept), "sites": shapes}
        header |= {"kind": self.kind, "step": self.step, "teacher": self.teacher}
        with whole(path) as part:
            save_file({site: unit.cpu().contiguous() for site, unit in self.units.items()}, part, metadata=header)
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> "Mask":
        """Read a mask; a GateError says that the file is missing, truncated or not a mask."""
        if unfit(path) == "does not exist":
            there = some(sorted(one.name for one in Path(path).parent.glob("*.mask.safetensors")))
            hint = f"there are {there}" if there else "`linfair linearize` writes one for each budget"
            raise GateError(f"no mask at {path}; {hint}")
        with refusing(path, GateError):
            notes, units = read(path, "mask")
            if notes.get("format") != FORMAT:
                raise ValueError(f"is no mask: its format is {notes.get('format')!r}, not {FORMAT!r}")
            sites = typed({**notes, "sites": parsed(notes.get("sites", "null"))}, _FIELDS, needed=4)["sites"]
            check_kinds(kinds(units), {site: f"bool {tuple(shape)}" for site, shape in sites.items()}, "its header's")
            more = {"kind": notes.get("kind", "relu"), "step": notes.get("step", "")}
            mask = cls(units, notes["structure"], teacher=notes.get("teacher", ""), **more)
            if notes["kept"] != str(mask.kept):
                raise ValueError(f"has kept = {notes['kept']} in its header, and keeps {mask.kept} units")
        return mask


_FIELDS = {
    "format": (f'"{FORMAT}"', FORMAT),
    "structure": ('"[0-9a-f]{16}"', "16 hexadecimal digits"),
    "kept": (r'"\d{1,18}"', "a whole number"),
    "sites": (rf"\{{({TEXT}: \[(\d{{1,8}}(, )?){{0,8}}\](, )?)+\}}", "names of sites, each with its shape"),
    "kind": (f'"({"|".join(WORDS)})"', " or ".join(WORDS)),
    "step": (f'"({"|".join(STEPS)})?"', f"one of {', '.join(STEPS)}"),
    "teacher": ('"[0-9a-f]{0,64}"', "hexadecimal digits"),
}


def structure_hash(model: nn.Module, kind: str = "relu") -> str:
    """SHA-256 (16 hex digits) over the names and shapes of a network's weights, for ReLU masks of its gates too.

    It is the same with and without weight switches, so that either mask fits before and after the other reduction.
    """
    stacked = isinstance(model, Ensemble)
    network = model.network if stacked else model
    left_out = {f"{site}.alpha" for site in gates.sites(network)} if kind == "weight" else ()
    shapes = {
        re.sub(r"parametrizations\.(\w+)\.original$", r"\1", name): list(value.shape[stacked:])
        for name, value in network.state_dict().items()
        if name not in left_out and not re.search(r"parametrizations\.\w+\.\d+\.kept$", name)
    }
    return hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest()[:16]


def masks_of(model: nn.Module, *, threshold: float = 1e-2) -> list[Mask]:
    """The present mask of each member, alpha > threshold; a plain network is one member."""
    structure = structure_hash(model)
    kept = {site: (alpha.detach() > threshold).cpu() for site, alpha in gates.alphas(model).items()}
    members = len(next(iter(kept.values())))
    return [Mask({site: unit[m] for site, unit in kept.items()}, structure) for m in range(members)]


def apply_mask(model: nn.Module, mask: Mask | list[Mask]) -> nn.Module:
    """Set a gated network's alphas to a mask (one per member for an ensemble) and freeze them; returns the network.

    A GateError names the sites that differ where the mask belongs to another network.
    """
    masks = [mask] if isinstance(mask, Mask) else list(mask)
    check_fit(masks, masks_of(model))
    return gates.freeze(gates.set_alphas(model, lambda site, _: torch.stack([one.units[site] for one in masks])))


def check_fit(masks: list[Mask], present: list[Mask]) -> None:
    """Refuse masks that do not fit the network that has the present ones."""
    if len(masks) != len(present):
        raise GateError(f"{len(masks)} masks for {len(present)} networks: give one mask for each")
    for one, own in zip(masks, present, strict=True):
        if one.kind != own.kind:
            raise GateError(f"the mask says which {WORDS[one.kind]} are kept, not which {WORDS[own.kind]}")
        _same_sites(own.units, one.units, "the mask")
        if one.structure != own.structure:
            text = "the mask was made for another network: its sites fit, but the weights' names or shapes differ "
            raise GateError(f"{text}(structure {one.structure}, this network {own.structure})")


def _same_sites(ours: dict[str, Tensor], theirs: dict[str, Tensor], what: str) -> None:
    shapes = [(site, tuple(theirs[site].shape), tuple(ours[site].shape)) for site in ours if site in theirs]
    found = {
        f"sites missing from {what}": [site for site in ours if site not in theirs],
        f"sites only in {what}": [site for site in theirs if site not in ours],
        "shapes differ": [f"{site} is {there} there and {here} here" for site, there, here in shapes if there != here],
    }
    if any(found.values()):
        parts = "; ".join(f"{word}: {some(sites, 3)}" for word, sites in found.items() if sites)
        raise GateError(f"{what} belongs to another network; {parts}")


@dataclass(frozen=True)
class Reduction:
    """One kind of thing to remove from a trained network, so that whatever follows need not know what it is."""

    #: Network and the shape of one input -> a copy that computes the same, with a switch at every unit
    switched: Callable[[nn.Module, tuple[int, ...]], nn.Module]
    #: Network (or ensemble) and its mask or masks -> the same, its switches set to them and out of training
    apply: Callable[[nn.Module, Mask | list[Mask]], nn.Module]
    masks: Callable[[nn.Module], list[Mask]]  #: Network (or ensemble) with switches -> each member's present mask
    kind: str = "relu"  #: What a unit is, one of `WORDS`

    def install(self, model: nn.Module, input_shape: tuple[int, ...]) -> nn.Module:
        """A copy of a network, or of each network of an ensemble, with every switch on."""
        if isinstance(model, Ensemble):
            return Ensemble([self.switched(network, input_shape) for network in model.networks()])
        return self.switched(model, input_shape)

    def fixed(self, model: nn.Module) -> nn.Module:
        """The same network, its switches as they are and out of training."""
        return self.apply(model, self.masks(model))

    def kept(self, model: nn.Module) -> tuple[int, ...]:
        """Units that each member keeps."""
        return tuple(mask.kept for mask in self.masks(model))

    def total(self, model: nn.Module) -> int:
        """Units of one network."""
        return self.masks(model)[0].total


RELUS = Reduction(gates.install, apply_mask, masks_of)  #: A unit is a ReLU, its switch a gate: see `linfair.gates`
