"""SNL's mask path, epoch by epoch: how the count of ReLUs falls, where each mask is taken (notebook 07)."""

import pandas as pd

from linfair.study.cell import Cell, Worker

LINES = 12  # epochs of a path that the table shows, beside those in which a mask is taken


def path_table(cell: Cell, seed: int, **how: object) -> pd.DataFrame:
    """One seed's path for a page: about `LINES` of its epochs, and all in which a mask was taken."""
    records, member, rows = Worker(cell, **how).path.records, cell.seeds.index(seed), []
    last = max(one.epochs[member] for one in records)
    for row in records[0].history[:last]:
        epoch, kept = row["epoch"] + 1, row["kept"][member]
        taken = [one for one in records if one.epochs[member] == epoch]
        if taken or (epoch - 1) % max(1, round(last / LINES)) == 0:
            masks = [f"{100 * one.budget:g} %: {one.kept[member]} at step {one.steps[member]}" for one in taken]
            rows.append([epoch, kept, 100 * kept / records[0].masks[member].total, "; ".join(masks)])
    return pd.DataFrame(rows, columns=["epoch", "ReLUs kept", "%", "masks taken"])
