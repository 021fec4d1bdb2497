"""Every input of the fuzz module, a file a kind."""

from kinds import datasets, environment, grammar, masks, networks, others, places, results, tables, users
from kinds.case import Case

MODULES = (grammar, places, environment, networks, masks, users, results, datasets, tables, others)
CASES: list[Case] = [case for module in MODULES for case in module.cases()]
