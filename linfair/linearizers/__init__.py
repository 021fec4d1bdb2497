"""Linearizers: a trained network, data and descending ReLU budgets -> one `LinearizedModel` per budget.

Start with `snl`; `control` is the arm every comparison carries, `finetune` the last step of all of them.
"""

from linfair.linearizers.finetuning import PAPER_FINETUNE, control, finetune
from linfair.linearizers.record import BudgetOutOfReach, LinearizedModel
from linfair.linearizers.snl import SNL, snl

__all__ = ["PAPER_FINETUNE", "SNL", "BudgetOutOfReach", "LinearizedModel", "control", "finetune", "snl"]
