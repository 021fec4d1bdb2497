"""`linfair_book.build`: what happens around a build, on small trees whose right answer is known."""

import hashlib
import importlib.metadata
import io
import os
import re
import tarfile
from pathlib import Path

import nbformat
import pytest
import yaml
from jupyter_cache import get_cache
from linfair_book import build, notebooks

ROOT = Path(__file__).resolve().parents[2]
TOC = """
format: jb-book
root: book/index
parts:
  - caption: One
    chapters:
      - file: book/rerun.md
        sections:
          - file: book/deeper
  - caption: Two
    chapters:
      - file: notebooks/01_toy
      - url: https://example.org
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with four pages, all of them built."""
    sources = ("book/index.md", "book/rerun.md", "book/deeper.md", "notebooks/01_toy.ipynb", "linfair/gates.py")
    for name in (*sources, "requirements.txt"):
        write(tmp_path / name, name)
    write(tmp_path / "_toc.yml", TOC)
    for page in ("index", "book/index", "book/rerun", "book/deeper", "notebooks/01_toy"):
        write(tmp_path / f"_build/html/{page}.html", "<html></html>")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_pages_are_those_of_the_toc_in_order_without_suffix(tree: Path) -> None:
    assert build.pages(tree) == ["book/index", "book/rerun", "book/deeper", "notebooks/01_toy"]


def test_an_empty_toc_is_an_error(tree: Path) -> None:
    write(tree / "_toc.yml", "format: jb-book\n")
    with pytest.raises(build.BookError, match="lists no page"):
        build.pages(tree)


def test_check_of_a_complete_book_gives_the_file_to_open(tree: Path) -> None:
    assert build.check(tree) == tree.resolve() / "_build/html/index.html"


@pytest.mark.parametrize("page", ["book/deeper", "notebooks/01_toy", "index"])
def test_check_names_the_page_that_was_not_written(tree: Path, page: str) -> None:
    (tree / f"_build/html/{page}.html").unlink()
    with pytest.raises(build.BookError, match=f"_build/html/{page}.html was not written"):
        build.check(tree)


def test_check_names_the_page_that_shows_markup(tree: Path) -> None:
    (tree / build.HTML / "book/index.html").write_text("<article><p>```{note}</p></article>")
    with pytest.raises(build.BookError, match=r"book/index.html.*not rendered: ```\{note\}"):
        build.check(tree)


@pytest.mark.parametrize(
    "left", ["```{prf:proof}", "**What it assumes.**", ":::{note}", "see {doc}`x`", "[a](../b.md)", "## More"]
)
def test_markup_left_as_typed_is_found_outside_of_code(left: str) -> None:
    assert build.unrendered(f"<article><p>fine</p><p>{left}</p></article>")
    assert not build.unrendered(f"<article><p>2 * 3, a_b</p><pre>{left}</pre><code>{left}</code></article>")


def test_check_names_the_page_without_a_source(tree: Path) -> None:
    (tree / "notebooks/01_toy.ipynb").unlink()
    with pytest.raises(build.BookError, match=r"there is no notebooks/01_toy.md or notebooks/01_toy.ipynb"):
        build.check(tree)


def test_a_build_that_wrote_nothing_is_found_out(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What jupyter-book 2 does: exit status 0, and no page."""
    build.start_afresh(tree)
    assert build.main(["check", "--root", str(tree)]) == 1
    message = capsys.readouterr().err
    assert all(f"_build/html/{page}.html" in message for page in build.pages(tree))
    assert "must be 1.x" in message


def test_the_command_prints_the_file_to_open(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build.main(["check", "--root", str(tree)]) == 0
    assert capsys.readouterr().out == f"Open {tree.resolve()}/_build/html/index.html\n"


def test_the_repository_is_found_from_a_folder_inside_it(tree: Path) -> None:
    assert build.repository(tree / "book") == tree.resolve()


@pytest.mark.parametrize(
    ("changed", "executed_again"),
    [
        (None, False),
        ("linfair/gates.py", True),
        ("linfair/study/new.py", True),
        ("book/linfair_book/why.py", True),
        ("book/results/table.parquet", True),
        ("requirements.txt", True),
        ("linfair/__pycache__/gates.pyc", False),
        ("book/index.md", False),
        ("notebooks/01_toy.ipynb", False),
    ],
)
def test_notebooks_run_again_exactly_when_what_they_call_has_changed(
    tree: Path, changed: str | None, executed_again: bool
) -> None:
    """The notebooks themselves are left to jupyter-book, which keys its cache by their code."""
    build.start_afresh(tree)
    entry = tree / "_build/.jupyter_cache/executed.ipynb"
    write(entry, "outputs")
    if changed:
        write(tree / changed, "changed")
    assert build.start_afresh(tree) is executed_again
    assert entry.exists() is not executed_again


def test_a_cache_of_unknown_origin_is_not_trusted(tree: Path) -> None:
    write(tree / "_build/.jupyter_cache/executed.ipynb", "outputs")
    assert build.start_afresh(tree)
    assert not (tree / "_build/.jupyter_cache").exists()


def test_every_build_starts_without_old_pages_and_old_warnings(tree: Path) -> None:
    """Sphinx warns about a page only when it parses it, so kept parsed pages would hide warnings."""
    write(tree / "_build/.doctrees/environment.pickle", "")
    build.start_afresh(tree)
    assert not (tree / "_build/html").exists()
    assert not (tree / "_build/.doctrees").exists()


def book_of(root: Path, **codes: str) -> None:
    """A book whose pages are notebooks of one cell each."""
    for name, code in codes.items():
        cells = [nbformat.v4.new_code_cell(code)]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
        write(root / f"{name}.ipynb", nbformat.writes(nbformat.v4.new_notebook(cells=cells, metadata=kernel)))
    write(root / "_config.yml", "execute: {timeout: 60}\n")
    first, *others = codes
    write(root / "_toc.yml", yaml.dump({"format": "jb-book", "root": first, "chapters": [{"file": x} for x in others]}))


def executed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return sorted(re.findall(r"^notebook \d of \d: (\w+)\.ipynb, \d+ s$", capsys.readouterr().err, re.MULTILINE))


def test_notebooks_are_executed_once_and_a_failing_one_is_named_with_its_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "data.txt", "beside the notebook")
    book_of(tmp_path, one="open('data.txt').read()", two="def inner():\n    1 / 0\ninner()")
    with pytest.raises(build.BookError, match=r"(?s)^two.ipynb failed:.*inner\(\).*ZeroDivisionError: division"):
        build.execute(tmp_path)
    assert executed(capsys) == ["one"]
    book_of(tmp_path, one="open('data.txt').read()", two="import os; os.environ['OMP_NUM_THREADS']")
    build.execute(tmp_path)
    assert executed(capsys) == ["two"]
    build.execute(tmp_path)
    assert executed(capsys) == []
    cache = get_cache(tmp_path / "_build/.jupyter_cache")
    for name, value in (("one", "beside the notebook"), ("two", "1")):
        _, merged = cache.merge_match_into_notebook(nbformat.read(tmp_path / f"{name}.ipynb", 4))
        assert value in merged.cells[0].outputs[0].data["text/plain"]
        assert nbformat.read(tmp_path / f"{name}.ipynb", 4).cells[0].outputs == []


def test_notebooks_whose_networks_others_read_go_first_then_the_longest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    about = {
        "short": {"minutes": 0.5},
        "long": {"minutes": 2},
        "read": {"minutes": 1, "read_by_others": True},
        "no": {},
    }
    book_of(tmp_path, **{name: repr(name) for name in about})
    for name, metadata in about.items():
        found = nbformat.read(tmp_path / f"{name}.ipynb", 4)
        found.metadata |= metadata
        nbformat.write(found, tmp_path / f"{name}.ipynb")
    build.execute(tmp_path, workers=1)
    assert re.findall(r": (\w+)\.ipynb", capsys.readouterr().err) == ["read", "long", "short", "no"]


def test_without_npm_pages_use_the_cdn_and_the_log_says_so(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tree))
    message = "\n".join(build.prepare(tree))
    assert f"npm has not given mathjax@{build.MATHJAX_VERSION}: [Errno 2]" in message
    assert "CDN" in message
    assert build.mathjax_source(tree) == build.MATHJAX_CDN
    assert build.MATHJAX_VERSION in build.MATHJAX_CDN


def fake_npm(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    npm = folder / "bin" / "npm"
    write(npm, f"#!/bin/sh\necho called >> {folder}/calls\n{script}\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(npm.parent) + os.pathsep + os.environ["PATH"])


def package(path: Path, member: str) -> None:
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo(member)
        info.size = len(b"mathjax")
        archive.addfile(info, io.BytesIO(b"mathjax"))


def test_mathjax_is_taken_from_the_npm_package_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "MATHJAX_SHA256", hashlib.sha256(b"mathjax").hexdigest())
    package(tree / "made.tgz", "package/es5/tex-svg-full.js")
    fake_npm(tree, monkeypatch, f"cp {tree}/made.tgz mathjax.tgz")
    for _ in range(2):
        assert build.vendor_mathjax(tree) is None
    assert (tree / "_build/static/mathjax/tex-svg-full.js").read_bytes() == b"mathjax"
    assert build.mathjax_source(tree) == "mathjax/tex-svg-full.js"
    assert (tree / "calls").read_text() == "called\n"


def test_another_file_than_was_published_stops_the_build(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Whether it comes with the package or is there from an earlier build."""
    package(tree / "made.tgz", "package/es5/tex-svg-full.js")
    fake_npm(tree, monkeypatch, f"cp {tree}/made.tgz mathjax.tgz")
    target = tree / "_build/static/mathjax/tex-svg-full.js"
    for there in (False, True):
        if there:
            write(target, "changed")
        assert build.main(["prepare", "--root", str(tree)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert build.MATHJAX_SHA256[:16] in line
        assert ("remove it and build again" in line) == target.exists() == there


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'no such host' >&2; exit 1", "no such host"),
        ("exit 0", "not enough values"),
        ("echo rubbish > mathjax.tgz", "could not be opened"),
        ("exec sleep 60", "timed out"),
    ],
)
def test_a_failing_npm_is_a_reason_not_a_crash(
    tree: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    fake_npm(tree, monkeypatch, script)
    assert reason in build.vendor_mathjax(tree, timeout=2 if reason == "timed out" else 240)
    assert build.mathjax_source(tree) == build.MATHJAX_CDN


def test_a_package_without_the_file_is_a_reason(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tree / "made.tgz", "package/es5/other.js")
    fake_npm(tree, monkeypatch, f"cp {tree}/made.tgz mathjax.tgz")
    assert "tex-svg-full.js" in build.vendor_mathjax(tree)


def test_every_page_of_the_real_toc_has_a_source() -> None:
    assert [page for page in build.pages(ROOT) if build.source(ROOT, page) is None] == []


def test_the_real_book_goes_from_the_toy_to_the_audit_then_to_the_evidence() -> None:
    """The order in which readers need it: the idea, who loses, why, repair, other reductions, cost, an audit."""
    parts = yaml.safe_load((ROOT / "_toc.yml").read_text())["parts"]
    chapters = [[chapter["file"] for chapter in part["chapters"]] for part in parts]
    numbers = [[int(re.search(r"/(\d\d)_", page)[1]) for page in part if "notebooks/" in page] for part in chapters]
    assert numbers == [[1, 10, 2, 12, 4, 3, 5], [13, 14, 15, 16, 17, 18], [9, 11], [6, 7, 8], [], []]
    assert chapters[3][:2] == ["book/claims", "book/rerun"] and parts[-1]["caption"] == "Reference"
    named = {page.removeprefix("notebooks/") for part in chapters for page in part if "notebooks/" in page}
    assert named == set(notebooks.listed())


def test_jupyter_book_is_version_1() -> None:
    """2.x reads neither `_config.yml` nor `_toc.yml`."""
    assert importlib.metadata.version("jupyter-book").split(".")[0] == "1"
