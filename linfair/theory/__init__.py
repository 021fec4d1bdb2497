"""The paper's propositions as code: each with its statement, its assumptions and a check that could fail.

Section 4 and App. A of Das et al. (ICML 2024), one statement a module: `approximation` (Prop. 4.1), `pieces` and
`networks` (4.2, Fig. 10), `optimality` (4.3), `bound` (Theorem 4.4), `hessian` (4.5), `stationarity` (App. A.1); and
`pruning`, those of Tran et al. (NeurIPS 2022). Notebook 03 runs the checks and says how each could fail.
"""

from linfair.theory.approximation import approximate, rate_table
from linfair.theory.bound import excess_bound, ranking, remainders
from linfair.theory.folding import fold_batch_norm
from linfair.theory.hessian import hessian_bound, violations
from linfair.theory.networks import counts_of_random_networks, fig_10, zigzag
from linfair.theory.optimality import counterexample, optimality_shares
from linfair.theory.pieces import counts_on_lines, on_line, pieces_bound, pieces_bound_kept
from linfair.theory.pruning import gradient_bound
from linfair.theory.stationarity import gradient_ratio, stationarity_table

__all__ = [
    "approximate",
    "counterexample",
    "counts_of_random_networks",
    "counts_on_lines",
    "excess_bound",
    "fig_10",
    "fold_batch_norm",
    "gradient_bound",
    "gradient_ratio",
    "hessian_bound",
    "on_line",
    "optimality_shares",
    "pieces_bound",
    "pieces_bound_kept",
    "ranking",
    "rate_table",
    "remainders",
    "stationarity_table",
    "violations",
    "zigzag",
]
