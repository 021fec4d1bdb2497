"""One party of a private answer: `python -I party.py JOB RANK FILE OUT`, in the engine's own environment (`make mpc`).

Rank 0 is the server, FILE is its network as ONNX; rank 1 is the client, FILE holds its images; a third one only helps.
Secret are the images and the weights: every float initializer with an axis. Public are the program, which the server
compiles and sends, so structure and mask, and in it whole numbers, single numbers and initializers named `.mask`.
"""

import json
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import spu
from jax import lax
from onnx import helper, numpy_helper
from spu import libspu
from spu.utils import frontend

SERVER, CLIENT = 0, 1
SECRET = libspu.Visibility.VIS_SECRET


def _pads(a: dict, sides: tuple[int, ...], window: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Padding of each side (before, after), and how far a last window sticks out beyond it (`ceil_mode`)."""
    given = np.reshape(a.get("pads", [0] * 2 * len(sides)), (2, -1)).T
    room, strides = given.sum(1) + sides - window, np.array(a.get("strides", [1] * len(sides)))
    out = -room % strides * (room // strides * strides + strides < given[:, 0] + sides) * bool(a.get("ceil_mode"))
    return given, np.stack([0 * out, out], 1)


def _pool(x: object, a: dict, pads: np.ndarray, start: float, join: Callable) -> object:
    ones = (1,) * (x.ndim - len(pads))
    window, strides = (*ones, *a["kernel_shape"]), (*ones, *a.get("strides", [1] * len(pads)))
    return lax.reduce_window(x, start, join, window, strides, [*((0, 0) for _ in ones), *map(tuple, pads)])


def _average(n: object, a: dict, x: object) -> object:
    """Sums over windows times one over how many values each has; padding counts where the file says so."""
    given, out = _pads(a, x.shape[2:], a["kernel_shape"])
    inside = np.pad(np.ones(x.shape[2:], np.float32), given, constant_values=a.get("count_include_pad", 0))
    with jax.ensure_compile_time_eval():
        share = 1 / np.asarray(_pool(inside, a, out, 0.0, lax.add))
    return _pool(x, a, given + out, 0.0, lax.add) * (share if np.ptp(share) else share.flat[0])


def _conv(n: object, a: dict, x: object, w: object, bias: object = None) -> object:
    ones, groups = [1] * (w.ndim - 2), a.get("group", 1)
    dilations = a.get("dilations", ones)
    pads = _pads(a, x.shape[2:], [(k - 1) * d + 1 for k, d in zip(w.shape[2:], dilations, strict=True)])[0]
    parts = zip(jnp.split(x, groups, 1), jnp.split(w, groups), strict=True)  # the engine has no groups
    how = {"window_strides": a.get("strides", ones), "padding": [*map(tuple, pads)], "rhs_dilation": dilations}
    y = jnp.concatenate([lax.conv_general_dilated(one, two, **how) for one, two in parts], 1)
    return y if bias is None else y + bias.reshape(1, -1, *ones)


def _gemm(n: object, a: dict, x: object, w: object, bias: object = 0) -> object:
    y = (x.T if a.get("transA") else x) @ (w.T if a.get("transB") else w)
    return (y if a.get("alpha", 1) == 1 else a["alpha"] * y) + (bias if a.get("beta", 1) == 1 else a["beta"] * bias)


def _gather(n: object, a: dict, x: object, places: np.ndarray) -> object:
    at = (slice(None),) * (a.get("axis", 0) % x.ndim) + (places,)
    return x[at] if n is np else x.at[at].get(mode="promise_in_bounds")


def _reshape(n: object, a: dict, x: object, shape: np.ndarray) -> object:
    return x.reshape([x.shape[i] if not s and not a.get("allowzero") else int(s) for i, s in enumerate(shape)])


def _over(name: str) -> Callable:
    """A function along axes, which are an input of newer files and an attribute of older ones."""

    def along(n: object, a: dict, x: object, axes: np.ndarray | None = None) -> object:
        axes = a.get("axes") if axes is None else axes
        kept = {"keepdims": bool(a.get("keepdims", 1))} if hasattr(x, name) and name != "squeeze" else {}
        return getattr(n, name)(x, axis=None if axes is None else tuple(map(int, axes)), **kept)

    return along


def _each(name: str) -> Callable:
    return lambda n, a, *x: getattr(n, name)(*x)


OPERATIONS = {
    **{name: _each(name.lower()) for name in ("Abs", "Exp", "Log", "Sqrt", "Tanh", "Where", "Equal", "Greater")},
    **{name: _each(f) for name, f in {"Add": "add", "Sub": "subtract", "Mul": "multiply", "MatMul": "matmul"}.items()},
    **{name: _each(f) for name, f in {"Neg": "negative", "Max": "maximum", "Min": "minimum", "Pow": "power"}.items()},
    **{f"Reduce{name.title()}": _over(name) for name in ("mean", "sum", "max", "min")},
    **{"Squeeze": _over("squeeze"), "Unsqueeze": _over("expand_dims"), "Conv": _conv, "Gemm": _gemm},
    **{"AveragePool": _average, "Gather": _gather, "Reshape": _reshape},
    "MaxPool": lambda n, a, x: _pool(x, a, sum(_pads(a, x.shape[2:], a["kernel_shape"])), -jnp.inf, lax.max),
    "Div": lambda n, a, x, y: x // y if np.issubdtype(x.dtype, np.integer) else x / y,
    "Relu": lambda n, a, x: n.maximum(x, 0),
    "LeakyRelu": lambda n, a, x: n.where(x >= 0, x, a.get("alpha", 0.01) * x),
    "PRelu": lambda n, a, x, slope: n.where(x >= 0, x, slope * x),
    "Elu": lambda n, a, x: jax.nn.elu(x, a.get("alpha", 1.0)),
    "Softplus": lambda n, a, x: jax.nn.softplus(x),
    "Sigmoid": lambda n, a, x: jax.nn.sigmoid(x),
    "HardSigmoid": lambda n, a, x: n.clip(a.get("alpha", 0.2) * x + a.get("beta", 0.5), 0, 1),
    "HardSwish": lambda n, a, x: x * n.clip(x * (1 / 6) + 0.5, 0, 1),
    "Gelu": lambda n, a, x: jax.nn.gelu(x, approximate=a.get("approximate") == b"tanh"),
    "Erf": lambda n, a, x: jax.scipy.special.erf(x),
    "Clip": lambda n, a, x, low=None, high=None: n.clip(x, low, high),
    "Softmax": lambda n, a, x: jax.nn.softmax(x, a.get("axis", -1)),
    "GlobalAveragePool": lambda n, a, x: x.mean(tuple(range(2, x.ndim)), keepdims=True),
    "GlobalMaxPool": lambda n, a, x: x.max(tuple(range(2, x.ndim)), keepdims=True),
    "Flatten": lambda n, a, x: x.reshape(int(np.prod(x.shape[: a.get("axis", 1)])), -1),
    "Transpose": lambda n, a, x: n.transpose(x, a.get("perm")),
    "Concat": lambda n, a, *parts: n.concatenate(parts, a["axis"]),
    "Expand": lambda n, a, x, shape: n.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(shape))),
    "Shape": lambda n, a, x: np.array(x.shape)[a.get("start", 0) : a.get("end")],
    "Constant": lambda n, a: numpy_helper.to_array(a["value"]) if "value" in a else np.array(next(iter(a.values()))),
    "Cast": lambda n, a, x: x.astype(helper.tensor_dtype_to_np_dtype(a["to"])),
    "Identity": lambda n, a, x: x,
}
"""What each operation of ONNX computes, from numpy (of jax, where a secret is in it), its attributes and its inputs."""


def read(file: str) -> tuple[Callable, dict[str, np.ndarray]]:
    """A network, as a function of its input and its weights, and the weights."""
    graph = onnx.load(file).graph
    if unknown := {node.op_type for node in graph.node} - OPERATIONS.keys():
        sys.exit(f"the engine's reader of ONNX does not know {', '.join(sorted(unknown))}")
    public = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    weights = {
        name: one
        for name, one in public.items()
        if one.ndim and np.issubdtype(one.dtype, np.floating) and not name.endswith(".mask")
    }

    def network(x: object, *values: object) -> object:
        known = public | {graph.input[0].name: x} | dict(zip(weights, values, strict=True)) | {"": None}
        for node in graph.node:
            given = [known[name] for name in node.input]
            n = np if all(one is None or isinstance(one, np.ndarray | np.generic) for one in given) else jnp
            a = {one.name: helper.get_attribute_value(one) for one in node.attribute}
            known[node.output[0]] = OPERATIONS[node.op_type](n, a, *given)
        return known[graph.output[0].name]

    return network, weights


class Party:
    """One end of the link, with its own runtime of the engine."""

    def __init__(self, job: dict, rank: int) -> None:
        described = libspu.link.Desc()
        for at, host in enumerate(job["hosts"]):
            described.add_party(f"party{at}", host)
        described.recv_timeout_ms = 24 * 3600 * 1000  # whoever started the parties ends them if one fails
        self.rank, self.others = rank, [one for one in range(len(job["hosts"])) if one != rank]
        self.link = libspu.link.create_brpc(described, rank)
        config = libspu.RuntimeConfig(
            protocol=spu.parse_protocol_kind(job["protocol"].upper()), field=spu.parse_field_type(f"FM{job['field']}")
        )
        config.fxp_fraction_bits, config.max_concurrency = job["fraction_bits"], 1
        config.enable_pphlo_profile = True  # prints bytes and messages of each operation
        self.runtime, self.io = spu.Runtime(self.link, config), spu.Io(len(job["hosts"]), config)

    def give(self, owner: int, name: str, value: np.ndarray | None) -> None:
        """Share what the owner has under a name; only the owner knows the value."""
        if self.rank == owner:
            shares = self.io.make_shares(np.ascontiguousarray(value), SECRET)
            for one in self.others:
                self._send(one, shares[one])
        self.runtime.set_var(name, shares[owner] if self.rank == owner else self._receive(owner))

    def take(self, owner: int, name: str) -> np.ndarray | None:
        """Reveal a value to one party, from everybody's shares."""
        share = self.runtime.get_var(name)
        if self.rank != owner:
            return self._send(owner, share)
        shares = {one: self._receive(one) for one in self.others} | {owner: share}
        return self.io.reconstruct([shares[one] for one in sorted(shares)])

    def _send(self, to: int, share: libspu.Share) -> None:
        for part in (share.meta, str(len(share.share_chunks)), *share.share_chunks):
            self.link.send(to, part)

    def _receive(self, sender: int) -> libspu.Share:
        share = libspu.Share()
        share.meta = self.link.recv(sender)
        share.share_chunks = [self.link.recv(sender) for _ in range(int(self.link.recv(sender)))]
        return share

    def compiled(self, function: Callable | None, name: str, *arrays: np.ndarray) -> libspu.Executable:
        """Compile a function on the server, for arrays of these shapes, and hand the program to everybody."""
        program = libspu.Executable()
        if self.rank != SERVER:
            program.ParseFromString(self.link.recv(SERVER))
            return program

        def named(*inputs: object) -> object:
            return function(*inputs)

        named.__name__ = name  # by which the engine's log calls it
        names, secret = [f"in{at}" for at in range(len(arrays))], [SECRET] * len(arrays)
        program, _ = frontend.compile(frontend.Kind.JAX, named, arrays, {}, names, secret, lambda out: ["out"])
        for one in self.others:
            self.link.send(one, program.SerializeToString())
        return program


def main(job: dict, rank: int, file: str, out: str) -> None:
    """Compute one private answer with the other parties; the client writes it."""
    network, weights = read(file) if rank == SERVER else (None, {})
    party, seconds = Party(job, rank), {}
    x = np.load(file) if rank == CLIENT else np.zeros(job["shape"], np.float32)

    def timed(stage: str, do: Callable) -> object:
        party.link.barrier()
        began = time.perf_counter()
        found = do()
        seconds[stage] = time.perf_counter() - began
        return found

    start = np.zeros((1, 100), np.float32), np.zeros((100, 10), np.float32)
    first = party.compiled(lambda one, two: jnp.maximum(one, 0) @ two, "setup", *start)
    party.give(CLIENT, "in0", start[0])
    party.give(SERVER, "in1", start[1])
    timed("setup", lambda: party.runtime.run(first))  # whatever is sent once for a connection
    program = timed("compile", lambda: party.compiled(network, "answer", x, *weights.values()))
    values = weights.values() if rank == SERVER else [None] * len(program.input_names[1:])
    owned = [(CLIENT, "in0", x), *((SERVER, f"in{at}", one) for at, one in enumerate(values, 1))]
    timed("share", lambda: [party.give(*one) for one in owned])
    timed("run", lambda: party.runtime.run(program))
    logits = timed("reveal", lambda: party.take(CLIENT, "out"))
    packages = {name: version(name) for name in ("spu", "jax", "numpy", "onnx")}
    found = {"seconds": seconds, "versions": {"python": platform.python_version(), **packages}}
    Path(out).write_text(json.dumps(found | {"logits": None if logits is None else logits.tolist()}))
    party.link.barrier()
    party.link.stop_link()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
