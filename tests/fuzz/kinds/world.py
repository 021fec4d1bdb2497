"""Valid files of every kind, small and made once: what each input is a damaged or wrong copy of."""

import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors.torch import save_file
from scipy.io import savemat

from linfair import gates
from linfair.audit.network import _built
from linfair.checkpoints import Header, save_network
from linfair.data import load_data, packs, sources
from linfair.engine.store import Tables
from linfair.masks import Mask, masks_of
from linfair.models import build

MODEL = """
from torch import nn


def build(input_shape, classes):
    units = input_shape[0] * input_shape[1] * input_shape[2]
    return nn.Sequential(nn.Flatten(), nn.Linear(units, 6), nn.ReLU(), nn.Linear(6, classes))
"""
NOTEBOOK = """relu_budget: float = 0.5  # Share of ReLUs kept. [0, 1]
budgets: list[float] = [0.5, 0.2]  # Shares of ReLUs kept. (0, 1)
n_seeds: int = 10  # Repetitions. [2, 100], smoke: 2
device: str = "cpu"  # Where to train. {cpu, cuda}
profile: str = "small"  # How long. {smoke, small}
"""
BATCHES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
ROWS = Path(__file__).parents[3] / "book/results/digits_mlp_mitigation.parquet"


def make(world: Path) -> None:
    """Fill a folder; nothing is trained."""
    images(world / "user/images")
    network(world / "net")
    user(world / "user")
    data(world / "data")
    rows = pd.read_parquet(ROWS)
    rows = rows[(rows["seed"] < 2) & (rows["method"].isin(("original", "snl")))]
    Tables(world / "results").write("mine", rows.reset_index(drop=True))
    notebook(world / "notebooks/01_small.ipynb")


def images(folder: Path) -> None:
    """80 images of noise, with two labels and two groups."""
    folder.mkdir(parents=True)
    luck, lines = np.random.default_rng(0), ["file,kind,light"]
    for number in range(80):
        Image.fromarray(luck.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{'ab'[number % 2]},{'dim' if number % 4 < 2 else 'bright'}")
    (folder / "labels.csv").write_text("\n".join(lines))


def network(folder: Path) -> None:
    """What `linfair linearize` writes, of a network that learned nothing."""
    digits = load_data("digits", seed=0)
    header = Header("mlp", 8, digits.input_shape, digits.classes, "digits", 0, content=digits.content)
    plain = build("mlp", digits.input_shape, digits.classes, width=8, seed=0).eval()
    gated = gates.freeze(gates.install(plain, digits.input_shape))
    folder.mkdir()
    save_network(folder / "teacher.safetensors", plain, header)
    save_network(folder / "random-0.2.weights.safetensors", gated, Header(**vars(header) | {"gated": True}))
    (mask,) = masks_of(gated)
    units = {site: torch.arange(one.numel()).view_as(one) % 5 == 0 for site, one in mask.units.items()}
    Mask(units, mask.structure).save(folder / "random-0.2.mask.safetensors")


def user(folder: Path) -> None:
    """A user's own network with its weights, in both formats."""
    (folder / "mymodel.py").write_text(MODEL)
    data = load_data(f"folder:{folder / 'images'}", label="kind", group="light", size=8)
    model = _built(folder / "mymodel.py", "build", data)
    save_file(model.state_dict(), folder / "w.safetensors")
    torch.save(model.state_dict(), folder / "w.pth")


def data(folder: Path) -> None:
    """The published files of CIFAR-10, SVHN and UTKFace, and a pack of each."""
    luck = np.random.default_rng(1)
    batches, mats, faces = (folder / name for name in ("cifar10/cifar-10-batches-py", "svhn", "utkface/UTKFace"))
    for one in (batches, mats, faces):
        one.mkdir(parents=True)
    for name in BATCHES:
        labels = np.arange(20) % 10
        batch = {b"labels": labels.tolist(), b"data": luck.integers(0, 256, (20, 3072), dtype=np.uint8)}
        batch |= {b"batch_label": b"batch", b"filenames": [b"image.png"] * 20}
        (batches / name).write_bytes(pickle.dumps(batch, protocol=2))
    for name in ("train_32x32.mat", "test_32x32.mat"):
        pixels, digits = luck.integers(0, 256, (32, 32, 3, 40), dtype=np.uint8), np.arange(40, dtype=np.uint8) % 10 + 1
        savemat(mats / name, {"X": pixels, "y": digits[:, None]}, do_compression=True)
    for number in range(60):
        name = f"{number + 1}_{number % 2}_{number % 5}_201701161745{number:05d}.jpg.chip.jpg"
        Image.fromarray(luck.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(faces / name)
    for name in ("cifar10", "svhn", "utkface"):
        packs.write_pack(sources.read(name, folder / name), folder / f"packs/{name}.npz")
    packs.write_pack(sources.read("folder", folder.parent / "user/images", columns=None), folder / "packs/folder.npz")


def notebook(path: Path) -> None:
    """One with a parameters cell."""
    path.parent.mkdir()
    kinds = [("markdown", "# Small", []), ("code", NOTEBOOK, ["parameters"]), ("code", "print(1)", [])]
    cells = [{"cell_type": kind, "source": text, "metadata": {"tags": tags}} for kind, text, tags in kinds]
    for number, cell in enumerate(cells):
        cell |= {"id": str(number)} | ({"execution_count": None, "outputs": []} if cell["cell_type"] == "code" else {})
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
