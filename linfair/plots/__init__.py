"""Figures in one house style, readable on light and dark pages: call `style()` once.

Functions draw the rows of `linfair.run` and return a figure; `evidence_of` says in one line what it rests on.
"""

from linfair.plots.cost import cost_parts
from linfair.plots.style import (
    COLORS,
    GREY,
    MARKERS,
    STYLE,
    budget_axis,
    evidence,
    evidence_of,
    line_with_interval,
    style,
)
