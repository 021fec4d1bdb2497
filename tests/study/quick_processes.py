"""The runner's worker processes for tests: forked from a server that has imported torch already, else as they are."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing import parent_process  # noqa: F401
from multiprocessing.process import BaseProcess
from types import SimpleNamespace

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["linfair.study.runner"])


def get_context(method: str) -> SimpleNamespace:
    """Stand-in for the function of `multiprocessing`, as this module is for that one in the runner."""
    return SimpleNamespace(Pipe=SERVER.Pipe, Process=forked)


def forked(*, target: Callable[..., None], args: tuple[object, ...], daemon: bool) -> BaseProcess:
    return SERVER.Process(target=run, args=(dict(os.environ), os.getcwd(), target, args), daemon=daemon)


def run(environment: dict[str, str], folder: str, target: Callable[..., None], args: tuple[object, ...]) -> None:
    """Here environment and folder are still those in which the server began."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    target(*args)


def work_until_fine_tuning(*args: object) -> None:
    """Stand-in for the runner's own function in a worker process, which is killed when it begins to fine-tune."""
    from linfair.engine import stages
    from linfair.study.runner import work

    stages.finetune = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    work(*args)
