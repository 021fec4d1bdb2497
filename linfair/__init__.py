"""linfair: who pays when a ReLU network is linearized for private inference.

Start with `load_data` and `build`, train with `fit`, linearize with `linearizers.snl`, read `metrics.group_accuracy`.
Then `metrics` and `theory` say why, `mitigation` repairs, `cost` prices it, `study` repeats it over seeds.
"""

from linfair.data import GroupedData, load_data
from linfair.ensemble import Ensemble
from linfair.gates import ReLUGate, install
from linfair.masks import Mask
from linfair.models import build
from linfair.training import Schedule, fit

__version__ = "0.1.0"
__all__ = ["Ensemble", "GroupedData", "Mask", "ReLUGate", "Schedule", "build", "fit", "install", "load_data"]
