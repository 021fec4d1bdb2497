"""The committed result rows that rules may judge, set by set, and where each set comes from."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from linfair.engine.store import Tables
from linfair_book.judging.rules import QUANTITIES

INIT = "torch"  # how networks started before rows said it
SHARED = ["data", "network", "width", "profile", "init"]  # what a linearized network has in common with its original
SET = [*SHARED, "method", "options"]  # what tells one set of rows from another
_NUMBER = [*SET, "arm", "budget", "seed", "split", "group_name"]
_NEEDED = {*_NUMBER, "group", "role", "n_train", "n", "accuracy", "teacher"} - {"init"}
_SOURCE = ("device", "precision", "torch", "linfair", "code")
_USED = {*QUANTITIES, *_SOURCE, "init", "base", "kept", "diverged", "top_eigenvalue_converged", "seconds"}
_VARIED = {"upsampled_group", "rule"}  # rows with these columns were trained on changed data, or under another rule


class RowsError(ValueError):
    """Committed rows that contradict each other."""


def read(folder: str | Path, methods: Iterable[str]) -> pd.DataFrame:
    """All tidy rows of a folder, a number once, with the `file` they come from: of methods and original networks.

    Files without a study's columns are passed over. Files may hold the same rows with different columns: each column is
    taken from the first file that has it. An eigenvalue whose search did not converge is left out. An arm from an
    original network that was trained under a mitigation says so: `plain(kd=0.0) from lagrangian(kd=0.0)`.
    """
    tables = []
    for stem, table in Tables(folder).results(said=False):
        there = set(table)
        if there >= _NEEDED and not _VARIED & there:
            table = table[sorted(there & (_NEEDED | _USED))]
            table = table.astype({name: object for name in table if pd.api.types.is_string_dtype(table[name])})
            if "top_eigenvalue_converged" in table:
                table["top_eigenvalue"] = table["top_eigenvalue"].where(table["top_eigenvalue_converged"].eq(True))
            init = table["init"].fillna(INIT) if "init" in table else INIT
            base = table["base"].fillna("") if "base" in table else ""
            tables.append(table.assign(file=f"{stem}.parquet", init=init, base=base))
    if not tables:
        return pd.DataFrame(columns=[*_NEEDED, "init", "base", "file"])
    rows = pd.concat(tables, ignore_index=True)
    rows["arm"] = rows["arm"].where(rows["base"] == "", rows["arm"] + " from " + rows["base"])
    found = rows[rows["method"].isin(["original", *methods])].groupby([*_NUMBER, "teacher"], sort=False)
    gaps = found["accuracy"].max() - found["accuracy"].min()
    if (gaps > 1e-9).any():
        raise RowsError(f"files disagree about {gaps.idxmax()}: accuracies differ by {gaps.max():g}")
    rows = found.first().reset_index()  # its strings are arrow's: many small selections of them are slow
    return rows.astype({name: object for name in rows if pd.api.types.is_string_dtype(rows[name])})


def sets(rows: pd.DataFrame) -> dict[tuple[object, ...], pd.DataFrame]:
    """Rows by set: arms beside their original networks, one teacher a seed and base; eigenvalues without arms alone."""
    found = {}
    for names, arms in rows[rows["method"] != "original"].groupby(SET, sort=False):
        same = (rows[SHARED] == list(names[: len(SHARED)])).all(axis=1) & (rows["method"] == "original")
        if not (same & (rows["base"] == "")).any():
            continue  # an unfinished study: nothing to compare with
        both = pd.concat([rows[same], arms], ignore_index=True)
        counts = both.groupby(["seed", "base", "teacher"], as_index=False).agg(
            n=("arm", "size"), arms=("arm", "nunique")
        )
        best = counts.sort_values(["arms", "n"]).drop_duplicates(["seed", "base"], keep="last")
        found[names] = both.merge(
            best[["seed", "base", "teacher"]], on=["seed", "base", "teacher"], validate="many_to_one"
        )
    used = {teacher for both in found.values() for teacher in both["teacher"].unique()}
    if "top_eigenvalue" in rows:
        alone = rows[(rows["arm"] == "original") & ~rows["teacher"].isin(used)]
        alone = alone[alone["teacher"].isin(alone.loc[alone["top_eigenvalue"].notna(), "teacher"])]
        for names, part in alone.groupby(SHARED, sort=False):
            first = part.drop_duplicates("seed")[["seed", "teacher"]]
            found[(*names, "original", "")] = part.merge(first, on=["seed", "teacher"])
    return found


def shared(rows: pd.DataFrame) -> float:
    """n_test / n_train of a set of rows, from the images of the natural test split and of the training split."""
    original = rows[rows["arm"] == "original"].drop_duplicates(["seed", "split", "group_name"])
    test = original[original["split"] == "test"].groupby("seed")[["n", "n_train"]].sum().mean()
    return float(test["n"] / test["n_train"])


def provenance(rows: pd.DataFrame) -> dict[str, object]:
    """Where a set of rows comes from: files, seeds, arms, device, versions, and the hours that its arms took."""
    own = rows.drop_duplicates([name for name in ("arm", "teacher", "seconds") if name in rows])  # an ensemble's once
    took = own["seconds"].sum() if "seconds" in rows else 0.0
    listed = {
        name: ", ".join(sorted({str(value) for value in rows[name].dropna()})) if name in rows else ""
        for name in ("file", *_SOURCE)
    }
    seeds = ", ".join(str(seed) for seed in sorted(rows["seed"].unique()))
    return {"files": listed.pop("file"), "seeds": seeds, **listed, "hours": float(took / 3600)}
