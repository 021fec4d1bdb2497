"""The book's two helpers around `jupyter-book build`: `prepare` before it, `check` after it.

    python -m linfair_book.build prepare    # MathJax into _build/static; what is stale, out
    jupyter-book build . -W -n --keep-going
    python -m linfair_book.build check      # every page of _toc.yml was written; prints the file to open

Why they are needed:

* A page opened from disk must not need the network. The one thing a page of this book would fetch is
  MathJax, so `prepare` unpacks one file of its npm package under `_build/static/`, which the extension
  `book/_ext/offline_pages.py` hands to Sphinx. Without npm the pages link to a CDN instead.
* The notebook cache knows the notebooks, not the package they call: an edit of `linfair/` would leave old
  numbers on the pages. `prepare` drops the cache when `inputs_digest` changes.
* jupyter-book 2 ignores `_config.yml` and `_toc.yml` and builds nothing, with exit status 0. `check` looks
  for the pages themselves.
"""

import argparse
import hashlib
import shutil
import sys
from pathlib import Path

from linfair_book import vendor

MATHJAX_VERSION = "3.2.2"
MATHJAX_FILE = "mathjax/tex-svg-full.js"  # draws glyphs as SVG paths, so it needs no font files
MATHJAX_CDN = f"https://cdn.jsdelivr.net/npm/mathjax@{MATHJAX_VERSION}/es5/tex-svg-full.js"

BUILD = Path("_build")
STATIC = BUILD / "static"  # generated files that every page may load; never committed
HTML = BUILD / "html"
DOCTREES = BUILD / ".doctrees"
CACHE = BUILD / ".jupyter_cache"
DIGEST = BUILD / "inputs.sha256"


class BookError(Exception):
    """The book cannot be prepared, or is not complete; the message says what to do."""


def repository(start: Path | None = None) -> Path:
    """Find the folder that holds `_toc.yml`: upwards from `start`, then next to the package.

    Args:
        start: Folder to start from; the current one by default.

    Returns:
        Absolute path of the repository root.

    Raises:
        BookError: If there is no `_toc.yml` in any of these places.
    """
    start = (start or Path.cwd()).resolve()
    for folder in [start, *start.parents, Path(__file__).resolve().parents[2]]:
        if (folder / "_toc.yml").is_file():
            return folder
    raise BookError(f"no _toc.yml in {start} or above: run this in a clone of the repository, or pass --root")


def inputs_digest(root: Path) -> str:
    """SHA-256 over everything a notebook's output depends on, apart from the notebook itself.

    That is: the package (`linfair/`), the committed result tables (`book/results/`) and the pinned versions
    (`constraints.txt`). Names count as well as contents, so a renamed module changes the digest.

    Args:
        root: Repository root.

    Returns:
        64 hexadecimal digits.
    """
    files = [root / "constraints.txt"]
    for folder in ("linfair", "book/results"):
        files += [path for path in (root / folder).rglob("*") if "__pycache__" not in path.parts]
    digest = hashlib.sha256()
    for path in sorted(path for path in files if path.is_file()):
        digest.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def start_afresh(root: Path) -> bool:
    """Remove what an earlier build left and the next one must not trust.

    Always the site and Sphinx's parsed pages: a page that left `_toc.yml` would stay, and a warning is only
    given when a page is parsed, so a second build with warnings as errors would pass. The cache of executed
    notebooks, which is what takes long to make, goes only if `inputs_digest` has changed since it was filled.

    Args:
        root: Repository root.

    Returns:
        True if there was a cache and it was removed: the next build executes every notebook.
    """
    for folder in (HTML, DOCTREES):
        if (root / folder).is_dir():
            shutil.rmtree(root / folder)
    digest, record = inputs_digest(root), root / DIGEST
    if record.is_file() and record.read_text() == digest:
        return False
    stale = (root / CACHE).is_dir()
    if stale:
        shutil.rmtree(root / CACHE)
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(digest)
    return stale


def vendor_mathjax(root: Path, timeout: float = 120.0) -> str | None:
    """Put MathJax under `_build/static/`, from its npm package, unless it is there already.

    Args:
        root: Repository root.
        timeout: Seconds to wait for npm.

    Returns:
        None if the file is in place, else the reason why it is not.
    """
    target = root / STATIC / MATHJAX_FILE
    return vendor.npm_file(f"mathjax@{MATHJAX_VERSION}", f"es5/{target.name}", target, timeout=timeout)


def mathjax_source(root: Path) -> str:
    """What a page loads MathJax from: the vendored file if it is there, else the CDN.

    Args:
        root: Repository root.

    Returns:
        A path below the site's `_static/`, or an https address of the same version.

    >>> mathjax_source(Path("/nowhere"))
    'https://cdn.jsdelivr.net/npm/mathjax@3.2.2/es5/tex-svg-full.js'
    """
    return MATHJAX_FILE if (root / STATIC / MATHJAX_FILE).is_file() else MATHJAX_CDN


def prepare(root: Path) -> list[str]:
    """Do what a build needs done first: vendor MathJax, remove what is stale.

    Args:
        root: Repository root.

    Returns:
        One line per thing a reader of the build's log should know.
    """
    lines = []
    missing = vendor_mathjax(root)
    if missing is None:
        lines.append(f"MathJax {MATHJAX_VERSION} is in {STATIC.as_posix()}: pages need no network")
    else:
        lines.append(
            f"{missing}: pages will load MathJax from a CDN, so formulas need a network connection. "
            "Install npm and build again for pages that work offline"
        )
    if start_afresh(root):
        lines.append("the package has changed since the last build: every notebook will be executed again")
    return lines


def pages(root: Path) -> list[str]:
    """Names of the pages in `_toc.yml`, in order, without suffix.

    Args:
        root: Repository root.

    Returns:
        Paths relative to the repository, such as `notebooks/01_toy_boundary`.

    Raises:
        BookError: If PyYAML is missing or `_toc.yml` lists nothing.
    """
    try:
        import yaml
    except ImportError as error:
        raise BookError("the book needs its extra: pip install 'linfair[book]'") from error

    def walk(node: object) -> list[str]:
        if isinstance(node, list):
            return [page for item in node for page in walk(item)]
        if not isinstance(node, dict):
            return []
        own = [node[key] for key in ("root", "file") if key in node]
        below = (node[key] for key in ("parts", "chapters", "sections", "subtrees", "entries") if key in node)
        return own + [page for child in below for page in walk(child)]

    toc = root / "_toc.yml"
    found = walk(yaml.safe_load(toc.read_text(encoding="utf-8")))
    if not found:
        raise BookError(f"{toc} lists no page")
    return [page.removesuffix(".md").removesuffix(".ipynb") for page in found]


def source(root: Path, page: str) -> Path | None:
    """The file a page of `_toc.yml` is made from, or None if there is none.

    Args:
        root: Repository root.
        page: Name as in `_toc.yml`, without suffix.

    Returns:
        The path of the MyST page or notebook.
    """
    candidates = (root / f"{page}{suffix}" for suffix in (".md", ".ipynb"))
    return next((path for path in candidates if path.is_file()), None)


def check(root: Path) -> Path:
    """Make sure that the last build wrote every page of `_toc.yml`.

    Args:
        root: Repository root.

    Returns:
        Absolute path of the file to open.

    Raises:
        BookError: If pages are missing; the message names them.
    """
    problems = []
    for page in pages(root):
        origin, built = source(root, page), root / HTML / f"{page}.html"
        if origin is None:
            problems.append(f"{page}: listed in _toc.yml, but there is no {page}.md or {page}.ipynb")
        elif not built.is_file():
            problems.append(f"{page}: {built.relative_to(root).as_posix()} was not written")
    index = root / HTML / "index.html"
    if not index.is_file():
        problems.append(f"{index.relative_to(root).as_posix()} was not written")
    if problems:
        listing = "\n  ".join(problems)
        raise BookError(
            f"the book is not complete:\n  {listing}\n"
            "Run 'make book'. If it builds nothing without complaint, look at 'jupyter-book --version': "
            "it must be 1.x"
        )
    return index.resolve()


def main(arguments: list[str] | None = None) -> int:
    """Run `prepare` or `check` from the command line.

    Args:
        arguments: Command line without the program's name; `sys.argv` by default.

    Returns:
        Exit status: 0, or 1 with a message on stderr.
    """
    parser = argparse.ArgumentParser(prog="python -m linfair_book.build", description=__doc__.splitlines()[0])
    parser.add_argument(
        "step",
        choices=("prepare", "check"),
        help="prepare: before jupyter-book build; check: after it",
    )
    parser.add_argument("--root", type=Path, help="repository root (default: where _toc.yml is found)")
    options = parser.parse_args(arguments)
    try:
        root = options.root.resolve() if options.root else repository()
        if options.step == "prepare":
            print("\n".join(prepare(root)), file=sys.stderr)
        else:
            print(f"Open {check(root)}")
    except BookError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
