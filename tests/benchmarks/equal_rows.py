"""Did a change of the code change a number? One cell of each kind, computed anew and compared bit for bit.

Run it with `--write DIR` at the commit before the change and with `--against DIR` after it, on the same processor:

    python tests/benchmarks/equal_rows.py --write /tmp/equal
    python tests/benchmarks/equal_rows.py --against /tmp/equal

Every kind is computed with the profile `smoke`, on one thread, into a fresh store. Columns that say when and by what
version rows were computed are left out. Exit code 1 means that some rows differ.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from linfair.audit import Plan, audit, read_own
from linfair.audit.diagnose import read_pair
from linfair.audit.linearize import linearize_to
from linfair.audit.repair import mitigate
from linfair.study import ResultStore, grid, run

SMOKE = {"profile": "smoke"}
LEFT_OUT = r"^(seconds.*|peak_memory|code|linfair|torch|device)$"
"""Columns that tell time, place or version."""


def snl_mlp(folder: Path) -> pd.DataFrame:
    """Digits, MLP, SNL, two seeds trained together: original, plain, control and a mitigation."""
    cells = grid("digits", "mlp", budgets=(0.5, 0.1), seeds=(0, 1), **SMOKE)
    arms = ("original", "plain", "control", "lagrangian(mu=0.005)")
    return run(cells, arms=arms, store=ResultStore(folder), progress=False)


def deepreduce_resnet(folder: Path) -> pd.DataFrame:
    """Digits, a thin ResNet18, DeepReDuce from a fixed list: original, plain and control."""
    cells = grid("digits", "resnet18", method="deepreduce", options={"configurations": ("1,4",)}, seeds=(0,), **SMOKE)
    return run(cells, arms=("original", "plain", "control"), store=ResultStore(folder), progress=False)


def _written(folder: Path) -> Path:
    """What `linfair linearize` writes, in a store of its own."""
    (cell,) = grid("digits", "mlp", budgets=(0.2,), seeds=(3,), width=16, **SMOKE)
    linearize_to(folder / "out", cell, store=ResultStore(folder / "store"), progress=False)
    return folder / "out"


def linearized(folder: Path) -> pd.DataFrame:
    """The rows of `linfair linearize`."""
    return pd.read_parquet(_written(folder) / "groups.parquet")


def mitigated(folder: Path) -> pd.DataFrame:
    """The rows of `linfair mitigate`, one arm of which diverges."""
    out = _written(folder)
    pair = read_pair(out / "teacher.safetensors", out / "snl-0.2.mask.safetensors")
    arms = ("plain", "balanced_sampling", "group_dro", "lagrangian(limit=1e-09)")
    return mitigate(pair, arms=arms, store=ResultStore(folder / "repair"), progress=False, **SMOKE).table


def audited(folder: Path) -> pd.DataFrame:
    """The rows of `linfair audit`, of a network that is linfair's own and as if it were a user's."""
    subject = read_own(_written(folder) / "teacher.safetensors")
    plan = Plan(budgets=(0.5, 0.1), arms=("plain", "group_dro"), profile="smoke")
    found = []
    for one in (subject, replace(subject, own=False)):
        result = audit(one, plan, store=ResultStore(folder / "audit"), progress=False)
        found += [result.groups, result.mitigated.table, result.cost]
    return pd.concat(found, ignore_index=True)


def upsampled(folder: Path) -> pd.DataFrame:
    """The rows of notebook 04's experiment with one group repeated."""
    from linfair_book.group_size import run_upsampling

    cells = grid("digits", "mlp", budgets=(0.2,), seeds=(0, 1), **SMOKE)
    return run_upsampling(cells, times=(1, 5), store=ResultStore(folder), progress=False)


def released(folder: Path) -> pd.DataFrame:
    """Some switches between the paper and the released code, of the MLP and of the thin ResNet18."""
    from linfair_book.released import compute

    options = {"seeds": (0, 1), "thin_seeds": 1, "store": ResultStore(folder), "progress": False}
    return compute(["penalty", "mismatch", "leak", "threshold"], **options, **SMOKE)


KINDS = {one.__name__: one for one in (snl_mlp, deepreduce_resnet, linearized, mitigated, audited, upsampled, released)}


def rows_of(kind: Callable[[Path], pd.DataFrame]) -> pd.DataFrame:
    """A kind's rows, computed from nothing."""
    with tempfile.TemporaryDirectory() as folder:
        table, file = kind(Path(folder)), Path(folder) / "rows.parquet"
        table.drop(columns=table.filter(regex=LEFT_OUT).columns).to_parquet(file, index=False)
        return pd.read_parquet(file)


def difference(old: pd.DataFrame, new: pd.DataFrame) -> str:
    """Where two tables differ, in a few words, in whatever order their rows and columns are; empty if they do not."""
    if set(old) != set(new):
        return f"columns {sorted(set(old) ^ set(new))}"
    if len(old) != len(new):
        return f"{len(old)} rows before, {len(new)} now"
    named = [name for name in sorted(old) if not pd.api.types.is_float_dtype(old[name])]
    old, new = (one.sort_values(named, key=lambda column: column.astype(str), ignore_index=True) for one in (old, new))
    unlike = {name: int((~((old[name] == new[name]) | (old[name].isna() & new[name].isna()))).sum()) for name in old}
    return ", ".join(f"{name} in {count} rows" for name, count in unlike.items() if count)


def main(arguments: list[str] | None = None) -> int:
    """Compute every kind; write its rows or compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--write", type=Path, metavar="DIR", help="save the rows there")
    way.add_argument("--against", type=Path, metavar="DIR", help="compare with the rows that were saved there")
    parser.add_argument("kinds", nargs="*", help=f"some of {', '.join(KINDS)} (default: all)")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    failed = 0
    for name in given.kinds or KINDS:
        start, table = time.perf_counter(), rows_of(KINDS[name])
        file = (given.write or given.against) / f"{name}.parquet"
        if given.write:
            file.parent.mkdir(parents=True, exist_ok=True)
            table.to_parquet(file, index=False)
        problem = "" if given.write else difference(pd.read_parquet(file), table)
        failed += bool(problem)
        verdict = "written" if given.write else f"DIFFERS: {problem}" if problem else "the same"
        print(f"{name}: {len(table)} rows, {time.perf_counter() - start:.0f} s, {verdict}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
