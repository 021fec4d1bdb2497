"""What operations cost under a secure engine: bytes, rounds and seconds of SPU, counted by the engine itself.

Run by the Python of `make mpc`, which has SPU but not linfair, this writes a line of JSON for each operation, size and
protocol. Two or three processes on 127.0.0.1 compute every operation three times over one connection; the first time
has what a connection pays once as well. `linfair_book.spu_cost` starts it and reads the lines. With `--only` and
`--every N --at I` a part is measured.
"""

import argparse
import json
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import spu
import spu.utils.frontend
from spu import libspu

PARTIES = {"semi2k": 2, "cheetah": 2, "aby3": 3}
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


def window(x: jax.Array, size: int, how: str) -> jax.Array:
    """Pool (n, c, h, w) over square windows that do not overlap."""
    start, take = (-jnp.inf, jax.lax.max) if how == "max" else (0.0, jax.lax.add)
    found = jax.lax.reduce_window(x, start, take, (1, 1, size, size), (1, 1, size, size), "VALID")
    return found if how == "max" else found * (1 / size**2)


def convolution(stride: int, padding: int) -> Callable:
    """A convolution of images (n, c, h, w) by secret weights (o, c, k, k)."""
    return lambda x, w: jax.lax.conv_general_dilated(x, w, (stride, stride), [(padding, padding)] * 2)


def operations(protocol: str) -> Iterator[tuple[str, dict[str, int], Callable, list[tuple[int, ...]]]]:
    """Operation, its sizes, the function, and the shapes of its inputs; all are secret, weights too."""
    for name, function in EACH.items():
        for n in (1, 100, 1_000, 8_000, 20_000, 60_000) if name in ("ReLU", "truncation") else (100, 1_000, 8_000):
            yield name, {"elements": n}, function, [(n,)]
    for n in (100, 1_000, 8_000):
        yield "multiplication", {"elements": n}, lambda x, y: x * y, [(n,), (n,)]
        yield "PReLU", {"elements": n}, lambda x, y: jnp.where(x > 0, x, x * y), [(n,), (n,)]
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


def party(rank: int, protocol: str, ports: list[int], only: str | None, every: int, at: int) -> None:
    """Compute every operation as one of the parties; its counts go where SPU writes its log."""
    kind = getattr(libspu.ProtocolKind, protocol.upper())
    config = libspu.RuntimeConfig(protocol=kind, field=libspu.FieldType.FM64)
    config.enable_pphlo_profile, config.max_concurrency = True, 1
    chosen = [one for one in operations(protocol) if only is None or one[0] in only.split(",")][at::every]
    desc = libspu.link.Desc()
    desc.recv_timeout_ms = desc.connect_retry_times = 600_000
    for i, port in enumerate(ports):
        desc.add_party(f"party{i}", f"127.0.0.1:{port}")
    link = libspu.link.create_brpc(desc, rank)
    runtime, io = spu.Runtime(link, config), spu.Io(len(ports), config)
    for index, (_, _, function, shapes) in enumerate(chosen):
        inputs = [np.random.default_rng(i).uniform(-2, 2, shape).astype(np.float32) for i, shape in enumerate(shapes)]
        try:
            executable, _ = spu.utils.frontend.compile(
                spu.utils.frontend.Kind.JAX,
                function,
                inputs,
                {},
                [f"in{i}" for i in range(len(inputs))],
                [libspu.Visibility.VIS_SECRET] * len(inputs),
                lambda out: [f"out{i}" for i in range(len(out))],
            )
        except Exception as error:
            print(f"@@ {index} failed {type(error).__name__} {str(error)[:300]!r}", flush=True)
            continue
        for name, value in zip(executable.input_names, inputs, strict=True):
            runtime.set_var(name, io.make_shares(value, libspu.Visibility.VIS_SECRET)[rank])
        for time in range(3):
            print(f"@@ {index} {time}", flush=True)
            runtime.run(executable)
        for name in [*executable.input_names, *executable.output_names]:
            runtime.del_var(name)
    print("@@ end", flush=True)


COUNTS = re.compile(r"Link details: total send bytes (\d+), recv bytes \d+, send actions (\d+)")
TIME = re.compile(r"HLO profiling: total time ([\d.e-]+)")


def counted(log: str) -> dict[tuple[int, int], tuple[int, int, float]]:
    """Bytes sent, messages sent and seconds of each operation and time, in one party's log."""
    found = {}
    for part in log.split("@@ ")[1:]:
        head = part.split(maxsplit=2)
        if len(head) > 1 and head[1].isdigit() and (counts := COUNTS.search(part)):
            found[int(head[0]), int(head[1])] = (int(counts[1]), int(counts[2]), float(TIME.search(part)[1]))
        elif "failed" in head:
            print(part.strip()[:400], file=sys.stderr)
    return found


def measure(protocol: str, only: str | None = None, every: int = 1, at: int = 0) -> Iterator[dict[str, object]]:
    """A row an operation and size."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(PARTIES[protocol])]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder, str(rank)) for rank in range(len(ports))]
        running = []
        for rank, log in enumerate(logs):
            words = [
                sys.executable,
                __file__,
                "--rank",
                str(rank),
                "--protocol",
                protocol,
                "--ports",
                json.dumps(ports),
                "--every",
                str(every),
                "--at",
                str(at),
            ]
            words += ["--only", only] if only else []
            with log.open("w") as file:
                running.append(subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT))
        codes = [one.wait() for one in running]
        texts = [log.read_text() for log in logs]
        if any(codes):
            print("".join(text[-3000:] for text in texts), file=sys.stderr)
        parties = [counted(text) for text in texts]
    chosen = [one for one in operations(protocol) if only is None or one[0] in only.split(",")][at::every]
    for index, (name, sizes, _, _) in enumerate(chosen):
        if not all((index, time) in one for one in parties for time in range(3)):
            print(f"no numbers for {protocol} {name} {sizes}", file=sys.stderr)
            continue
        runs = [[one[index, time] for one in parties] for time in range(3)]
        sent, messages = [sum(one[0] for one in run) for run in runs], [max(one[1] for one in run) for run in runs]
        yield {
            "protocol": protocol,
            "parties": len(parties),
            "operation": name,
            **sizes,
            "bytes": min(sent[1:]),
            "rounds": min(messages[1:]),
            "seconds": min(max(one[2] for one in run) for run in runs[1:]),
            "once_bytes": sent[0] - min(sent[1:]),
            "once_rounds": messages[0] - min(messages[1:]),
            "spu": spu.__version__,
        }


if __name__ == "__main__":
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--protocol", choices=PARTIES)
    given.add_argument("--rank", type=int)
    given.add_argument("--ports", type=json.loads)
    given.add_argument("--only")
    given.add_argument("--every", type=int, default=1)
    given.add_argument("--at", type=int, default=0)
    options = given.parse_args()
    if options.rank is not None:
        party(options.rank, options.protocol, options.ports, options.only, options.every, options.at)
    else:
        for protocol in [options.protocol] if options.protocol else PARTIES:
            for row in measure(protocol, options.only, options.every, options.at):
                print(json.dumps(row), flush=True)
