"""Figures: one house style, readable on light and dark pages, and one function for each kind of figure.

Call `style()` once; `toy_*` draw the toy study, the others the rows of `linfair.study.run`. Each returns a figure;
`evidence_of` says in one line what it rests on.
"""

from linfair.plots.cost import cost_against_accuracy, cost_and_accuracy, cost_parts
from linfair.plots.impact import overall_accuracy, relative_drop_lines, role_accuracy_bars
from linfair.plots.selection import selection_accuracy, selection_disparity
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
from linfair.plots.toy import toy_accuracy, toy_boundaries
from linfair.plots.why import (
    bias_curves,
    correlation_chart,
    distance_and_accuracy,
    eigenvalue_bars,
    gradient_norm_bars,
    margin_bars,
    upsampling_lines,
)

__all__ = [
    "COLORS",
    "GREY",
    "MARKERS",
    "PAGES",
    "STYLE",
    "bias_curves",
    "budget_axis",
    "contrast",
    "correlation_chart",
    "cost_against_accuracy",
    "cost_and_accuracy",
    "cost_parts",
    "distance_and_accuracy",
    "eigenvalue_bars",
    "evidence",
    "evidence_of",
    "gradient_norm_bars",
    "line_with_interval",
    "margin_bars",
    "overall_accuracy",
    "relative_drop_lines",
    "role_accuracy_bars",
    "selection_accuracy",
    "selection_disparity",
    "style",
    "toy_accuracy",
    "toy_boundaries",
    "upsampling_lines",
]
