"""Shared by all tests: one thread, reproducible property tests, and one small teacher on the bundled digits."""

from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
import quick_processes
import torch
from hypothesis import settings
from torch import nn

from linfair import plots
from linfair.data import GroupedData, load_data
from linfair.models import build
from linfair.study import runner
from linfair.training import Schedule, fit, supervised

settings.register_profile("linfair", max_examples=20, deadline=None, derandomize=True, database=None)
settings.load_profile("linfair")

SEED = 3
ROOT = Path(__file__).resolve().parents[1]
FIRST = ["browser/test_notebook_pages", "browser/test_site"]
"""The files that take longest: with two processes, none of them begins when the other process has nothing left."""


def pytest_configure(config: pytest.Config) -> None:
    """Xdist takes files in the order in which they were collected, not those with the most tests first."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let them begin first, in this order."""
    rank = {ROOT / f"tests/{name}.py": place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many inputs the fuzz module tried, whichever processes did."""
    reports = [one for some in terminalreporter.stats.values() for one in some if isinstance(one, pytest.TestReport)]
    tried = {one.nodeid: one for one in reports if "::test_an_input[" in one.nodeid}
    kinds = {name.partition("[")[2].partition(":")[0] for name in tried}
    bad = [str(one.longrepr) for one in tried.values() if one.outcome != "passed"]
    tracebacks, hangs = (sum(word in text for text in bad) for word in ("traceback: ", "no answer within"))
    if tried:
        terminalreporter.line(f"fuzz: {len(tried)} inputs, {len(kinds)} kinds, {tracebacks} tracebacks, {hangs} hangs")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Bit-for-bit comparisons need one thread count throughout."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def own_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The user's settings, data and results change no outcome, and stay as they are."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("LINFAIR_EVIDENCE", "LINFAIR_PROFILE", "LINFAIR_STRICT"):
            patch.delenv(name, raising=False)
        for name in ("IPYTHONDIR", "LINFAIR_CACHE"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name)))
        yield


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """What a test draws without a seed of its own depends on no test before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def light() -> Iterator[None]:
    """Rows without gradient norms and eigenvalues, which cost more than training a small network."""
    with pytest.MonkeyPatch.context() as patch:
        without_diagnostics(patch)
        yield


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for one test."""
    without_diagnostics(monkeypatch)


def without_diagnostics(patch: pytest.MonkeyPatch) -> None:
    for name in ("_gradients", "_eigenvalues"):
        patch.setattr(f"linfair.metrics.measure.{name}", lambda *_, **__: {})


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes that start in no time; the slow tests have the real ones."""
    monkeypatch.setattr(runner, "multiprocessing", quick_processes)


@pytest.fixture(scope="session")
def digits() -> GroupedData:
    """The bundled digits, one split."""
    return load_data("digits", seed=SEED)


@pytest.fixture(scope="session")
def teacher(one_thread: None, digits: GroupedData) -> nn.Module:
    """An MLP 16-16 trained for a second on them; tests must leave it as it is."""
    network = build("mlp", digits.input_shape, digits.classes, width=16, seed=SEED)
    schedule = Schedule(epochs=30, optimizer="adamw", lr=3e-3)
    fit(network, digits, supervised, schedule, seeds=[SEED], stage="base", progress=False)
    return network.eval()


@pytest.fixture
def house_style() -> Iterator[None]:
    """The book's style, drawn without a screen; matplotlib is as before afterwards."""
    backend = mpl.get_backend()
    mpl.use("agg")
    with mpl.rc_context():
        plots.style()
        yield
    plt.close("all")
    mpl.use(backend)
