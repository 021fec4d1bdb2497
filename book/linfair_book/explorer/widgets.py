"""The explorers as live widgets: anywidget runs the same modules, and Python sees and sets what is chosen."""

from collections.abc import Mapping

import pandas as pd
import traitlets

from linfair import plots
from linfair_book.explorer import host
from linfair_book.explorer.results import first_choice, results_state

try:
    import anywidget
except ImportError as error:
    raise ImportError(f"the explorers need anywidget ({error}): pip install 'linfair[book]'") from error

COLORS = {role: plots.COLORS[role] for role in ("majority", "minority", "other")}


class _Explorer(anywidget.AnyWidget):
    """A state that a module reads, and what is chosen in it."""

    state = traitlets.Dict().tag(sync=True)
    choice = traitlets.Dict().tag(sync=True)


class BoundaryExplorer(_Explorer):
    """A network that trains in the page; `choice["link"]` is all that it shows, as text: read it or set it."""

    _esm = host.module("boundary")
    _css = host.css("boundary")


class ResultsExplorer(_Explorer):
    """Result tables to choose from: each group's accuracy before, after and repaired."""

    _esm = host.module("results")
    _css = host.css("results")


def show_boundary(link: str = "", *, live: bool | None = None) -> BoundaryExplorer | host.StaticExplorer:
    """The boundary explorer: a widget at a live kernel (or as `live` says), else the static form."""
    return _shown("boundary", {"colors": COLORS}, {"link": link}, live)


def show_results(
    tables: Mapping[str, pd.DataFrame], *, live: bool | None = None
) -> ResultsExplorer | host.StaticExplorer:
    """The results explorer in the form that works here, as `show_boundary`."""
    state = results_state(tables)
    return _shown("results", state, first_choice(state), live)


def _shown(name: str, state: dict, choice: dict, live: bool | None) -> _Explorer | host.StaticExplorer:
    if host.is_live() if live is None else live:
        return {"boundary": BoundaryExplorer, "results": ResultsExplorer}[name](state=state, choice=choice)
    return host.StaticExplorer(name, state, choice)
