"""The explorers as live widgets: anywidget runs the same modules, and Python sees and sets what is chosen."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import traitlets

from linfair_book.explorer import host
from linfair_book.explorer.grid import BoundaryGrid, check_setting
from linfair_book.explorer.results import first_choice, results_state

try:
    import anywidget
except ImportError as error:
    raise ImportError(
        f"the explorers need anywidget ({error}). Install it with: pip install 'linfair[book]'"
    ) from error


class _Explorer(anywidget.AnyWidget):
    """A state that a module reads, and what is chosen in it."""

    name = ""
    state = traitlets.Dict().tag(sync=True)
    choice = traitlets.Dict().tag(sync=True)

    def static(self) -> host.StaticExplorer:
        """The same, at the same choice, for a page without a kernel."""
        return host.StaticExplorer(self.name, self.state, self.choice)


class BoundaryExplorer(_Explorer):
    """The toy's decision boundary with sliders for budget, imbalance, wiggle, width and seed.

    The networks run in the browser, on the weights of the grid. `choice` is what the sliders say; set it to move them.

    >>> from linfair_book.explorer import GRIDS, train_grid
    >>> small = train_grid(GRIDS["smoke"], seeds=[0], steps=1, progress=False)
    >>> widget = BoundaryExplorer(small)
    >>> widget.choice
    {'width': 8, 'share': 0.1, 'frequency': 2.5, 'seed': 0, 'budget': 0.5}
    >>> widget.choice = {**widget.choice, "budget": 0.0}
    """

    name = "boundary"
    _esm = host.module("boundary")
    _css = host.css()

    def __init__(self, grid: BoundaryGrid, **kwargs: Any) -> None:
        state = grid.state()
        super().__init__(state=state, choice=state["start"], **kwargs)

    @traitlets.validate("choice")
    def _check(self, proposal: Mapping) -> dict:
        return check_setting(self.state["axes"], proposal["value"])


class ResultsExplorer(_Explorer):
    """Result tables to choose from: bars for both roles or every group, with intervals over seeds."""

    name = "results"
    _esm = host.module("results")
    _css = host.css()

    def __init__(self, tables: Mapping[str, pd.DataFrame], **kwargs: Any) -> None:
        state = results_state(tables)
        super().__init__(state=state, choice=first_choice(state), **kwargs)


def show_boundary(grid: BoundaryGrid, *, live: bool | None = None) -> BoundaryExplorer | host.StaticExplorer:
    """The boundary explorer: a widget where `host.is_live` (or `live`), else the static form without a second state."""
    if host.is_live() if live is None else live:
        return BoundaryExplorer(grid)
    state = grid.state()
    return host.StaticExplorer("boundary", state, state["start"])


def show_results(
    tables: Mapping[str, pd.DataFrame], *, live: bool | None = None
) -> ResultsExplorer | host.StaticExplorer:
    """The results explorer in the form that works here, as `show_boundary`."""
    if host.is_live() if live is None else live:
        return ResultsExplorer(tables)
    state = results_state(tables)
    return host.StaticExplorer("results", state, first_choice(state))
