"""One network, one method, written to a folder: what `linfair linearize` does."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd

from linfair.audit.shown import accuracies
from linfair.checkpoints import Header, load_network, save_network
from linfair.engine.store import ResultStore
from linfair.linearizers.record import kept_share, share
from linfair.paths import save_table
from linfair.study.cell import Cell, Worker
from linfair.study.tables import units_of


def linearize_to(
    folder: str | Path,
    cell: Cell,
    *,
    with_control: bool = True,
    store: ResultStore | None = None,
    progress: bool = True,
    announce: Callable[[str], None] = lambda line: None,
) -> pd.DataFrame:
    """Train or load a teacher, linearize it to every budget, measure and write all of it; the rows of all arms."""
    worker = Worker(cell, store, progress, keep=True)
    data, folder = worker.sets[0], Path(folder)  # refused data leave nothing behind
    folder.mkdir(parents=True, exist_ok=True)
    teacher = worker.teacher.model  # it is written below, and only rows of this very network belong beside it
    arms = ("original", "plain", *["control"] * with_control)
    table = pd.concat([worker.table(arm, announce) for arm in arms], ignore_index=True)
    if cell.teacher:
        header = replace(load_network(cell.teacher)[1], content=data.content)
    else:
        about = data.input_shape, data.classes, cell.data, cell.seeds[0]
        how = {"data_options": cell.data_options, "init": worker.recipe.init, "norm": cell.norm}
        how |= {"standardised": cell.standardised, "rule": cell.base_rule, "schedule": worker.taught}
        how |= {"content": data.content, "guarantee": worker.teacher.guarantee}
        header = Header(cell.network, worker.recipe.width or 0, *about, **how)
    made = {"step": worker.linearizer.does(worker.options).name, "teacher": worker.teacher.digest}
    announce(f"wrote {save_network(folder / 'teacher.safetensors', teacher, header)}")
    for one in worker.students("plain"):
        stem = f"{cell.method}-{one.budget:g}"
        announce(f"wrote {replace(one.mask, **made).save(folder / f'{stem}.mask.safetensors')}")
        weights = folder / f"{stem}.weights.safetensors"
        announce(f"wrote {save_network(weights, one.model, replace(header, guarantee=one.guarantee))}")
    announce(f"wrote {save_table(table, folder / 'groups.parquet')}")
    return table


def group_table(table: pd.DataFrame, *, split: str) -> str:
    """The table of one run for a terminal: a line per group, a column per arm and budget, and what is kept."""
    part = table[table["split"] == split].sort_values("group", kind="stable")
    shown = part.drop_duplicates("group")[["group_name", "role", "n_train", "n"]]
    shown, counts, total = shown.rename(columns={"group_name": "group"}), "", int(part["kept"].max())
    for (arm, budget), rows in part.groupby(["arm", "budget"], sort=False):
        first = rows.iloc[0]
        shown["original" if arm == "original" else f"{arm} {share(budget)}"] = accuracies(rows)
        if arm == "plain":
            when = f", mask taken after {first['mask_epochs']} epochs, {first['mask_steps']} steps"
            left = kept_share(first["kept"], total, budget, units_of(table))
            counts += f"  {left}{when * bool(first['mask_epochs'])}\n"
    loss = table["base_loss"].iloc[0]
    trained = "" if pd.isna(loss) else f"The original's last training loss {loss:.3f}"
    head = f"Accuracy in % on {split} with 95 % Wilson intervals (one seed: they say nothing about other seeds)"
    return f"{head}\n{shown.to_string(index=False)}\nWhat is left at each budget:\n{counts}{trained}"
