"""Linearizers: a trained network, data and descending ReLU budgets -> one `LinearizedModel` per budget.

Start with `linearize`; `LINEARIZERS` lists the methods, `control` is the arm every comparison carries.
"""

from linfair.linearizers.configurations import PAPER_CONFIGURATIONS
from linfair.linearizers.deepreduce import RELEASED_DEEPREDUCE, DeepReDuce, deepreduce
from linfair.linearizers.finetuning import FINETUNE, PAPER_FINETUNE, control, finetune
from linfair.linearizers.oneshot import OneShot, even_units, one_shot, top_units
from linfair.linearizers.record import BudgetOutOfReach, LinearizedModel
from linfair.linearizers.registry import LINEARIZERS, Linearizer, linearize
from linfair.linearizers.snl import SNL, snl
