"""How an explorer gets on a page: the same ES module, live in Jupyter (anywidget) or inlined beside its state."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from importlib.resources import files

WORKER = ("network", "toydata", "worker")
PAGE = ("thread", "link", "lab", "parts", "plane", "units", "strip", "story", "guide", "explorer")
PARTS = {
    "boundary": ("common", *WORKER, *PAGE),
    "cost": ("common", "cost"),
    "results": ("common", "results"),
}
"""The files of each explorer's one module, each after those that it imports."""
_ANSWER = "const answer = serve(postMessage);\nonmessage = (event) => answer(event.data);\n"
EXPORT = "export default { render };"
_ALONE = """:root { color-scheme: light dark; }
body { background: Canvas; color: CanvasText; font-family: sans-serif; margin: 1rem; }"""
_HOST = """
{
  const el = document.getElementById(%(id)s);
  const values = JSON.parse(document.getElementById(%(state_id)s).textContent);
  const get = (name) => values[name];
  const linked = () => (values.choice.link = location.hash.slice(1));
  const set = (name, value) => {
    values[name] = value;
    if (value.link) history.replaceState(null, "", `#${value.link}`);
  };
  const on = (event, heard) => "link" in values.choice && addEventListener("hashchange", () => heard(linked()));
  if ("link" in values.choice && location.hash) linked();
  render({ model: { get, set, save_changes() {}, on, off() {} }, el });
}
"""


def module(name: str) -> str:
    """Source of one explorer's ES module, one of `PARTS`; that of its worker is a string in it."""
    body = joined(PARTS[name]).rstrip().removesuffix("default { render };")
    if "thread" in PARTS[name]:
        body = f"const WORKER = {json.dumps(joined(WORKER) + _ANSWER)};\n{body}"
    return f"{body}{EXPORT}\n"


def joined(parts: tuple[str, ...]) -> str:
    """Modules one after the other, without imports and exports: their names differ."""
    return "".join(re.sub(r"^(import .*\n|export )", "", _read(f"{part}.js"), flags=re.MULTILINE) for part in parts)


def css(name: str) -> str:
    """One explorer's style sheet."""
    return _read("explorer.css") + (_read("toy.css") if name == "boundary" else "")


def _read(name: str) -> str:
    return (files("linfair_book.explorer") / name).read_text(encoding="utf-8")


def is_live() -> bool:
    """Whether Jupyter's server started this kernel, so that widgets can be shown; the static form works anywhere."""
    return "JPY_SESSION_NAME" in os.environ


@dataclass(frozen=True)
class StaticExplorer:
    """An explorer that needs no kernel: name, state ready for JSON, and what is selected at first."""

    name: str
    state: Mapping
    choice: Mapping

    def html(self) -> str:
        """A fragment with style, state and module; its element's id is `linfair-NAME`, the same in every build."""
        source = module(self.name)
        body, found, rest = source.rpartition(EXPORT)
        if not found or rest.strip() or re.search(r"</script|<!--", source, re.IGNORECASE):
            raise ValueError(f"{self.name}.js must end with {EXPORT!r} and hold neither </script nor <!--")
        state = json.dumps({"state": self.state, "choice": self.choice}, allow_nan=False, separators=(",", ":"))
        element, state_id = f"linfair-{self.name}", f"linfair-{self.name}-state"
        host = _HOST % {"id": json.dumps(element), "state_id": json.dumps(state_id)}
        return (
            f"<style>{css(self.name)}</style>\n"
            f'<div id="{element}"><p>This explorer needs JavaScript; the figures of the book do not.</p></div>\n'
            f'<script type="application/json" id="{state_id}">{state.replace("<", chr(92) + "u003c")}</script>\n'
            f'<script type="module">\n{body}{host}</script>\n'
        )

    def page(self, title: str) -> str:
        """A complete HTML document with this explorer alone, to save and send."""
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(title)}</title>\n"
            f"<style>{_ALONE}</style>\n"
            f"</head>\n<body>\n<main>\n<h1>{escape(title)}</h1>\n{self.html()}</main>\n</body>\n</html>\n"
        )

    def _repr_html_(self) -> str:
        return self.html()
