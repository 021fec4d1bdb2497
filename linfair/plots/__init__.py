"""Figures in one house style, readable on light and dark pages: call `style()` once.

Functions draw the rows of `linfair.run` and return a figure; `evidence_of` says in one line what it rests on.
"""

from linfair.plots.cost import cost_against_accuracy, cost_and_accuracy, cost_parts
from linfair.plots.impact import overall_accuracy, relative_drop_lines, role_accuracy_bars
from linfair.plots.style import (
    COLORS,
    GREY,
    MARKERS,
    PAGES,
    STYLE,
    budget_axis,
    contrast,
    evidence,
    evidence_of,
    line_with_interval,
    style,
)
