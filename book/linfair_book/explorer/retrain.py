"""Controls for people at a live kernel: choose settings, train the toy again, see both groups."""

from typing import Any

from linfair_book import figures, toy
from linfair_book.explorer.host import is_live


def controls(*, live: bool | None = None) -> Any:
    """Sliders and a button that trains the toy with these settings; without a front end, a line that says so."""
    from IPython.display import Markdown, display

    if not (is_live() if live is None else live):
        return Markdown("*In Jupyter, sliders appear here that train the networks again; they need a live kernel.*")
    import ipywidgets as widgets

    wide = {"style": {"description_width": "10em"}, "layout": widgets.Layout(width="30em")}
    budget = widgets.SelectionSlider(
        description="ReLU budget", options=[(f"{100 * b:g} %", b) for b in toy.BUDGETS[1:]], value=0.5, **wide
    )
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
            study = toy.train(
                seeds=range(seed.value, seed.value + 3),
                budgets=[1.0, budget.value],
                frequency=frequency.value,
                majority=1000 - minority.value,
                minority=minority.value,
                width=width.value,
                progress=False,
            )
            display(figures.toy_boundaries(study, study.typical_seed(budget.value), [1.0, budget.value]))
            display(toy.table(toy.summarise(study.rows)))
        button.disabled = False

    button.on_click(train)
    return widgets.VBox([budget, minority, frequency, width, seed, button, shown])
