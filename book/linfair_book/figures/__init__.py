"""Figures of single pages; those that every study shares are in `linfair.plots`."""

from linfair_book.figures.private import memorization
from linfair_book.figures.selection import selection_accuracy, selection_disparity
from linfair_book.figures.shared import dots, lines
from linfair_book.figures.toy import toy_accuracy, toy_boundaries
from linfair_book.figures.why import (
    bias_curves,
    correlation_chart,
    distance_and_accuracy,
    eigenvalue_bars,
    upsampling_lines,
)
