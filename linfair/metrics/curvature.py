"""Top eigenvalue of the Hessian of each group's risk.

With J(theta; S_a) the mean cross entropy of the inputs of group a, the second term of the paper's bound on the
excessive loss (Das et al., ICML 2024, Theorem 4.4) holds

    lambda_a = lambda_max(H_a),    H_a = grad_theta^2 J(theta; S_a).

Implicitly restarted Lanczos (ARPACK) finds it from products H_a v, the gradients of v . grad_theta J: `LA` the
algebraically largest, `LM` the largest in absolute value, as a bound on |v . H_a v| needs. `per_batch`, as in the code
released with the paper, is the maximum over batches, biased upward: max_b lambda_max(H_a,b) >= lambda_max(H_a).
"""

from collections import namedtuple
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from threadpoolctl import ThreadpoolController
from torch import Tensor, nn

from linfair.data import GroupedData
from linfair.device import full_precision
from linfair.metrics.gradients import ParameterRisk, flat, unflat
from linfair.resume import remembered

WHICH = {"LA": lambda found: found.value, "LM": lambda found: abs(found.value)}  #: The top one has the largest of these
BASIS = 10  #: Lanczos vectors between restarts: on trained networks 10 take half of the products of ARPACK's 20


@dataclass(frozen=True)
class TopEigenvalue:
    """Top Hessian eigenvalue of one group's risk, with its evidence."""

    group: int  #: Number of the group
    n: int  #: Inputs of the group
    value: float  #: v . H v for the vector v found, |v| = 1; some eigenvalue lies within `residual` of it
    residual: float  #: |H v - value v|, measured with one more product
    converged: bool  #: Whether residual <= tol |value|; for `per_batch`, in every batch
    products: int  #: Hessian-vector products taken, over all batches
    batches: int  #: Hessians looked at; 1 for `exact`, the batches that hold the group for `per_batch`


_Found = namedtuple("_Found", "value residual converged products")  # of one search, as in TopEigenvalue


def hessian_product(risk: ParameterRisk, index: Tensor) -> Callable[[Tensor], Tensor]:
    """The product v -> H v, (risk.size,) to float64 (risk.size,), H the Hessian of the risk of the inputs at `index`.

    It refuses a loss or a product that is not finite. Inputs that fit into one batch keep their graph between products,
    which saves half of the work and takes no more memory than one product does.
    """
    parts = index.split(risk.batch_size)
    kept = risk.derivative(risk.mean_loss(index, len(index)), create_graph=True) if len(parts) == 1 else None

    @full_precision()
    def product(vector: Tensor) -> Tensor:
        direction = unflat(vector.to(risk.parameters[0]), risk.named).values()
        total = torch.zeros(risk.size, dtype=torch.float64, device=risk.parameters[0].device)
        for part in parts:
            gradient = kept or risk.derivative(risk.mean_loss(part, len(index)), create_graph=True)
            with torch.enable_grad():
                slope = sum((one * two).sum() for one, two in zip(gradient, direction, strict=True))
            if slope.requires_grad:
                total += flat(risk.derivative(slope, retain_graph=kept is not None))
        if not torch.isfinite(total).all():
            raise ValueError("a product with the Hessian is not finite; the network diverged: train it at a lower rate")
        return total

    return product


@ThreadpoolController().wrap(limits=1, user_api="blas")  # the order of BLAS' sums depends on how many threads there are
def _search(
    product: Callable[[Tensor], Tensor], size: int, *, which: str, tol: float = 1e-4, max_iterations: int = 200
) -> _Found:
    """Top eigenvalue of a symmetric matrix of size (size, size) given by its product with a vector."""
    if tol <= 0 or max_iterations < 1:
        raise ValueError(f"need tol > 0 and max_iterations >= 1, got tol={tol}, max_iterations={max_iterations}")
    products = 0

    def times(vector: np.ndarray) -> np.ndarray:
        nonlocal products
        products += 1
        return product(torch.from_numpy(np.array(vector, dtype=np.float64).reshape(-1))).cpu().numpy()

    random = np.random.default_rng(0).standard_normal(size)
    random /= np.linalg.norm(random)
    image = times(random)
    if not image.any():
        return _Found(0.0, 0.0, True, products)  # H maps a random vector to exactly 0: every loss is flat here
    start = random + image / np.linalg.norm(image)  # leans to the large eigenvalues and has a part in every direction
    start = start if start.any() else random  # of equal negative eigenvalues the image is the opposite
    vector = random
    if size > 1:  # eigsh needs two
        operator = LinearOperator((size, size), matvec=times, dtype=np.float64)
        options = {"k": 1, "which": which, "v0": start, "ncv": min(size, BASIS)}
        try:
            # half of tol: rounding must not push the measured residual over it
            vector = eigsh(operator, maxiter=max_iterations, tol=tol / 2, **options)[1][:, 0]
        except ArpackNoConvergence:
            vector = eigsh(operator, maxiter=1, tol=np.finfo(float).max, **options)[1][:, 0]
    image = times(vector)
    value = float(vector @ image)
    residual = float(np.linalg.norm(image - value * vector))
    return _Found(value, residual, residual <= tol * abs(value), products)


def top_eigenvalues(
    model: nn.Module,
    data: GroupedData,
    split: str = "train",
    *,
    which: str = "LA",
    groups: Sequence[int] | None = None,
    alpha: bool = False,
    estimator: str = "exact",
    tol: float = 1e-4,
    max_iterations: int = 200,
    batch_size: int = 512,
    dtype: torch.dtype | None = None,
) -> list[TopEigenvalue]:
    """Top Hessian eigenvalue of each group's risk, in evaluation mode, a row for each group.

    A search that did not converge is reported with converged=False and the value of a short one, for `LA` too small.
    Split, groups, `alpha`, `batch_size`, `dtype` and estimator are as in `group_gradient_norms`. `which` is `LA` or
    `LM` (with its sign). Converged is residual <= `tol` |value|: in float32 a tol below about 1e-5 may be out of reach,
    use torch.float64. There are `max_iterations` restarts of Lanczos, each of at most 10 products, in float64. A
    ValueError refuses an unknown `which`, tol <= 0, max_iterations < 1, and what `group_gradient_norms` refuses.

    A linear classifier of two classes with weights 0 has for x = 1 the Hessian [[1/4, -1/4], [-1/4, 1/4]]:

    >>> from linfair.data import Split
    >>> one = Split(torch.ones(3, 1), torch.ones(3).long(), torch.zeros(3).long())
    >>> linear = nn.Linear(1, 2, bias=False)
    >>> _ = nn.init.zeros_(linear.weight)
    >>> [row] = top_eigenvalues(linear, GroupedData("ones", {"train": one}, ("no", "yes"), ("all",)))
    >>> row.group, row.n, round(row.value, 6), row.converged
    (0, 3, 0.5, True)
    """
    if which not in WHICH:
        raise ValueError(f"no which={which!r}; there are LA (algebraically largest) and LM (largest in absolute value)")
    risk = ParameterRisk(model, data, split, alpha=alpha, batch_size=batch_size, dtype=dtype)
    return [row for (row,) in _rows(risk, groups, estimator, (which,), tol=tol, max_iterations=max_iterations)]


def top_eigenvalue_pairs(
    model: nn.Module, data: GroupedData, split: str = "train", *, estimator: str = "exact", **options: object
) -> list[tuple[TopEigenvalue, TopEigenvalue]]:
    """Both top eigenvalues of every group, a pair of rows for `LA` and `LM`, mostly for the price of one.

    The eigenvalue of largest absolute value is the algebraically largest too where it is positive, as it is for trained
    networks: then one search gives both. Where it is negative, or was not found to `tol`, a second one follows.
    Arguments and errors are those of `top_eigenvalues`.
    """
    search = {name: options.pop(name) for name in ("tol", "max_iterations") if name in options}
    rows = _rows(ParameterRisk(model, data, split, **options), None, estimator, ("LM", "LA"), **search)
    return [(largest, absolute) for absolute, largest in rows]


def _read(kept: list) -> list[list[_Found]]:
    return [[_Found(float(a), float(b), bool(c), int(d)) for a, b, c, d in searches] for searches in kept]


def _rows(
    risk: ParameterRisk, groups: Sequence[int] | None, estimator: str, which: Sequence[str], **options: object
) -> list[list[TopEigenvalue]]:
    """For each group a row for each of `which`; a search whose eigenvalue is not negative serves those after it."""
    rows = []
    for group in risk.check_groups(groups):

        def searched(group: int = group) -> list[list[_Found]]:
            found = {name: [] for name in which}
            for index in risk.positions(group, estimator):
                product, last = hessian_product(risk, index), None
                for name in which:
                    if last is None or not last.converged or last.value < 0:
                        last = _search(product, risk.size, which=name, **options)
                    found[name].append(last)
            return list(found.values())

        rows.append([])
        for name, searches in zip(which, remembered(searched, _read, group=group, which=which, **options), strict=True):
            top = max(searches, key=WHICH[name])
            evidence = all(one.converged for one in searches), sum(one.products for one in searches), len(searches)
            rows[-1].append(TopEigenvalue(group, risk.n[group], top.value, top.residual, *evidence))
    return rows
