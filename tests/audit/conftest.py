"""A user's folder for the audit: 240 small images, a network in `mymodel.py`, its weights."""

import csv
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from linfair.audit.network import _built
from linfair.cli import main
from linfair.data import load_data
from linfair.training import Schedule, fit, supervised

MODEL = """
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.first = nn.Conv2d(channels, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.relu = nn.ReLU()
        self.last = nn.Linear(8 * 16, classes)

    def forward(self, x):
        return self.last(self.relu(self.second(F.relu(self.first(x)))).flatten(1))


def build(input_shape, classes):
    return Net(input_shape[0], classes)
"""
DATA = {"label": "kind", "group": "light", "size": 8}


def write_images(folder: Path, *, groups: dict[str, int]) -> None:
    """Stripes across or down, drawn faintly for the second group, in noise."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "kind", "light"])
        for light, count in groups.items():
            for number in range(count):
                kind = ("across", "down")[number % 2]
                stripes = np.tile([1.0, 1.0, 0.0, 0.0], 2)[None, :].repeat(8, 0)
                stripes = np.roll(stripes, generator.integers(4), axis=1)
                image = (0.8 if light == "bright" else 0.3) * (stripes if kind == "down" else stripes.T)
                noise = generator.normal(0.1, 0.15, size=(8, 8, 3))
                pixels = (255 * np.clip(image[:, :, None] + noise, 0, 1)).astype("uint8")
                name = f"{light}-{number}.png"
                Image.fromarray(pixels).save(folder / name)
                table.writerow([name, kind, light])


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """A folder with `images/`, `mymodel.py` and `w.safetensors`, trained for a second."""
    folder = tmp_path_factory.mktemp("user")
    write_images(folder / "images", groups={"bright": 180, "dim": 60})
    (folder / "mymodel.py").write_text(MODEL)
    data = load_data(f"folder:{folder / 'images'}", seed=0, **DATA)
    network = _built(folder / "mymodel.py", "build", data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for layer in (network.first, network.second, network.last):
            layer.reset_parameters()
    fit(
        network,
        data,
        supervised,
        Schedule(epochs=20, optimizer="adamw", lr=1e-2),
        seeds=[0],
        stage="base",
        progress=False,
    )
    save_file(network.state_dict(), folder / "w.safetensors")
    return folder


@pytest.fixture
def inside(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder as the present one, with a cache of the test's own."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("LINFAIR_CACHE", str(tmp_path / "cache"))
    return place


@pytest.fixture(scope="session")
def report(place: Path, typed: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one finished report, made by the command as a user types it."""
    folder, cache, here = tmp_path_factory.mktemp("out"), tmp_path_factory.mktemp("cache"), Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LINFAIR_CACHE", str(cache))
        os.chdir(place)
        try:
            assert main.main(typed("--out", str(folder / "report"))) == 0
        finally:
            os.chdir(here)
    return folder / "report"


@pytest.fixture(scope="session")
def chosen() -> dict[str, object]:
    """The options of the data set."""
    return DATA


@pytest.fixture(scope="session")
def typed() -> Callable[..., list[str]]:
    """Words of `linfair audit` on the folder, smoke profile, with options added or changed."""
    return words_of


def words_of(*more: str, **changed: str) -> list[str]:
    options = {"model": "mymodel.py:build", "weights": "w.safetensors", "data": "folder:images"}
    options |= {
        "label": "kind",
        "group": "light",
        "size": "8",
        "budgets": "0.5,0.1",
        "arms": "balanced_sampling,group_dro",
        "profile": "smoke",
    }
    words = [word for name, value in (options | changed).items() for word in (f"--{name.replace('_', '-')}", value)]
    return ["audit", *words, *more]
