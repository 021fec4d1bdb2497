"""What a ReLU costs in private inference: seconds and bytes of one answer, from how many ReLUs are kept and where.

The protocol is Delphi's (Mishra et al., USENIX Security 2020; the paper's Sec. 2): linear layers on secret shares, each
ReLU a garbled circuit that the server garbles beforehand (*offline*) and the client evaluates (*online*). With r ReLUs
left in l layers, a link of B bits a second and a round trip time T, one answer takes

    online seconds = 0.43 m + 21.8e-6 r + 8 * 1193 r / B + (l + 1) T,    online bytes = 1193 r,

where m = (multiply-accumulates of the network) / (those of ResNet18 on 32x32 images). The constants were measured for
ResNet18 on CIFAR on one thread; r, l and the bytes are counts and carry over to any network. That the linear layers'
seconds grow with m is an assumption: for another network, read them as an order of magnitude. A layer without any ReLU
saves its round trip; one round trip, question and answer, is always there. The linear layers' own bytes are not in the
source and not in here. Nor are nonlinearities other than ReLUs, which `linfair.gates.nonlinearities` counts: for a
network that has any, seconds and bytes are lower bounds.
"""

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from linfair.masks import Mask

RESNET18_UNITS, RESNET18_LAYERS = 491_520, 16
"""ReLUs of ResNet18 on 32x32 images, and layers of them, without one behind the stem."""
RESNET18_MACS = 555_422_720
"""Multiply-accumulates of one forward pass of ResNet18 on a 3x32x32 image with 10 classes (`count_macs`)."""


@dataclass(frozen=True)
class ReluCost:
    """What one ReLU costs under one protocol; None where it was not measured."""

    name: str
    online_bytes: float  # sent while the client waits
    source: str
    offline_bytes: float | None = None  # sent beforehand
    online_seconds: float | None = None  # computing while the client waits, one thread
    linear_seconds: float | None = None  # online, of all linear layers of ResNet18 on CIFAR
    offline_seconds: float | None = None  # of the linear layers' homomorphic encryption, for the same network
    note: str = ""  # what the numbers leave out


DELPHI = ReluCost(
    name="delphi",
    online_bytes=1_184 + 9,  # labels of the inputs, masked input
    offline_bytes=17_072 + 2_016,  # garbled circuit, oblivious transfer
    online_seconds=21.8e-6,  # evaluate and encode
    linear_seconds=0.43,
    offline_seconds=286.0,
    source="measured by the public artifact of an ASPLOS study, ResNet18 on CIFAR, one thread",
    note="the time of garbling is not in it, so the offline seconds are a lower bound",
)
_HERE = "measured here with SPU 0.9.5, two parties on one machine"
SEMI2K = ReluCost("semi2k", 144, _HERE, note="correlated randomness is taken as given: what makes it is left out")
CHEETAH = ReluCost("cheetah", 98.5, f"{_HERE}, bytes of one more ReLU", note="seconds were not stable enough to keep")
PROTOCOLS = {one.name: one for one in (DELPHI, SEMI2K, CHEETAH)}
"""Protocols by name; seconds are known for `delphi` only, for the others bytes."""


@dataclass(frozen=True)
class Cost:
    """The cost of one private answer, in parts."""

    kept: int  # ReLUs left
    layers: int  # that hold at least one of them
    rounds: int  # round trips, layers + 1
    linear_seconds: float  # online computing of the linear layers
    relu_seconds: float  # online computing of the ReLUs
    transfer_seconds: float  # to send the online bytes
    waiting_seconds: float  # round trips times the round trip time
    online_bytes: int  # sent while the client waits, those of the ReLUs
    offline_bytes: int  # sent beforehand, those of the ReLUs
    offline_seconds: float  # the linear layers' encryption and the time to send the offline bytes; a lower bound

    @property
    def compute_seconds(self) -> float:
        """Online seconds without the network link."""
        return self.linear_seconds + self.relu_seconds

    @property
    def online_seconds(self) -> float:
        """Seconds from the question to the answer: the sum of the four online parts."""
        return self.compute_seconds + self.transfer_seconds + self.waiting_seconds


def private_inference_cost(
    kept: int | Mask,
    *,
    bandwidth: float = 1e9,
    rtt: float = 0.0,
    layers: int | None = None,
    units: int | None = None,
    macs: int | None = None,
) -> Cost:
    """Online and offline cost of one answer under `DELPHI`.

    Args:
        kept: The mask, or how many ReLUs are kept.
        bandwidth: Bits a second between client and server; 1e9 is a fast local network.
        rtt: Round trip time in seconds.
        layers: Layers that keep a ReLU. A mask knows; of a count, by default all 16 of ResNet18, the most there can be.
        units: ReLUs of the whole network. A mask knows; of a count, by default ResNet18's.
        macs: Multiply-accumulates of the network, see `count_macs`; needed for any network but ResNet18.

    Raises:
        ValueError: For a number out of range, `layers` or `units` beside a mask, or another network without `macs`.

    The two ends of the paper's range, computing alone; then 0.43 + 0.214 + 0.938 + 17 * 0.05 seconds on a slow link:

    >>> ends = [private_inference_cost(kept) for kept in (491_520, 9_830)]
    >>> [(round(one.compute_seconds, 2), f"{one.online_bytes / 1e6:.0f} MB") for one in ends]
    [(11.15, '586 MB'), (0.64, '12 MB')]
    >>> round(private_inference_cost(9_830, bandwidth=1e8, rtt=0.05).online_seconds, 2)
    2.43
    """
    if not bandwidth > 0:
        raise ValueError(f"bandwidth = {bandwidth} is not allowed; give bits a second above 0, such as 1e8")
    if not rtt >= 0:
        raise ValueError(f"rtt = {rtt} is not allowed; give seconds, 0 or more, such as 0.05")
    if isinstance(kept, Mask):
        if layers is not None or units is not None:
            raise ValueError("a mask knows its layers and units: leave out layers= and units=")
        kept, units, layers = kept.kept, kept.total, sum(count > 0 for count in kept.per_site.values())
    elif isinstance(kept, bool) or not isinstance(kept, int):
        raise ValueError(f"kept = {kept!r} is not allowed; give a Mask or a whole number of ReLUs")
    elif macs is not None and None in (units, layers):
        raise ValueError("macs= means another network than ResNet18: give its units= and layers= too, or a Mask")
    else:
        units = RESNET18_UNITS if units is None else units
        if not 0 <= kept <= units:
            raise ValueError(f"kept = {kept:,} is not possible: the network has {units:,} ReLUs, so 0 to {units:,}")
        if layers is None:
            layers = min(RESNET18_LAYERS, kept)
        if not min(kept, 1) <= layers <= kept:
            raise ValueError(f"layers = {layers} cannot hold {kept:,} ReLUs, at least one each")
    if macs is None and units != RESNET18_UNITS:
        raise ValueError(
            f"the linear layers' seconds were measured for ResNet18 on 32x32 images ({RESNET18_UNITS:,} ReLUs), and "
            f"this network has {units:,}; scale them with macs=linfair.cost.count_macs(model, input_shape)"
        )
    if macs is not None and macs < 0:
        raise ValueError(f"macs = {macs} is not allowed; take it from linfair.cost.count_macs(model, input_shape)")
    scale = 1.0 if macs is None else macs / RESNET18_MACS
    online, offline = kept * DELPHI.online_bytes, kept * DELPHI.offline_bytes
    return Cost(
        kept=kept,
        layers=layers,
        rounds=layers + 1,
        linear_seconds=DELPHI.linear_seconds * scale,
        relu_seconds=DELPHI.online_seconds * kept,
        transfer_seconds=8 * online / bandwidth,
        waiting_seconds=(layers + 1) * rtt,
        online_bytes=online,
        offline_bytes=offline,
        offline_seconds=DELPHI.offline_seconds * scale + 8 * offline / bandwidth,
    )


def count_macs(model: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Multiply-accumulates of one forward pass on one input: convolutions and linear layers alone.

    >>> count_macs(nn.Linear(3, 2), (3,))
    6
    """
    copied, like = copy.deepcopy(model).eval(), next(model.parameters(), torch.empty(0))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        copied(torch.zeros(1, *input_shape, device=like.device, dtype=like.dtype))
    return counter.get_total_flops() // 2
