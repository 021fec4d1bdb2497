"""Figures in one house style, readable on light and dark pages: call `style()` once.

`cost_parts` draws what an answer costs; `evidence_of` says in one line what the rows of `linfair.run` rest on.
"""

from linfair.plots.style import COLORS, GREY, MARKERS, STYLE, cost_parts, evidence, evidence_of, style
