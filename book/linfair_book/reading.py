"""Tables for a page: sides of intervals in words, whether a repair does no harm, audits of several seeds."""

from collections.abc import Sequence

import pandas as pd

from linfair.audit import Audit
from linfair.audit.findings import overall, row_of, rows_of
from linfair.audit.shown import gap_of, interval, number
from linfair.mitigation import PLAIN
from linfair.study.tables import text
from linfair_book.averages import sides
from linfair_book.mitigation import label

NOTHING = pd.DataFrame({"": ["no seed is left to compare"]})


def readable(means: pd.DataFrame, *, at: float = 0.0, digits: int = 1) -> pd.DataFrame:
    """Means over seeds for reading, one a line; from 3 seeds on with the side of `at` on which the interval lies."""
    means = means[means["n_seeds"] > 0]
    if means.empty:
        return NOTHING
    found = sides(means, at=at)
    found["side"] = found["side"].where(found["low"].notna() & (found["n_seeds"] > 2), "cannot tell")
    found = text(found, digits=digits).rename(columns={"group_name": "group", "n_seeds": "seeds"})
    found["side"] = found.pop("side")
    if "budget" in found:
        found["budget"] = [f"{100 * budget:g} %" for budget in found["budget"]]
    found = found.rename(columns=lambda name: name.replace("_", " "))
    return found.assign(way=found["way"].map(label)) if "way" in found else found


def across_seeds(audits: Sequence[Audit]) -> pd.DataFrame:
    """Several audits of networks trained alike from other seeds, at each one's explained budget: a line each."""
    lines = []
    for audit in audits:
        rows = rows_of(audit, PLAIN, audit.plan.named)
        gap = gap_of(rows)
        worst = row_of(rows, gap.worst)
        line = {"seed": str(audit.subject.header.seed), "pays most": f"{worst['group_name']} ({worst['role']})"}
        line["its drop"] = interval(worst["drop"], worst["drop_low"], worst["drop_high"])
        line["gap between groups"] = interval(gap.gap, gap.low, gap.high)
        line["overall drop"] = number(overall(rows_of(audit, "original", 1.0)) - overall(rows))
        lines.append(line)
    return pd.DataFrame(lines)
