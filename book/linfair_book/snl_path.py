"""SNL's mask path, epoch by epoch: how the count of ReLUs falls, where each mask is taken (notebook 07)."""

from collections.abc import Sequence

import pandas as pd

from linfair.study.cell import Cell, Worker

LINES = 12  # epochs of a path that the table shows, beside those in which a mask is taken


def path_rows(cell: Cell, **how: object) -> pd.DataFrame:
    """What a cell's SNL path counts at the end of each epoch: `kept`, its `share` of all units in %, and `masks`."""
    records, rows = Worker(cell, **how).path.records, []
    for member, seed in enumerate(cell.seeds):
        total = records[0].masks[member].total
        for row in records[0].history:
            epoch, kept = row["epoch"] + 1, row["kept"][member]
            taken = [one for one in records if one.epochs[member] == epoch]
            masks = [f"{100 * one.budget:g} %: {one.kept[member]} at step {one.steps[member]}" for one in taken]
            rows.append([seed, epoch, kept, 100 * kept / total, "; ".join(masks)])
    return pd.DataFrame(rows, columns=["seed", "epoch", "kept", "share", "masks"])


def path_table(rows: pd.DataFrame, seed: int, *, lines: Sequence[int] | None = None) -> pd.DataFrame:
    """One seed's path for a page, from `path_rows`: about `LINES` of its epochs, and all in which a mask was taken."""
    one = rows[rows["seed"] == seed]
    last = max([epoch for epoch, masks in zip(one["epoch"], one["masks"], strict=True) if masks], default=len(one))
    shown = set(range(1, last + 1, max(1, round(last / LINES)))) if lines is None else set(lines)
    part = one[(one["epoch"].isin(shown) | (one["masks"] != "")) & (one["epoch"] <= last)]
    names = {"kept": "ReLUs kept", "share": "%", "masks": "masks taken"}
    return part.drop(columns="seed").rename(columns=names).reset_index(drop=True)
