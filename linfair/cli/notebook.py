"""`linfair notebook`: rerun the book's notebooks. Only these commands need `linfair_book`, and they import it late."""

import json
from typing import Annotated

from cyclopts import App

from linfair.cli.options import Json, output, says, several, tell

Dir = Annotated[str | None, says("Folder of the notebooks; by default the repository's.")]
Values = Annotated[tuple[str, ...], several("NAME=VALUE, lists as 0.5,0.2", name="-p")]
Size = Annotated[str | None, says("Short for -p profile=...")]
To = Annotated[str | None, says("Where to write; by default _build/notebooks here.")]
Name = Annotated[str, says("The notebook, for example 01_toy_boundary.")]
app = App(name="notebook", help="Rerun the book's notebooks.")


@app.command(name="list")
def show(*, as_json: Json = False, notebooks: Dir = None) -> None:
    """Show the notebooks and their parameters."""
    from linfair_book import notebooks as books

    known = books.listed(notebooks).values()
    if as_json:
        print(json.dumps([notebook.as_json() for notebook in known], indent=2))
        return
    for notebook in known:
        print(f"{notebook.name}  {notebook.title}  (about {notebook.minutes:g} min)")
        for p in notebook.parameters:
            print(f"    {p.name}: {p.type} = {_plain(p.default)}  [{p.allowed}]\n        {p.description}")
        print()
    print("Run one with: linfair notebook run NAME -p name=value -p name=value")


@app.command
def run(name: Name, /, *, parameters: Values = (), profile: Size = None, out: To = None, notebooks: Dir = None) -> None:
    """Run a notebook with other parameters."""
    from linfair_book import notebooks as books

    notebook = books.find(name, notebooks)
    values = notebook.parse([*parameters, *([f"profile={profile}"] if profile else [])])
    shown = ", ".join(f"{key}={_plain(value)}" for key, value in notebook.check(values).items())
    output("--out", (place := output("--out", out or books.OUTPUT, alone=False)) / f"{name}.ipynb", ".ipynb")
    tell(f"Running {name} with {shown}")
    print(books.run(notebook, values, out=place))


def _plain(value: object) -> str:
    return ",".join(f"{entry:g}" for entry in value) if isinstance(value, list) else str(value)
