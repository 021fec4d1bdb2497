"""The book's helpers around `jupyter-book build`: `prepare` before it (MathJax, notebooks executed), `check` after it.

MathJax is the one thing that a page would fetch; `book/_ext/offline_pages.py` hands the vendored file to Sphinx.
jupyter-book's cache does not know the package that notebooks call, and it executes one after another. jupyter-book 2
ignores `_config.yml` and `_toc.yml` and builds nothing, with exit status 0: `check` looks for the pages themselves.
"""

import argparse
import hashlib
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from linfair.paths import whole

if TYPE_CHECKING:
    from jupyter_cache.executors.utils import ExecutionResult
    from nbformat import NotebookNode

MATHJAX_VERSION = "3.2.2"
MATHJAX_FILE = "mathjax/tex-svg-full.js"  # draws glyphs as SVG paths, so it needs no font files
MATHJAX_SHA256 = "a4354ff94fd868aea0cc6eaaa79a57fda0588646fc46ee3700a349ee0a11cbe6"  # of that file in the npm package
MATHJAX_CDN = f"https://cdn.jsdelivr.net/npm/mathjax@{MATHJAX_VERSION}/es5/tex-svg-full.js"

BUILD = Path("_build")
STATIC = BUILD / "static"  # generated files that every page may load; never committed
HTML = BUILD / "html"
DOCTREES = BUILD / ".doctrees"
CACHE = BUILD / ".jupyter_cache"
DIGEST = BUILD / "inputs.sha256"
NOTED = BUILD / "evidence"  # the numbers that this build's notebooks noted for claims
WORKERS = 4  # notebooks at once, at most; never more than there are cores


class BookError(Exception):
    """The book cannot be prepared, or is not complete; the message says what to do."""


def repository(start: Path | None = None) -> Path:
    """The folder that holds `_toc.yml`: upwards from `start` (the current folder), then next to the package."""
    start = (start or Path.cwd()).resolve()
    for folder in [start, *start.parents, Path(__file__).resolve().parents[2]]:
        if (folder / "_toc.yml").is_file():
            return folder
    raise BookError(f"no _toc.yml in {start} or above: run this in a clone of the repository, or pass --root")


def inputs_digest(root: Path) -> str:
    """SHA-256 over names and contents of what a notebook's output depends on: packages, tables, pinned versions."""
    files = [root / "requirements.txt"]
    for folder in ("linfair", "book/linfair_book", "book/results"):
        files += [path for path in (root / folder).rglob("*") if "__pycache__" not in path.parts]
    digest = hashlib.sha256()
    for path in sorted(path for path in files if path.is_file()):
        digest.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def start_afresh(root: Path) -> bool:
    """Remove the site, parsed pages and, if the inputs changed, executed notebooks; whether all are executed anew."""
    for folder in (HTML, DOCTREES):
        shutil.rmtree(root / folder, ignore_errors=True)
    digest, record, stale = inputs_digest(root), root / DIGEST, (root / CACHE).is_dir()
    if record.is_file() and record.read_text() == digest:
        return False
    if stale:
        shutil.rmtree(root / CACHE)
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(digest)
    return stale


def npm_file(package: str, member: str, target: Path, sha256: str, *, timeout: float = 120.0) -> str | None:
    """Put one file of an npm package in place, unless it is there; a reason if it cannot be, an error if it differs."""
    advice = "remove it and build again"
    if not (there := target.is_file()):
        advice = "npm's package has another file than was published; look at its registry"
        command = ["npm", "pack", package, "--silent", "--ignore-scripts"]
        with tempfile.TemporaryDirectory() as folder:
            try:
                subprocess.run(command, cwd=folder, timeout=timeout, check=True, capture_output=True, text=True)
                (packed,) = Path(folder).glob("*.tgz")
                with tarfile.open(packed) as archive:
                    content = archive.extractfile(f"package/{member}").read(2**25)
            except (OSError, subprocess.SubprocessError, ValueError, KeyError, tarfile.TarError) as error:
                return f"npm has not given {package}: {(getattr(error, 'stderr', '') or str(error)).strip()[-300:]}"
    found = hashlib.sha256(target.read_bytes() if there else content).hexdigest()
    if found != sha256:
        raise BookError(f"{target}: {advice} (its SHA-256 is {found[:16]}..., not {sha256[:16]}...)")
    if not there:
        with whole(target) as part:
            part.write_bytes(content)
    return None


def vendor_mathjax(root: Path, timeout: float = 120.0) -> str | None:
    """Put MathJax under `_build/static/`, as `npm_file` does."""
    target = root / STATIC / MATHJAX_FILE
    return npm_file(f"mathjax@{MATHJAX_VERSION}", f"es5/{target.name}", target, MATHJAX_SHA256, timeout=timeout)


def mathjax_source(root: Path) -> str:
    """What a page loads MathJax from: the vendored file below the site's `_static/` if it is there, else the CDN."""
    return MATHJAX_FILE if (root / STATIC / MATHJAX_FILE).is_file() else MATHJAX_CDN


def prepare(root: Path) -> list[str]:
    """Vendor MathJax, remove what is stale; a line for each thing that a reader of the build's log should know."""
    lines = [f"MathJax {MATHJAX_VERSION} is in {STATIC.as_posix()}: pages need no network"]
    if missing := vendor_mathjax(root):
        said = "pages will load MathJax from a CDN, so formulas need a network connection"
        lines = [f"{missing}: {said}. Install npm and build again for pages that work offline"]
    if start_afresh(root):
        lines.append("the package has changed since the last build: every notebook will be executed again")
    return lines


def pages(root: Path) -> list[str]:
    """Names of the pages in `_toc.yml`, in order, without suffix, such as `notebooks/01_toy_boundary`."""
    try:
        from sphinx_external_toc.parsing import MalformedError, parse_toc_yaml
    except ImportError as error:
        raise BookError("the book needs its extra: pip install 'linfair[book]'") from error
    toc = root / "_toc.yml"
    try:
        return [page.removesuffix(".md").removesuffix(".ipynb") for page in parse_toc_yaml(toc)]
    except MalformedError as error:
        raise BookError(f"{toc} lists no page: {error}") from error


def source(root: Path, page: str) -> Path | None:
    """The MyST page or notebook that a page of `_toc.yml` is made from, None if there is none."""
    return next((path for suffix in (".md", ".ipynb") if (path := root / f"{page}{suffix}").is_file()), None)


def notebook(path: Path) -> "NotebookNode | None":
    """A page as the book's notebook parser reads it, None if it has nothing to execute."""
    from myst_nb.core.config import NbParserConfig
    from myst_nb.core.read import create_nb_reader
    from myst_parser.config.main import MdParserConfig

    text = path.read_text(encoding="utf-8")
    reader = create_nb_reader(str(path), MdParserConfig(), NbParserConfig(), text)
    return reader and reader.read(text)


def _executed(path: Path, timeout: int, evidence: Path) -> "tuple[Path, ExecutionResult | str]":
    from jupyter_cache.executors.utils import single_nb_execution
    from nbclient.exceptions import DeadKernelError

    os.environ |= {"OMP_NUM_THREADS": "1", "LINFAIR_EVIDENCE": str(evidence)}
    try:
        options = {"timeout": timeout, "allow_errors": False, "extra_arguments": ["--log-level=CRITICAL"]}
        found = single_nb_execution(notebook(path), cwd=str(path.parent), **options)
    except DeadKernelError as error:
        return path, f"the kernel died ({error}); not enough memory?"
    return path, re.sub(r"\x1b\[[\d;]*m", "", str(found.err)) if found.err else found


def execute(root: Path, *, workers: int = WORKERS) -> None:
    """Execute the notebooks that the cache lacks, first those whose networks others read, then the longest."""
    from jupyter_cache import get_cache
    from jupyter_cache.base import CacheBundleIn
    from yaml import safe_load

    cache, waiting, failed = get_cache(root / CACHE), {}, []
    for path in filter(None, (source(root, page) for page in pages(root))):
        if read := notebook(path):
            try:
                cache.match_cache_notebook(read)
            except KeyError:
                about = read["metadata"]
                waiting[path] = about.get("read_by_others", False), about.get("minutes", 0)
    if not waiting:
        return
    timeout = safe_load((root / "_config.yml").read_text())["execute"]["timeout"]
    in_order = sorted(waiting, key=waiting.get, reverse=True)
    workers = min(workers, os.cpu_count() or 1, len(waiting))
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(workers) as pool:
        work = pool.imap_unordered(partial(_executed, timeout=timeout, evidence=root / NOTED), in_order)
        for count, (path, found) in enumerate(work, 1):
            name, result = path.relative_to(root).as_posix(), "failed"
            if isinstance(found, str):
                failed.append(f"{name} failed:\n{found}")
            else:
                bundle = CacheBundleIn(found.nb, str(path), data={"execution_seconds": found.time})
                cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
                result = f"{found.time:.0f} s"
            print(f"notebook {count} of {len(waiting)}: {name}, {result}", file=sys.stderr, flush=True)
    if failed:
        raise BookError("\n\n".join(failed))


MARKUP = (r"`|:::", r"\*\*\S", r"\{\{|\$\$", r"\]\((?:https?:|\.\.?/|#)", r"^\s*#{1,6} ", r"\{[a-z]+(?::[a-z]+)?\}")
UNRENDERED = re.compile("|".join(MARKUP), re.MULTILINE)


def unrendered(html: str) -> list[str]:
    """What stands on a page as its author typed it: fences, roles, emphasis, links, headings; code and formulas may."""
    from bs4 import BeautifulSoup

    page = BeautifulSoup(html, "html.parser")
    article = page.select_one("article") or page
    for node in article.select("pre, code, script, style, svg, .math, .highlight, dt.sig"):
        node.decompose()
    return [" ".join(text.split())[:90] for text in article.find_all(string=UNRENDERED)]


def check(root: Path) -> Path:
    """The file to open, if the last build wrote every page of `_toc.yml`; a `BookError` names the others."""
    absent = [page for page in pages(root) if source(root, page) is None]
    problems = [f"{page}: listed in _toc.yml, but there is no {page}.md or {page}.ipynb" for page in absent]
    built = [HTML / f"{page}.html" for page in ("index", *pages(root)) if page not in absent]
    problems += [f"{path.as_posix()} was not written" for path in built if not (root / path).is_file()]
    if problems:
        advice = "Run 'make book'. If it builds nothing, look at 'jupyter-book --version': it must be 1.x"
        raise BookError("\n  ".join(["the book is not complete:", *problems]) + f"\n{advice}")
    for path in built:
        if left := unrendered((root / path).read_text(encoding="utf-8")):
            raise BookError(f"{path.as_posix()} shows markup that was not rendered: {'; '.join(left[:5])}")
    return (root / HTML / "index.html").resolve()


def main(arguments: list[str] | None = None) -> int:
    """Run `prepare` or `check`; exit status 0, or 1 with a message on stderr."""
    parser = argparse.ArgumentParser(prog="python -m linfair_book.build", description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=("prepare", "check"), help="before jupyter-book build, or after it")
    parser.add_argument("--root", type=Path, help="repository root (default: where _toc.yml is found)")
    options = parser.parse_args(arguments)
    try:
        root = options.root.resolve() if options.root else repository()
        if options.step == "check":
            print(f"Open {check(root)}")
        else:
            print("\n".join(prepare(root)), file=sys.stderr, flush=True)
            execute(root)
    except BookError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
