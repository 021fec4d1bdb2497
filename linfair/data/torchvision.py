"""torchvision, imported through one function that repairs the one mismatch with torch that is known.

torchvision registers its compiled operators when its binary loads. Next to a torch of another build (a CPU torch, a
torchvision linked to CUDA) the binary does not load, and the import ends in `operator torchvision::nms does not exist`.
Its data sets, transforms and networks need none of those operators: declaring two of them is enough to import it.
"""

import importlib
import sys
from types import ModuleType

import torch

_MISMATCH = "operator torchvision::nms does not exist"
_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_PAIRS = "torch 2.13 goes with torchvision 0.28, torch 2.11 with 0.26"
_declared: list[torch.library.Library] = []  # a declaration ends when its library is collected


def torchvision() -> ModuleType:
    """Import torchvision, with its submodules `datasets`, `models` and `transforms`.

    A build that does not match the installed torch is imported without its compiled operators: `ops.nms` and `io` then
    do not work, everything in Python does.

    Raises:
        ImportError: If torchvision is missing or cannot be repaired; says which pair to install.

    >>> torchvision().models.resnet18.__name__
    'resnet18'
    """
    try:
        try:
            return importlib.import_module("torchvision")
        except RuntimeError as error:
            if _MISMATCH not in str(error):
                raise
            _forget()
            _declare()
            return importlib.import_module("torchvision")
    except Exception as error:  # a binary that does not fit fails in many ways
        _forget()
        raise ImportError(
            f"torchvision cannot be imported next to torch {torch.__version__} ({type(error).__name__}: {error}). "
            f'Install a pair that belongs together: {_PAIRS}; pip install "torch==2.13.*" "torchvision==0.28.*"'
        ) from error


def _declare() -> None:
    if not _declared:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(name + _SIGNATURE)
        _declared.append(library)


def _forget() -> None:
    """Drop a half-imported torchvision, so that the next import starts afresh."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
