"""What operations cost under a secure engine: one party that computes each of them alone, three times over.

`spu_cost.py` starts it in the environment of `make mpc`, which has SPU but not linfair, and reads its
log; the first time has what a connection pays once as well. The link is that of linfair/inference/party.py.
"""

import json
import runpy
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import spu

EACH = {
    "ReLU": lambda x: jnp.maximum(x, 0),
    "LeakyReLU": jax.nn.leaky_relu,
    "ReLU6": lambda x: jnp.clip(x, 0, 6),
    "Hardtanh": lambda x: jnp.clip(x, -1, 1),
    "Hardswish": lambda x: x * jnp.clip(x + 3, 0, 6) * (1 / 6),
    "Hardsigmoid": lambda x: jnp.clip(x + 3, 0, 6) * (1 / 6),
    "ELU": jax.nn.elu,
    "SELU": jax.nn.selu,
    "GELU": lambda x: jax.nn.gelu(x, approximate=False),
    "GELU (tanh)": jax.nn.gelu,
    "SiLU": jax.nn.silu,
    "Mish": jax.nn.mish,
    "Sigmoid": jax.nn.sigmoid,
    "Tanh": jnp.tanh,
    "Softplus": jax.nn.softplus,
    "Abs": jnp.abs,
    "Sign": jnp.sign,
    "Comparison": lambda x: jnp.where(x > 0, 1.0, 0.0),
    "exp": jnp.exp,
    "log": lambda x: jnp.log(x + 3),
    "sqrt": lambda x: jnp.sqrt(x + 3),
    "rsqrt": lambda x: jax.lax.rsqrt(x + 3),
    "reciprocal": lambda x: 1 / (x + 3),
    "truncation": lambda x: x * 0.3,
}
"""Operations on each scalar by themselves."""


def gathered(kept: np.ndarray, x: jax.Array) -> jax.Array:
    """ReLU of the kept units, put back by constant places."""
    places = np.arange(x.size)
    places[kept] = x.size + np.arange(len(kept))
    return jnp.concatenate([x, jnp.maximum(x[kept], 0)])[places]


def multiplied(kept: np.ndarray, x: jax.Array) -> jax.Array:
    """ReLU of all units, times the mask."""
    return x + np.isin(np.arange(x.size), kept).astype(np.float32) * (jnp.maximum(x, 0) - x)


MASKED = {
    "mask (none)": lambda kept, x: jnp.maximum(x, 0),
    "mask (gather)": gathered,
    "mask (multiply)": multiplied,
    "mask (scatter)": lambda kept, x: x.at[kept].set(jnp.maximum(x[kept], 0)),
}
"""How a mask is executed; no law is fitted to them."""


def window(x: jax.Array, size: int, how: str) -> jax.Array:
    """Pool (n, c, h, w) over square windows that do not overlap."""
    start, take = (-jnp.inf, jax.lax.max) if how == "max" else (0.0, jax.lax.add)
    found = jax.lax.reduce_window(x, start, take, (1, 1, size, size), (1, 1, size, size), "VALID")
    return found if how == "max" else found * (1 / size**2)


def convolution(stride: int, padding: int) -> Callable:
    """A convolution of images (n, c, h, w) by secret weights (o, c, k, k)."""
    return lambda x, w: jax.lax.conv_general_dilated(x, w, (stride, stride), [(padding, padding)] * 2)


def operations() -> Iterator[tuple[str, dict[str, int], Callable, list[tuple[int, ...]]]]:
    """Operation, its sizes, the function, and the shapes of its inputs; all are secret, weights too."""
    for name, function in EACH.items():
        for n in (1, 100, 1_000, 8_000, 20_000, 60_000) if name in ("ReLU", "truncation") else (100, 1_000, 8_000):
            yield name, {"elements": n}, function, [(n,)]
    for n in (100, 1_000, 8_000):
        yield "multiplication", {"elements": n}, lambda x, y: x * y, [(n,), (n,)]
        yield "PReLU", {"elements": n}, lambda x, y: jnp.where(x > 0, x, x * y), [(n,), (n,)]
    for n in (100, 800):  # a mask that keeps a tenth of the units
        for name, function in MASKED.items():
            yield name, {"elements": n, "rows": 10 * n}, partial(function, np.arange(0, 10 * n, 10)), [(10 * n,)]
    for rows, k in ((1, 10), (100, 10), (10, 100), (1000, 10), (400, 20)):
        yield "Softmax", {"elements": rows * k, "rows": rows}, jax.nn.softmax, [(rows, k)]
    for c, side, k in ((4, 8, 2), (16, 16, 2), (64, 16, 2), (16, 32, 2), (16, 24, 3), (16, 16, 4)):
        for name, how in (("MaxPool", "max"), ("AvgPool", "mean")):
            sizes = {"elements": c * (side // k) ** 2, "window": k * k}
            yield name, sizes, lambda x, k=k, how=how: window(x, k, how), [(1, c, side, side)]
    for m, k, n in (
        (1, 64, 10),
        (1, 64, 64),
        (1, 128, 64),
        (1, 512, 10),
        (1, 512, 512),
        (1, 1024, 100),
        (1, 100, 1000),
        (7, 64, 10),
        (16, 64, 64),
        (64, 64, 64),
    ):
        sizes = {"batch": m, "channels": k, "out": n, "elements": m * n}
        yield "linear", sizes, jnp.matmul, [(m, k), (k, n)]
    for c, side, o, k, stride in CONVOLUTIONS:
        out = (side + 2 * (k // 2) - k) // stride + 1
        sizes = {"channels": c, "side": side, "out": o, "kernel": k, "stride": stride, "elements": o * out * out}
        yield "convolution", sizes, convolution(stride, k // 2), [(1, c, side, side), (o, c, k, k)]


CONVOLUTIONS = [
    (1, 8, 8, 3, 1),
    (3, 32, 8, 3, 1),
    (3, 32, 16, 3, 1),
    (8, 16, 8, 3, 1),
    (8, 16, 16, 3, 1),
    (16, 16, 8, 3, 1),
    (16, 16, 16, 3, 1),
    (16, 32, 16, 3, 1),
    (16, 32, 32, 3, 2),
    (32, 16, 32, 3, 1),
    (32, 16, 64, 3, 2),
    (64, 8, 64, 3, 1),
    (64, 8, 128, 3, 2),
    (128, 4, 128, 3, 1),
    (8, 3, 8, 3, 1),
    (8, 2, 8, 3, 1),
    (8, 1, 8, 3, 1),
    (8, 4, 8, 5, 1),
    (8, 2, 8, 3, 2),
    (8, 4, 8, 3, 2),
    (512, 2, 512, 3, 1),
    (8, 3, 8, 5, 1),
    (64, 2, 64, 1, 1),
    (16, 32, 32, 1, 2),
    (64, 8, 128, 1, 2),
    (32, 16, 32, 1, 1),
    (3, 32, 8, 5, 1),
    (16, 8, 16, 5, 1),
    (1, 28, 16, 3, 1),
    (128, 2, 128, 3, 1),
    (256, 4, 64, 1, 1),
]


def main(job: dict, rank: int, file: str, out: str) -> None:
    """Compute the operations with the other parties; `out` says which, and their sizes."""
    party = runpy.run_path(job["party"])["Party"](job, rank)
    chosen = [one for one in operations() if not job["only"] or one[0] in job["only"]]
    for at, (_, _, function, shapes) in enumerate(chosen):
        inputs = [np.random.default_rng(i).uniform(-2, 2, shape).astype(np.float32) for i, shape in enumerate(shapes)]
        program = party.compiled(function, f"operation{at}", *inputs)
        for place, value in enumerate(inputs):
            party.give(1, f"in{place}", value)
        for _ in range(3):
            party.runtime.run(program)
        for name in [*program.input_names, *program.output_names]:
            party.runtime.del_var(name)
    Path(out).write_text(json.dumps({"done": [(name, sizes) for name, sizes, _, _ in chosen], "spu": spu.__version__}))
    party.link.barrier()
    party.link.stop_link()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
