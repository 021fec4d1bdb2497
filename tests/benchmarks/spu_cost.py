"""The laws of `linfair.cost` for a secure engine: fitted to measured operations, held against whole networks.

`python tests/benchmarks/spu_cost.py semi2k cheetah aby3` measures every operation under these protocols, some minutes
each (`spu_operations.py`; `make mpc` first), and writes the rows; with and without protocols it then fits the laws to
the rows and writes linfair/prices.toml.
"""

import json
import math
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from linfair_book.tables import committed, place, save
from scipy.optimize import nnls

import linfair
from linfair.cost import Operation, product
from linfair.inference import PROTOCOLS, spu

TABLE = "spu_operations"
PRODUCTS = {"semi2k": ["masked", "scalars"], "cheetah": ["sent", "packed", "alone", "scalars"], "aby3": ["scalars"]}
"""What the bytes of a product hang on; those of other operations hang on scalars or comparisons."""


def measured(protocol: str, only: tuple[str, ...] = ()) -> Iterator[dict[str, object]]:
    """A row for each operation and size: the less of the second and the third time, and what the first had more."""
    job = {"protocol": protocol, "field": spu.FIELD, "fraction_bits": spu.FRACTION_BITS, "only": only}
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{rank}.none") for rank in range(PROTOCOLS[protocol])]
        script = Path(__file__).with_name("spu_operations.py")
        logs = spu.run_parties(job | {"party": str(spu.PARTY)}, files, script)
        found = json.loads(files[0].with_suffix(".json").read_text())
    runs = [spu.summed([one for _, one in each])["all"] for each in zip(*map(spu.runs, logs), strict=True)]
    for at, (name, sizes) in enumerate(found["done"]):
        first, *later = runs[3 * at : 3 * at + 3]
        least = dict(zip(("bytes", "rounds", "seconds"), map(min, *later), strict=True))
        once = {"once_bytes": first[0] - least["bytes"], "once_rounds": first[1] - least["rounds"]}
        about = {"protocol": protocol, "parties": len(files), "operation": name}
        yield about | sizes | least | once | {"spu": found["spu"]}


def operation(row: pd.Series) -> Operation:
    """A measured row as an operation."""
    n, kind = int(row["elements"]), row["operation"]
    if kind == "linear":
        return Operation(kind, n, shape=tuple(int(row[name]) for name in ("batch", "channels", "out")))
    if kind == "convolution":
        channels, side, out, kernel = (int(row[name]) for name in ("channels", "side", "out", "kernel"))
        return Operation(kind, n, shape=product(channels, out, (side, side), (kernel, kernel), (n // out,)))
    if kind == "MaxPool":
        return Operation(kind, n, n * (int(row["window"]) - 1), math.ceil(math.log2(row["window"])))
    return Operation(kind, n)


def solved(rows: pd.DataFrame, names: list[str], of: str) -> dict[str, float]:
    """Prices of bytes or seconds, 0 or more, with the least relative error."""
    amounts = np.array([[operation(row).amounts[name] for name in names] for _, row in rows.iterrows()])
    found, _ = nnls(amounts / rows[of].to_numpy()[:, None], np.ones(len(rows)))
    return {name: float(f"{one:.5g}") for name, one in zip(names, found, strict=True) if one > 1e-9}


def fit(rows: pd.DataFrame) -> dict[str, dict]:
    """Protocol -> kind of operation -> its law, as `linfair.cost.PRICES` has them."""
    laws: dict[str, dict] = {}
    many = rows[(rows["elements"] > 1) & ~rows["operation"].str.startswith("mask")]  # Cheetah: one is another case
    for (protocol, kind), part in many.groupby(["protocol", "operation"], sort=False):
        of, extra = "comparisons" if kind == "MaxPool" else "scalars", [] if protocol == "semi2k" else ["calls"]
        sent, timed, alike = [of, *extra], [of, "calls"], part
        if kind in ("linear", "convolution"):  # the same bytes
            sent, timed = PRODUCTS[protocol], ["unpacked" if protocol == "cheetah" else "products", "scalars", "calls"]
            alike = many[(many["protocol"] == protocol) & many["operation"].isin(["linear", "convolution"])]
        rounds = float(np.median(part["rounds"] / [operation(row).levels for _, row in part.iterrows()]))
        law = {"bytes": solved(alike, sent, "bytes"), "rounds": rounds, "seconds": solved(part, timed, "seconds")}
        laws.setdefault(protocol, {})[kind] = law
    for protocol, law in laws.items():
        once = rows[(rows["protocol"] == protocol) & rows["operation"].isin(["ReLU", "linear"])]
        once = once[once["once_bytes"] > 10_000]
        setup = [int(once["once_bytes"].sum()), int(once["once_rounds"].sum())]
        law["answer"] = {"parties": PROTOCOLS[protocol], "rounds": 0, "setup": setup}
    return laws


def written(laws: dict[str, dict]) -> str:
    """Laws as TOML."""

    def line(value: object) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{key} = {line(one)}" for key, one in value.items()) + "}"
        return json.dumps(value)

    lines = [
        "# What operations cost under SPU: bytes of all parties, rounds of a call, seconds of one thread a party.",
        "# Fitted to book/results/spu_operations.parquet by `python tests/benchmarks/spu_cost.py`; do not edit.",
    ]
    for protocol, kinds in laws.items():
        lines += ["", f"[{protocol}]", *(f"{json.dumps(kind)} = {line(law)}" for kind, law in kinds.items())]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        others = committed(TABLE).query("protocol != @name")
        save(pd.concat([others, pd.DataFrame(measured(name))], ignore_index=True), place(TABLE))
    Path(linfair.__file__).with_name("prices.toml").write_text(written(fit(committed(TABLE))))
