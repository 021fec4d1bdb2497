"""linfair: who pays when a ReLU network is linearized for private inference.

`load_data`, `build` and `fit` make a network with its data; `linearize` removes its ReLUs; `measure` says what that
costs each group; `finetune` repairs it. `run` repeats it over seeds, `audit` does it to your own network. `install`
puts gates into any network; a `Mask` says which ReLUs stay. `linfair.metrics` and `linfair.theory` explain the loss.
"""

from importlib import import_module as _import

__version__ = "0.1.0"
_HOMES = {"load_data": "data", "build": "models", "fit": "training", "install": "gates", "Mask": "masks"}
_HOMES |= {"linearize": "linearizers", "finetune": "linearizers", "measure": "metrics.measure", "run": "study"}
__all__ = ["Mask", "audit", "build", "finetune", "fit", "install", "linearize", "load_data", "measure", "run"]
__dir__ = __all__.copy  # for completion


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"linfair has no {name!r}; it has {', '.join(__all__)}")
    return getattr(_import(f"linfair.{_HOMES[name]}"), name) if name in _HOMES else _import("linfair.audit")
