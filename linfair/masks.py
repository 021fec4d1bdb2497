"""Masks: which units stay ReLUs, as a file that any network can use.

A mask is written as safetensors: one boolean tensor per site (True = the ReLU is kept) and, in the header, the names
and shapes of the sites and a hash of the network's structure. Nothing in it is executed on loading.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from linfair.gates import GateError, alphas, freeze
from linfair.paths import whole

FORMAT = "linfair-mask-1"


@dataclass(frozen=True)
class Mask:
    """Which units of one network stay ReLUs.

    Attributes:
        units: Boolean tensor per site, True = kept.
        structure: Hash of the network it was made for, see `structure_hash`.
    """

    units: dict[str, Tensor]
    structure: str

    @property
    def kept(self) -> int:
        """Number of kept ReLUs."""
        return sum(int(unit.sum()) for unit in self.units.values())

    @property
    def total(self) -> int:
        """Number of units."""
        return sum(unit.numel() for unit in self.units.values())

    @property
    def per_site(self) -> dict[str, int]:
        """Number of kept ReLUs by site."""
        return {site: int(unit.sum()) for site, unit in self.units.items()}

    def jaccard(self, other: "Mask") -> float:
        """Shared kept units over units kept in either mask; 1 for equal masks, two empty ones included.

        >>> a, b = (Mask({"s": torch.tensor(bits).bool()}, "") for bits in ([1, 1, 0], [0, 1, 1]))
        >>> round(a.jaccard(b), 3)
        0.333
        """
        _same_sites(self.units, other.units, "the other mask")
        both = sum(int((unit & other.units[site]).sum()) for site, unit in self.units.items())
        either = sum(int((unit | other.units[site]).sum()) for site, unit in self.units.items())
        return both / either if either else 1.0

    def save(self, path: str | Path) -> Path:
        """Write the mask; the file appears whole or not at all."""
        header = {
            "format": FORMAT,
            "structure": self.structure,
            "kept": str(self.kept),
            "sites": json.dumps({site: list(unit.shape) for site, unit in self.units.items()}),
        }
        with whole(path) as part:
            save_file({site: unit.cpu().contiguous() for site, unit in self.units.items()}, part, metadata=header)
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> "Mask":
        """Read a mask.

        Raises:
            GateError: If the file is missing, truncated or not a mask.
        """
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                if header.get("format") != FORMAT:
                    raise GateError(f"{path} is a safetensors file but no mask (its header lacks {FORMAT!r})")
                order = json.loads(header["sites"])
                units = {site: file.get_tensor(site).bool() for site in order}
                structure = header["structure"]
        except FileNotFoundError:
            there = ", ".join(sorted(one.name for one in Path(path).parent.glob("*.mask.safetensors")))
            hint = f"there are {there}" if there else "`linfair linearize` writes one for each budget"
            raise GateError(f"no mask at {path}; {hint}") from None
        except (SafetensorError, KeyError, json.JSONDecodeError) as error:
            raise GateError(f"{path} is truncated or no mask ({error}); write it again with Mask.save") from error
        return cls(units, structure)


def structure_hash(model: nn.Module) -> str:
    """SHA-256 (16 hex digits) over the names and shapes of a gated network's sites and weights."""
    members = getattr(model, "members", None)
    network = model.network if members is not None else model
    shapes = {name: list(value.shape[1:] if members else value.shape) for name, value in network.state_dict().items()}
    return hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest()[:16]


def _alphas(model: nn.Module) -> dict[str, Tensor]:
    """Alphas by the site's name in one network, each (members, *site shape)."""
    prefix = "network." if getattr(model, "members", None) is not None else ""
    return {site.removeprefix(prefix): alpha for site, alpha in alphas(model).items()}


def masks_of(model: nn.Module, *, threshold: float = 1e-2) -> list[Mask]:
    """The present mask of each member, alpha > threshold; a plain network is one member."""
    structure = structure_hash(model)
    kept = {site: (alpha.detach() > threshold).cpu() for site, alpha in _alphas(model).items()}
    members = len(next(iter(kept.values())))
    return [Mask({site: unit[m] for site, unit in kept.items()}, structure) for m in range(members)]


def apply_mask(model: nn.Module, mask: Mask | list[Mask]) -> nn.Module:
    """Set a gated network's alphas to a mask (one per member for an ensemble) and freeze them; returns the network.

    Raises:
        GateError: If the mask belongs to another network; the message names the sites that differ.
    """
    masks, found = [mask] if isinstance(mask, Mask) else list(mask), _alphas(model)
    members = len(next(iter(found.values())))
    if len(masks) != members:
        raise GateError(f"{len(masks)} masks for {members} networks: give one mask for each")
    structure = structure_hash(model)
    for one in masks:
        _same_sites({site: alpha[0] for site, alpha in found.items()}, one.units, "the mask")
        if one.structure != structure:
            raise GateError(
                f"the mask was made for another network: its sites fit, but the weights' names or shapes differ "
                f"(structure {one.structure}, this network {structure})"
            )
    with torch.no_grad():
        for site, alpha in found.items():
            alpha.copy_(torch.stack([one.units[site] for one in masks]))
    return freeze(model)


def _same_sites(ours: dict[str, Tensor], theirs: dict[str, Tensor], what: str) -> None:
    missing, extra = [s for s in ours if s not in theirs], [s for s in theirs if s not in ours]
    shapes = [
        f"{s} is {tuple(theirs[s].shape)} there and {tuple(ours[s].shape)} here"
        for s in ours
        if s in theirs and ours[s].shape != theirs[s].shape
    ]
    if missing or extra or shapes:
        words = {f"sites missing from {what}": missing, f"sites only in {what}": extra, "shapes differ": shapes}
        parts = "; ".join(f"{word}: {', '.join(found[:3])}" for word, found in words.items() if found)
        raise GateError(f"{what} belongs to another network; {parts}")
