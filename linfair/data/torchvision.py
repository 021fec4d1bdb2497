"""torchvision, imported through one function that repairs the one mismatch with torch that is known.

Next to a torch of another build its compiled operators do not load, and the import ends in `operator torchvision::nms
does not exist`. Its data sets, transforms and networks need none of them: declaring two is enough to import the rest.
"""

import importlib
import sys
from types import ModuleType

import torch

_DECLARED: list[torch.library.Library] = []  # a declaration ends when its library is collected


def torchvision() -> ModuleType:
    """Import torchvision, with its submodules `datasets`, `models`, `transforms`; an ImportError says what to install.

    Of a build that does not match the installed torch everything in Python works; `ops.nms` and `io` do not.
    """
    while True:
        try:
            return importlib.import_module("torchvision")
        except Exception as error:  # a binary that does not fit fails in many ways
            for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
                del sys.modules[name]  # half-imported
            if _DECLARED or "operator torchvision::nms does not exist" not in str(error):
                what = f"torchvision cannot be imported next to torch {torch.__version__}"
                pairs = "torch 2.13 goes with torchvision 0.28, torch 2.11 with 0.26"
                advice = f'Install a pair that fits: {pairs}; pip install "torch==2.13.*" "torchvision==0.28.*"'
                raise ImportError(f"{what} ({type(error).__name__}: {error}). {advice}") from error
            _DECLARED.append(torch.library.Library("torchvision", "DEF"))
            for name in ("nms", "qnms"):
                _DECLARED[0].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
