"""The paper's propositions as code: each with its statement, its assumptions and a check that could fail.

Section 4 and App. A of Das et al. (ICML 2024), one statement a module: `approximation` (Prop. 4.1), `pieces` (4.2),
`optimality` (4.3), `bound` (Theorem 4.4), `hessian` (4.5), `stationarity` (App. A.1); and `pruning`, those of Tran et
al. (NeurIPS 2022). Notebook 03 runs the checks on the networks of `linfair_book.propositions` and `piecewise`, and says
how each could fail.
"""

from linfair.theory.approximation import approximate
from linfair.theory.bound import excess_bound
from linfair.theory.folding import fold_batch_norm
from linfair.theory.hessian import hessian_bound
from linfair.theory.optimality import counterexample
from linfair.theory.pieces import on_line, pieces_bound, pieces_bound_kept
from linfair.theory.pruning import gradient_bound
from linfair.theory.stationarity import gradient_ratio
