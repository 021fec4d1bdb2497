"""Rules: ways to compute a network's gradients in the one `fit`, private ones among them.

`train(model, data, schedule, rule="dp_sgd(epsilon=3)")` trains under one; `RULES` lists them.
"""

from linfair.rules.accounting import noise_for, spent
from linfair.rules.adaptive import DPGlobalAdapt
from linfair.rules.options import ASAM, SAM, SGD, Clipped, RuleOptions, Started
from linfair.rules.private import DPSAT, DPSGD
from linfair.rules.registry import RULES, canonical, resolve, train
