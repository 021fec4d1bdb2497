"""What one private answer costs: bytes, rounds and seconds, from what a network computes and which ReLUs are kept.

Measured protocols (`predicted`): SEMI2K, Cheetah and ABY3 as the engine SPU computes them. An answer is a list of
`operations`: products of matrices (a convolution is one of patches and kernels) and nonlinearities. Each has a law that
was fitted to measured operations alone (`prices.toml`, by `tests/benchmarks/spu_cost.py`):

    bytes = sum of price * amount,    rounds = so many for each call,    seconds = sum of price * amount.

An amount is the scalars computed, those that SEMI2K sends masked, the ciphertexts that Cheetah sends, the products or
the calls. Over a link of B bits a second and a round trip time T, an answer takes

    seconds = computing + 8 bytes / B + rounds * T.

Sharing the inputs and weights and revealing the answer are not in it, nor is the correlated randomness that SEMI2K
takes as given, nor Cheetah's first comparison on a connection (`Prediction.setup`).

Delphi (`private_inference_cost`; Mishra et al., USENIX Security 2020; the paper's Sec. 2) has published constants:
linear layers on secret shares, each ReLU a garbled circuit that the server garbles beforehand (*offline*) and the
client evaluates (*online*). With r ReLUs left in l layers, one answer takes

    online seconds = 0.43 m + 21.8e-6 r + 8 * 1193 r / B + (l + 1) T,    online bytes = 1193 r,

where m = (multiply-accumulates of the network) / (those of ResNet18 on 32x32 images). The public artifact of an ASPLOS
study measured the constants, for ResNet18 on CIFAR on one thread; that the linear layers' seconds grow with m is an
assumption. The linear layers' bytes and the time of garbling are not in the source (so the offline seconds are a lower
bound), and other nonlinearities than ReLUs are left out.
"""

import copy
import math
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from linfair.functional import by_products
from linfair.inference.export import as_computed
from linfair.masks import Mask
from linfair.nonlinear import counted, is_relu, name_of

RESNET18_UNITS, RESNET18_LAYERS = 491_520, 16
"""ReLUs of ResNet18 on 32x32 images, and layers of them, without one behind the stem."""
RESNET18_MACS = 555_422_720
"""Multiply-accumulates of one forward pass of ResNet18 on a 3x32x32 image with 10 classes (`count_macs`)."""


ONLINE_BYTES, OFFLINE_BYTES = 1_184 + 9, 17_072 + 2_016
"""Of one ReLU under Delphi: labels of the inputs, masked input; garbled circuit, oblivious transfer."""
RELU_SECONDS, LINEAR_SECONDS, OFFLINE_SECONDS = 21.8e-6, 0.43, 286.0
"""To evaluate and encode one ReLU, and of all linear layers of ResNet18 on CIFAR online and, encrypted, offline."""
PRICES: dict[str, dict] = tomllib.loads(resources.files("linfair").joinpath("prices.toml").read_text()) | {
    "delphi": {
        "answer": {"parties": 2, "rounds": 1, "setup": [0, 0]},
        "ReLU": {"bytes": {"scalars": ONLINE_BYTES}, "rounds": 1, "seconds": {"scalars": RELU_SECONDS}},
        **{
            kind: {"bytes": {}, "rounds": 0, "seconds": {"products": LINEAR_SECONDS / RESNET18_MACS}}
            for kind in ("linear", "convolution", "multiplication", "AvgPool", "truncation")
        },
    }
}
"""Protocol -> kind of operation -> its law."""
PROTOCOLS = tuple(PRICES)


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
    kept: int | Mask, *, macs: int | None = None, bandwidth: float = 1e9, rtt: float = 0.0
) -> Cost:
    """Online and offline cost of one answer under Delphi.

    Args:
        kept: The mask, or how many ReLUs of ResNet18 are kept, in as many layers as can be.
        macs: Multiply-accumulates of the masked network, see `count_macs`; needed for any but ResNet18.
        bandwidth: Bits a second between client and server; 1e9 is a fast local network.
        rtt: Round trip time in seconds.

    Raises:
        ValueError: For a number out of range, a mask of another network without `macs`, or `macs` without a mask.

    The two ends of the paper's range, computing alone; then 0.43 + 0.214 + 0.938 + 17 * 0.05 seconds on a slow link:

    >>> ends = [private_inference_cost(kept) for kept in (491_520, 9_830)]
    >>> [(round(one.compute_seconds, 2), f"{one.online_bytes / 1e6:.0f} MB") for one in ends]
    [(11.15, '586 MB'), (0.64, '12 MB')]
    >>> round(private_inference_cost(9_830, bandwidth=1e8, rtt=0.05).online_seconds, 2)
    2.43
    """
    check_link(bandwidth, rtt)
    if isinstance(kept, Mask):
        kept, units, layers = kept.kept, kept.total, sum(count > 0 for count in kept.per_site.values())
        if macs is None and units != RESNET18_UNITS:
            raise ValueError(
                f"the linear layers' seconds were measured for ResNet18 on 32x32 images ({RESNET18_UNITS:,} ReLUs), "
                f"and this network has {units:,}; scale them with macs=linfair.cost.count_macs(model, input_shape)"
            )
    elif isinstance(kept, bool) or not isinstance(kept, int):
        raise ValueError(f"kept = {kept!r} is not allowed; give a Mask or a whole number of ReLUs")
    elif macs is not None:
        raise ValueError("a count is of ResNet18's ReLUs, and macs= means another network: give its Mask")
    elif not 0 <= kept <= RESNET18_UNITS:
        raise ValueError(f"kept = {kept:,} is not possible; give 0 to {RESNET18_UNITS:,}, the ReLUs of ResNet18")
    else:
        layers = min(RESNET18_LAYERS, kept)
    if macs is not None and macs < 0:
        raise ValueError(f"macs = {macs} is not allowed; take it from linfair.cost.count_macs(model, input_shape)")
    scale = 1.0 if macs is None else macs / RESNET18_MACS
    online, offline = kept * ONLINE_BYTES, kept * OFFLINE_BYTES
    return Cost(
        kept=kept,
        layers=layers,
        rounds=layers + 1,
        linear_seconds=LINEAR_SECONDS * scale,
        relu_seconds=RELU_SECONDS * kept,
        transfer_seconds=8 * online / bandwidth,
        waiting_seconds=(layers + 1) * rtt,
        online_bytes=online,
        offline_bytes=offline,
        offline_seconds=OFFLINE_SECONDS * scale + 8 * offline / bandwidth,
    )


def count_macs(model: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Multiply-accumulates of one forward pass on one input, of products of matrices and convolutions alone.

    >>> count_macs(nn.Linear(3, 2), (3,))
    6
    """
    copied, like, flops = copy.deepcopy(model).eval(), next(model.parameters(), torch.empty(0)), []
    more = {
        torch.ops.aten.mv: lambda matrix, *_, **__: 2 * math.prod(matrix),
        torch.ops.aten.mkldnn_rnn_layer: lambda x, *w, **_: 2 * x[0] * x[1] * (math.prod(w[0]) + math.prod(w[1])),
    }
    for n in (1, 2):  # a second input adds what is not done on weights alone
        with torch.no_grad(), by_products(), FlopCounterMode(display=False, custom_mapping=more) as counter:
            copied(torch.zeros(n, *input_shape, device=like.device, dtype=like.dtype))
        flops.append(counter.get_total_flops())
    return (flops[1] - flops[0]) // 2


def check_link(bandwidth: float, rtt: float) -> None:
    """Refuse a bandwidth or a round trip time that no link has."""
    if not bandwidth > 0:
        raise ValueError(f"bandwidth = {bandwidth} is not allowed; give bits a second above 0, such as 1e8")
    if not rtt >= 0:
        raise ValueError(f"rtt = {rtt} is not allowed; give seconds, 0 or more, such as 0.05")


@dataclass(frozen=True)
class Operation:
    """One call of an operation, for one input."""

    kind: str  # linear, convolution, ReLU, AvgPool, multiplication, truncation, or a kind of `gates.nonlinearities`
    scalars: int  # computed
    comparisons: int = 0
    levels: int = 1  # of comparisons that wait for each other
    shape: tuple[int, int, int] | None = None  # (m, k, n) of a product (m, k) by (k, n)

    @property
    def amounts(self) -> dict[str, int]:
        """What its price hangs on."""
        m, k, n = self.shape or (0, 0, 0)
        found = {"calls": 1, "scalars": self.scalars, "comparisons": self.comparisons}
        made = ciphertexts(m, k, n) if m else (0, 0, 0, 0)
        found |= {"masked": m * k + k * n, "products": m * k * n}
        return found | dict(zip(("sent", "packed", "alone", "unpacked"), made, strict=True))


@lru_cache(4096)
def ciphertexts(m: int, k: int, n: int, degree: int = 8192) -> tuple[int, int, int, int]:
    """Ciphertexts of one of Cheetah's products (m, k) by (k, n): sent, answers packed, not packed, and before packing.

    A block of (a, b) by (b, c) values fits one polynomial, a b c <= degree, and b answers are packed into one. The
    engine takes the blocks that cost least: 1000 for each ciphertext, 1 for each rotation of the packing, 0.1 for each
    product of blocks. To be packed, b is a power of two; where the best blocks give one answer, it is any number and
    nothing is packed.
    """

    def best(packs: bool) -> tuple[int, int, int]:
        least, found = math.inf, (0, 0, 0)
        for a in range(1, min(degree, m) + 1):
            sizes = range(1, min(k, degree // a) + 1)
            for b in (2**i for i in range(len(sizes).bit_length())) if packs else sizes:
                rows, inner, columns = -(-m // a), -(-k // b), -(-n // min(n, degree // (a * b)))
                sent, answered = min(rows, columns) * inner, -(-rows * columns // b)
                cost = 1000 * (sent + answered) + packs * -(-m * n // degree) * b + rows * inner * columns / 10
                if cost <= least:
                    least, found = cost, (sent, answered, rows * columns)
        return found

    sent, packed, made = best(True)
    if made > 1:
        return sent, packed, 0, made
    sent, _, made = best(False)
    return sent, 0, made, made


def product(
    inputs: int, outputs: int, size: Sequence[int], kernel: Sequence[int], places: Sequence[int]
) -> tuple[int, int, int]:
    """The product (m, k, n) that a convolution is: of patches and kernels, of whole images where those are smaller."""
    m, window, pixels = math.prod(places), math.prod(kernel), math.prod(size)
    return (m, inputs * window, outputs) if window <= pixels else (1, inputs * pixels, outputs * m)


def _place(one: Tensor) -> int:
    return one.untyped_storage().data_ptr()


class _Calls(TorchDispatchMode):
    """The operations of a forward pass on x, in their order; the server does those on weights alone by itself."""

    def __init__(self, network: nn.Module, x: Tensor) -> None:
        super().__init__()
        self.found: list[Operation] = []
        self.public = {buffer.data_ptr() for buffer in network.buffers()}  # masks
        self.made = {_place(x): x}  # out of x, by where it lies

    def __torch_dispatch__(self, func: object, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        out = func(*args, **(kwargs or {}))
        if not any(_place(one) in self.made for one in tree_leaves([args, kwargs]) if isinstance(one, Tensor)):
            return out
        self.made |= {_place(one): one for one in tree_leaves(out) if isinstance(one, Tensor) and one.numel()}
        name, add = name_of(func), self.found.append
        tensors = [one for one in args if isinstance(one, Tensor) and one.is_floating_point() and one.ndim]
        if is_relu(name, args):
            add(Operation("ReLU", out.numel(), out.numel()))
        elif name == "convolution":
            (_, channels, *places), weight, groups = out.shape, args[1], args[8]
            inputs, outputs, size = args[0].shape[1] // groups, channels // groups, args[0].shape[2:]
            across = math.prod(size), inputs, weight[0].numel()  # transposed: windows of outputs, which are added up
            shape = across if args[6] else product(inputs, outputs, size, weight.shape[2:], places)
            self.found += [Operation("convolution", math.prod(places) * outputs, shape=shape)] * groups
        elif name in ("mm", "mv", "bmm", "addmm", "baddbmm"):
            (*_, m, k), n = tensors[-2].shape, 1 if name == "mv" else out.shape[-1]
            self.found += [Operation("linear", m * n, shape=(m, k, n))] * (out.numel() // (m * n))
        elif name.replace("3d", "2d") in ("mean", "avg_pool2d", "_adaptive_avg_pool2d"):
            add(Operation("AvgPool", out.numel()))
        elif name in ("mul", "div", "addcmul") and tensors:  # by a number or a mask only the result is rescaled
            secret = [one for one in tensors if one.data_ptr() not in self.public]
            add(Operation("multiplication" if len(secret) > 1 else "truncation", out.numel()))
            if name == "div" and any(args[1] is one for one in secret):
                add(Operation("reciprocal", counted(name, args, out)[1]))
        elif name == "pow" and isinstance(args[1], int | float) and args[1] > 1 and args[1] == int(args[1]):
            power = int(args[1])  # by squares, and their products
            self.found += [Operation("multiplication", out.numel())] * (power.bit_length() + power.bit_count() - 2)
        elif (what := counted(name, args, out)) and what[1]:
            kind, units, comparisons = what
            depth = math.ceil(math.log2(comparisons / units + 1)) if "Pool" in kind or kind in ("Max", "Min") else 1
            add(Operation(kind, units, comparisons, depth))
        return out


def operations(network: nn.Module, input_shape: tuple[int, ...], *, execution: str = "gather") -> tuple[Operation, ...]:
    """What an engine computes for one input, in evaluation mode, batch norms folded.

    >>> network = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> [(one.kind, one.scalars, one.shape) for one in operations(network, (3,))]
    [('linear', 2, (1, 3, 2)), ('ReLU', 2, None), ('linear', 1, (1, 2, 1))]
    """
    plain = as_computed(copy.deepcopy(network).cpu().float().eval(), execution)[0]
    x = torch.randn(1, *input_shape, generator=torch.Generator().manual_seed(0))  # max(0, 0) would be a ReLU
    with torch.no_grad(), by_products(), _Calls(plain, x) as calls:
        plain(x)
    return tuple(calls.found)


@dataclass(frozen=True)
class Prediction:
    """The cost of one private answer under one protocol: of each kind of operation and in all."""

    protocol: str
    parties: int
    parts: dict[str, tuple[float, float, float]]  # kind -> bytes of all parties, rounds, seconds of computing
    left_out: tuple[str, ...]  # nonlinearities without a price: with any, the numbers are lower bounds
    setup: tuple[int, int]  # bytes and rounds of a connection, once
    transfer_seconds: float  # to send the bytes
    waiting_seconds: float  # rounds times the round trip time

    @property
    def bytes(self) -> int:
        """Sent by all parties while the answer is computed."""
        return round(sum(sent for sent, _, _ in self.parts.values()))

    @property
    def rounds(self) -> int:
        """Messages of the party that sends most; those that wait for an answer are fewer, at times."""
        return round(sum(rounds for _, rounds, _ in self.parts.values()))

    @property
    def compute_seconds(self) -> float:
        """Without the link, one thread for each party."""
        return sum(seconds for _, _, seconds in self.parts.values())

    @property
    def seconds(self) -> float:
        """From the question to the answer: the sum of computing, transfer and waiting."""
        return self.compute_seconds + self.transfer_seconds + self.waiting_seconds


def predicted(
    network: nn.Module | Iterable[Operation],
    input_shape: tuple[int, ...] = (),
    protocol: str = "semi2k",
    *,
    execution: str = "gather",
    bandwidth: float = 1e9,
    rtt: float = 0.0,
) -> Prediction:
    """What one private answer costs under a protocol.

    A nonlinearity that was not measured counts as a ReLU for each of its comparisons, and is left out without any.

    Args:
        network: A gated, pruned or plain network, or its `operations`.
        input_shape: Shape of one input, without the batch.
        protocol: One of `PROTOCOLS`.
        execution: How a layer is computed of which the mask keeps a part: `linfair.inference.export.EXECUTIONS`.
        bandwidth: Bits a second between the parties; 1e9 is a fast local network.
        rtt: Round trip time in seconds.

    Raises:
        ValueError: For an unknown protocol, a number out of range, or gates between 0 and 1.

    >>> network = nn.Sequential(nn.Linear(64, 10), nn.ReLU())
    >>> found = predicted(network, (64,), "semi2k")
    >>> found.bytes == 16 * (64 + 640) + 8 * 10 + 144 * 10, found.rounds
    (True, 10)
    """
    check_link(bandwidth, rtt)
    if protocol not in PRICES:
        raise ValueError(f"protocol = {protocol!r} is not known; there are {', '.join(PRICES)}")
    if isinstance(network, nn.Module):
        network = operations(network, input_shape, execution=execution)
    prices, missing = PRICES[protocol], Counter()
    parts: dict[str, tuple[float, float, float]] = {"answer": (0, prices["answer"]["rounds"], 0)}
    for one in network:
        law, amounts = prices.get(one.kind), one.amounts
        if law is None and one.comparisons:
            law, amounts = prices["ReLU"], amounts | {"scalars": one.comparisons}
        if law is None:
            missing[one.kind] += one.scalars
            continue
        sent, seconds = (sum(price * amounts[of] for of, price in law[what].items()) for what in ("bytes", "seconds"))
        before = parts.get(one.kind, (0, 0, 0))
        parts[one.kind] = (before[0] + sent, before[1] + law["rounds"] * one.levels, before[2] + seconds)
    sent, rounds, _ = (sum(part) for part in zip(*parts.values(), strict=True))
    return Prediction(
        protocol=protocol,
        parties=prices["answer"]["parties"],
        parts={kind: part for kind, part in parts.items() if any(part)},
        left_out=tuple(f"{n:,} {kind}" for kind, n in missing.items()),
        setup=tuple(prices["answer"]["setup"]),
        transfer_seconds=8 * sent / bandwidth,
        waiting_seconds=rounds * rtt,
    )
