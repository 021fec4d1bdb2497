"""Sphinx extension: pages that load nothing from outside.

* MathJax comes from `_build/static/` when `python -m linfair_book.build prepare` has put it there.
  (Not through `html_static_path` in `_config.yml`: the folder may be absent.)
* The theme's live-code extension is always loaded by jupyter-book, declares the same constant twice on every
  page (an error in the browser's console) and points at a CDN. This book does not use it: its listeners go.
"""

from base64 import b64encode
from pathlib import Path

from linfair_book import build
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging

logger = logging.getLogger(__name__)


def use_local_mathjax(app: Sphinx, config: Config) -> None:
    """Point Sphinx at the vendored MathJax, or say that pages will need a network connection."""
    root = Path(app.srcdir)
    config.mathjax_path = build.mathjax_source(root)
    if config.mathjax_path == build.MATHJAX_CDN:
        digest = b64encode(bytes.fromhex(build.MATHJAX_SHA256)).decode()  # the browser runs no other file
        config.mathjax_options = {"integrity": f"sha256-{digest}", "crossorigin": "anonymous"}
        logger.info("MathJax is not vendored: pages will load it from %s", build.MATHJAX_CDN)
    else:
        config.html_static_path.append(str(root / build.STATIC))


def drop_live_code(app: Sphinx, config: Config) -> None:
    """Disconnect sphinx_thebe, except for the listener that copies the style sheet it links to."""
    for listeners in app.events.listeners.values():
        for listener in list(listeners):
            handler = listener.handler
            if handler.__module__ == "sphinx_thebe" and handler.__name__ != "st_static_path":
                listeners.remove(listener)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect both to the event at which the configuration is complete."""
    app.connect("config-inited", use_local_mathjax)
    app.connect("config-inited", drop_live_code)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
