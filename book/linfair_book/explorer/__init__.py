"""Explorers of the toy's boundary and of committed results: live in Jupyter, else a page of the same module."""

from linfair_book.explorer.host import StaticExplorer, is_live
from linfair_book.explorer.results import result_tables, results_state
from linfair_book.explorer.widgets import BoundaryExplorer, ResultsExplorer, show_boundary, show_results
