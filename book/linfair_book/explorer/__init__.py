"""Explorers: play with the toy's boundary and with the committed results, in a browser, without a kernel.

`show_boundary(train_grid())` and `show_results({name: table})` end a notebook cell: a live widget in Jupyter, else a
static form of the same module (`StaticExplorer`, also a page of its own). `controls()` trains from sliders.
"""

from linfair_book.explorer.grid import GRIDS, BoundaryGrid, Grid, train_grid
from linfair_book.explorer.host import StaticExplorer, is_live
from linfair_book.explorer.results import result_tables, results_state
from linfair_book.explorer.widgets import BoundaryExplorer, ResultsExplorer, controls, show_boundary, show_results
