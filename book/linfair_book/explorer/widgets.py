"""The explorers as live widgets: anywidget runs the same modules, and Python sees and sets what is chosen."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import traitlets

from linfair_book import figures, toy
from linfair_book.explorer import host
from linfair_book.explorer.grid import BoundaryGrid, check_setting
from linfair_book.explorer.results import first_choice, results_state

try:
    import anywidget
except ImportError as error:
    raise ImportError(f"the explorers need anywidget ({error}): pip install 'linfair[book]'") from error


class _Explorer(anywidget.AnyWidget):
    """A state that a module reads, and what is chosen in it."""

    name = ""
    state = traitlets.Dict().tag(sync=True)
    choice = traitlets.Dict().tag(sync=True)
    _css = host.css()

    def __init__(self, given: Any, **kwargs: Any) -> None:
        super().__init__(**self._made(given), **kwargs)

    def static(self) -> host.StaticExplorer:
        """The same, at the same choice, for a page without a kernel."""
        return host.StaticExplorer(self.name, self.state, self.choice)

    @classmethod
    def shown(cls, given: Any, live: bool | None) -> "_Explorer | host.StaticExplorer":
        """A widget where `host.is_live` (or `live`), else the static form; no widget is made for that."""
        if host.is_live() if live is None else live:
            return cls(given)
        return host.StaticExplorer(cls.name, **cls._made(given))


class BoundaryExplorer(_Explorer):
    """The toy's decision boundary with sliders for budget, imbalance, wiggle, width and seed."""

    name = "boundary"
    _esm = host.module("boundary")

    @staticmethod
    def _made(grid: BoundaryGrid) -> dict[str, dict]:
        state = grid.state()
        return {"state": state, "choice": state["start"]}

    @traitlets.validate("choice")
    def _check(self, proposal: Mapping) -> dict:
        return check_setting(self.state["axes"], proposal["value"])


class ResultsExplorer(_Explorer):
    """Result tables to choose from: bars for both roles or every group, with intervals over seeds."""

    name = "results"
    _esm = host.module("results")

    @staticmethod
    def _made(tables: Mapping[str, pd.DataFrame]) -> dict[str, dict]:
        state = results_state(tables)
        return {"state": state, "choice": first_choice(state)}


def show_boundary(grid: BoundaryGrid, *, live: bool | None = None) -> _Explorer | host.StaticExplorer:
    """The boundary explorer: a widget at a live kernel (or as `live` says), else the static form."""
    return BoundaryExplorer.shown(grid, live)


def show_results(tables: Mapping[str, pd.DataFrame], *, live: bool | None = None) -> _Explorer | host.StaticExplorer:
    """The results explorer in the form that works here, as `show_boundary`."""
    return ResultsExplorer.shown(tables, live)


def controls(*, live: bool | None = None) -> Any:
    """Sliders and a button that trains the toy with these settings; without a front end, a line that says so."""
    from IPython.display import Markdown, display

    if not (host.is_live() if live is None else live):
        return Markdown("*In Jupyter, sliders appear here that train the networks again; they need a live kernel.*")
    import ipywidgets as widgets

    wide = {"style": {"description_width": "10em"}, "layout": widgets.Layout(width="30em")}
    budgets = [(f"{100 * b:g} %", b) for b in toy.BUDGETS[1:]]
    budget = widgets.SelectionSlider(description="ReLU budget", options=budgets, value=0.5, **wide)
    minority = widgets.IntSlider(100, min=20, max=500, step=20, description="minority, of 1000", **wide)
    frequency = widgets.FloatSlider(2.5, min=0.5, max=4, step=0.25, description="frequency f", **wide)
    width = widgets.IntSlider(16, min=4, max=64, step=4, description="units a layer", **wide)
    seed = widgets.BoundedIntText(0, min=0, max=1_000_000, description="first of three seeds", **wide)
    button = widgets.Button(description="Train", button_style="primary")
    shown = widgets.Output()

    def train(_: Any) -> None:
        button.disabled = True
        shown.clear_output(wait=True)
        with shown:
            sizes = {"majority": 1000 - minority.value, "minority": minority.value, "width": width.value}
            how = {"budgets": [1.0, budget.value], "frequency": frequency.value, "progress": False}
            study = toy.train(seeds=range(seed.value, seed.value + 3), **sizes, **how)
            display(figures.toy_boundaries(study, study.typical_seed(budget.value), [1.0, budget.value]))
            display(toy.table(toy.summarise(study.rows)))
        button.disabled = False

    button.on_click(train)
    return widgets.VBox([budget, minority, frequency, width, seed, button, shown])
