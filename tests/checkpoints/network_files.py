"""Files of networks, sound and changed, for the tests beside."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from linfair import gates
from linfair.checkpoints import FORMAT, CheckpointError, Header, load_network

SHAPE = (1, 12, 12)
MLP = Header("mlp", 8, SHAPE, 10, "digits", 3)
HEADER = asdict(MLP) | {"input_shape": list(SHAPE)}


def trained(header: Header) -> nn.Module:
    """The header's network with other weights, statistics and (where it has gates) alphas than a fresh one."""
    model = replace(header, seed=header.seed + 1).build()
    torch.manual_seed(0)
    model(torch.randn(8, *SHAPE))
    if header.gated:
        gates.set_alphas(model, lambda _, alpha: torch.randint(0, 2, alpha.shape).float())
    return model.eval()


def written(path: Path, *, notes: dict[str, str] | None, **changes: object) -> Path:
    """A network file with another header."""
    header = asdict(MLP) | changes
    metadata = {"format": FORMAT, "header": json.dumps(header)} if notes is None else notes
    save_file(MLP.build().state_dict(), path, metadata=metadata)
    return path


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_network(path)
    return str(caught.value)
