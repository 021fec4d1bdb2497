"""Studies: which networks, budgets, arms and seeds; run what is missing, keep every finished arm, read tidy tables.

`grid` names the cells of a panel, `run` returns their table, `tables` turns rows into drops and means over seeds.
"""

from linfair.engine.store import ResultStore
from linfair.study.cell import ARMS, Cell, grid, run
from linfair.study.recipes import PROFILES, Recipe, recipe
