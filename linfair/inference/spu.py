"""One private answer of a network, computed by the engine SPU between two or three processes on this machine.

The engine needs older versions of Python and numpy than linfair: it lives in an environment of its own (`make mpc`,
or LINFAIR_MPC names its Python), and `party.py` runs there. The server has the weights, the client the images; both
are secret-shared, and only the client learns the scores. Structure and mask are public.

    bytes   what all parties send while the answer is computed, from the link's own statistics
    rounds  messages that the party that sends most sends, one after another

Not in them, but beside them: sharing images and weights and revealing the scores, and what is sent once for each
connection (`setup`; for Cheetah its oblivious transfers). Left out altogether: the correlated randomness of SEMI2K,
which the server deals here (so it could read what it deals for; a real deployment has a third party or more bytes).
"""

import json
import os
import re
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from linfair.data import GroupedData
from linfair.inference.export import to_onnx

PROTOCOLS = {"semi2k": 2, "cheetah": 2, "aby3": 3}
"""Protocols of the engine, and how many parties each has; semi2k takes 3 as well."""
FIELD, FRACTION_BITS = 64, 18  #: Bits of the ring that numbers are shared in, and how many of them are behind the point
SERVER, CLIENT = 0, 1
PARTY = Path(__file__).with_name("party.py")  #: What each process runs, in the engine's environment
_INSTALL = "run `make mpc` in linfair's repository, or let LINFAIR_MPC name a Python with requirements-mpc.txt"
_RUN = re.compile(r"SPU execution (\w+) completed.*?execution took ([-+.e\d]+)s")
_OPERATION = re.compile(
    r" - ([^,\n]+), executed \d+ times, duration ([-+.e\d]+)s, send bytes (\d+) .*?send actions (\d+)"
)
_TOTAL = re.compile(r"Link details: total send bytes (\d+), .*?send actions (\d+)")


class EngineMissing(ValueError):
    """The engine is not installed."""


@dataclass(frozen=True)
class Answer:
    """One private answer, to one image or several at once, and what it took."""

    protocol: str
    parties: int
    logits: Tensor  # what the client learns, (n, classes)
    sent_bytes: int  # by all parties while the answer is computed, without correlated randomness
    rounds: int  # messages of the party that sends most
    seconds: dict[str, float]  # compile, share, run, reveal: each of the slowest party
    versions: dict[str, str]
    field: int  # bits of the ring
    fraction_bits: int
    operations: dict[str, tuple[int, int, float]]  # bytes, rounds and seconds of each operation of the engine
    setup: tuple[int, int, float]  # the same of what is sent once for a connection


def engine() -> str:
    """The Python that has the engine: LINFAIR_MPC's, or that of `make mpc`.

    Raises:
        EngineMissing: If there is none; says how to install it.
    """
    named, made = os.environ.get("LINFAIR_MPC"), Path(__file__).parents[2] / ".venv-mpc/bin/python"
    if named and not os.access(named, os.X_OK):
        raise EngineMissing(f"LINFAIR_MPC names {named}, which is no Python that can be run; {_INSTALL}")
    if not named and not (made.parents[1] / ".installed").exists():
        raise EngineMissing(f"the engine SPU is not installed in {made.parents[1]}; {_INSTALL}")
    return named or str(made)


def private_answer(onnx: bytes, inputs: Tensor, protocol: str = "semi2k", *, parties: int | None = None) -> Answer:
    """Compute the scores of a network, as ONNX, for inputs (n, ...), so that neither side sees the other's numbers.

    Raises:
        EngineMissing: If the engine is not installed.
        ValueError: For another protocol or number of parties, or an operation in the file that is not known.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol = {protocol!r} is not one of the engine's: {', '.join(PROTOCOLS)}")
    parties = PROTOCOLS[protocol] if parties is None else parties
    if parties != PROTOCOLS[protocol] and (protocol, parties) != ("semi2k", 3):
        raise ValueError(f"parties = {parties} is not allowed: {protocol} has {PROTOCOLS[protocol]}")
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{rank}.{kind}") for rank, kind in enumerate(("onnx", "npy", "none")[:parties])]
        files[SERVER].write_bytes(onnx)
        np.save(files[CLIENT], inputs.detach().cpu().float().numpy())
        job = {"protocol": protocol, "field": FIELD, "fraction_bits": FRACTION_BITS, "shape": list(inputs.shape)}
        logs = run_parties(job, files)
        found = [json.loads(file.with_suffix(".json").read_text()) for file in files]
    of_setup, of_answer = (summed([dict(runs(log))[name] for log in logs]) for name in ("setup", "answer"))
    return Answer(
        protocol=protocol,
        parties=parties,
        logits=torch.tensor(found[CLIENT]["logits"]),
        sent_bytes=of_answer["all"][0],
        rounds=of_answer["all"][1],
        seconds={stage: max(one["seconds"][stage] for one in found) for stage in found[0]["seconds"]},
        versions=found[SERVER]["versions"],
        field=FIELD,
        fraction_bits=FRACTION_BITS,
        operations={name: one for name, one in of_answer.items() if name != "all"},
        setup=of_setup["all"],
    )


def run_parties(job: dict[str, object], files: list[Path], script: Path = PARTY, tries: int = 2) -> list[str]:
    """Start the parties, each on its file, wait until all have ended, and return what each printed."""
    python = engine()
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in files]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        hosts = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    logs, started = [file.with_suffix(".log") for file in files], []
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
    try:
        for rank, (file, log) in enumerate(zip(files, logs, strict=True)):
            words = [python, "-I", str(script), json.dumps(job | {"hosts": hosts}), str(rank), str(file)]
            words.append(str(file.with_suffix(".json")))
            with log.open("wb") as out:
                started.append(subprocess.Popen(words, stdout=out, stderr=out, env=environment))
        while any(one.poll() is None for one in started) and not any(one.poll() for one in started):
            time.sleep(0.05)
        time.sleep(0.5 * any(one.poll() for one in started))  # where all fail, the first of them says why
    finally:
        failed = [rank for rank, one in enumerate(started) if one.poll()]
        for one in started:
            one.kill()
            one.wait()
    texts = [log.read_text(errors="replace") for log in logs]
    if failed:
        text, rank = texts[failed[0]], failed[0]
        if "brpc server failed start" in text and tries:  # somebody else took the port meanwhile
            return run_parties(job, files, script, tries - 1)
        if missing := re.search(r"No module named '(\w+)'", text):
            raise EngineMissing(f"the engine SPU is not installed: {python} has no {missing[1]}; {_INSTALL}")
        said = [line.strip() for line in text.splitlines() if line.strip() and line[0] not in "[# "]
        start = max([at for at, line in enumerate(said) if re.match(r"\w+Error", line)], default=len(said) - 1)
        why = " ".join(said[start : start + 2])[:400] or f"it ended with {started[rank].returncode}"
        raise ValueError(f"the {('server', 'client', 'helper')[rank]} of the private answer failed: {why}")
    return texts


def runs(log: str) -> list[tuple[str, dict[str, tuple[int, int, float]]]]:
    """Each run that a party's log tells of: its name, and bytes, rounds and seconds of each operation and of `all`."""
    found = []
    for run, nxt in pairwise([*_RUN.finditer(log), None]):
        text = log[run.end() : nxt.start() if nxt else None]
        each = {name: (int(sent), int(rounds), float(s)) for name, s, sent, rounds in _OPERATION.findall(text)}
        sent, rounds = _TOTAL.search(text).groups()
        found.append((run[1], each | {"all": (int(sent), int(rounds), float(run[2]))}))
    return found


def summed(parties: list[dict[str, tuple[int, int, float]]]) -> dict[str, tuple[int, int, float]]:
    """Of several parties: the sum of the bytes, the most rounds and seconds."""
    names = dict.fromkeys(name for one in parties for name in one)
    columns = {name: list(zip(*(one.get(name, (0, 0, 0.0)) for one in parties), strict=True)) for name in names}
    return {name: (sum(sent), max(rounds), max(seconds)) for name, (sent, rounds, seconds) in columns.items()}


def compared(
    network: nn.Module, data: GroupedData, protocol: str = "semi2k", *, execution: str = "gather", each: int = 4
) -> tuple[Answer, pd.DataFrame]:
    """A private answer to one test image, and what fixed-point numbers do to every group, on `each` images of it.

    With `each` 0 that one image alone is compared. The table has, by group, `n` images, `flips` of the predicted label
    against torch's, and the largest `deviation` of a score.
    """
    test, file = data.splits["test"], to_onnx(network, data.input_shape, execution=execution)
    places = [(test.a == group).nonzero().flatten()[: each or 1] for group in range(len(data.group_names))]
    x, groups = data.normalise(test.x[torch.cat(places)]).cpu(), test.a[torch.cat(places)].cpu()
    x, groups = (x, groups) if each else (x[:1], groups[:1])
    one = private_answer(file, x[:1], protocol)
    many = private_answer(file, x, protocol) if len(x) > 1 else one
    with torch.no_grad():
        clear = network.cpu().eval()(x)
    off, flips = (many.logits - clear).abs().amax(1), many.logits.argmax(1) != clear.argmax(1)
    names = [data.group_names[group] for group in groups.tolist()]
    rows = pd.DataFrame({"group_name": names, "n": 1, "flips": flips.tolist(), "deviation": off.tolist()})
    how = {"n": "sum", "flips": "sum", "deviation": "max"}
    return one, rows.groupby("group_name", sort=False, as_index=False).agg(how)
