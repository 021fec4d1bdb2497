"""The disagreements themselves: what the paper says, what the code released with it does, what each is judged by.

`linfair_book.released` runs and reads them. Each headline was fixed before its numbers were seen.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from linfair.metrics import group_gradient_norms, top_eigenvalues
from linfair_book import released_runs as runs
from linfair_book import released_thin as thin
from linfair_book.released_runs import ACCURACY, Lab

DIAGNOSTIC_BATCH = 16
"""Batch of the released diagnostics here: as on CIFAR-10, the test split, sorted by class, has about 17 batches or more
and most hold one or two classes."""


@dataclass(frozen=True)
class Switch:
    """One disagreement.

    Attributes:
        name: Name in the table.
        title: A few words.
        paper: What the paper says.
        released: What the released code does.
        headline: What it is judged by: a quantity, and of which images.
        run: Its runs; None for a fact about data.
        reference: The version that others are compared with.
        other: The version the headline compares.
        charted: The accuracy that the chart shows; empty for none.
    """

    name: str
    title: str
    paper: str
    released: str
    headline: tuple[str, str]
    run: Callable[[Lab], pd.DataFrame] | None
    reference: str = "paper"
    other: str = "released"
    charted: str = ACCURACY


def diagnostics(lab: Lab) -> pd.DataFrame:
    """Minority over majority gradient norm and top eigenvalue: exact on train, exact on test, released on test."""
    networks = lab.teacher.networks() if len(lab.seeds) > 1 else [lab.teacher]
    released = {"estimator": "per_batch", "batch_size": DIAGNOSTIC_BATCH}
    ways = {"paper": ("train", {}), "exact, on test": ("test", {}), "released": ("test", released)}
    parts = []
    for version, (split, options) in ways.items():
        found: dict[str, list[float]] = {"gradient norm": [], "top eigenvalue": []}
        for network, data in zip(networks, lab.sets, strict=True):
            rare = np.array([role == "minority" for role in data.roles])
            norms = np.array([row.norm for row in group_gradient_norms(network, data, split, **options)])
            tops = np.array([row.value for row in top_eigenvalues(network, data, split, tol=1e-2, **options)])
            for name, values in (("gradient norm", norms), ("top eigenvalue", tops)):
                found[name].append(values[rare].mean() / values[~rare].mean())
        for name, values in found.items():
            parts.append(lab.rows(version, f"{name}, minority / majority", "times", {"all": values}))
    return pd.concat(parts)


SWITCHES = {
    one.name: one
    for one in (
        Switch(
            "penalty",
            "Penalty's gradient",
            "The penalty of Algorithm 1 is part of the loss",
            "It is copied out of the graph: no gradient",
            (ACCURACY, "minority"),
            runs.penalty,
        ),
        Switch(
            "kd_weight",
            "KD over classes",
            "KD is averaged over the batch",
            "In the mitigated run over batch and classes: KD / C",
            (ACCURACY, "minority"),
            runs.kd_weight,
        ),
        Switch(
            "multipliers",
            "Multipliers' step",
            "Grow once an epoch by mu times the violation over the training set",
            "By mu times the sum of the batches' violations",
            ("last multiplier, batches of 32", "all"),
            runs.multipliers,
            charted=f"{ACCURACY}, batches of 32",
        ),
        Switch(
            "constrained",
            "Constrained groups",
            "All",
            "The first five of ten: on CIFAR-10 the majority",
            (ACCURACY, "minority"),
            runs.constrained,
        ),
        Switch(
            "sided",
            "One-sided violation",
            "Groups better than average are held back too",
            "The same; the other version here is one-sided",
            (ACCURACY, "majority"),
            runs.sided,
            other="one-sided",
        ),
        Switch(
            "deepreduce_objectives",
            "DeepReDuce's loss",
            "Not said; its authors: 0.1 CE + 0.9 KD, T = 4",
            "0.5 CE + 0.5 KD, T = 1",
            (ACCURACY, "minority"),
            thin.deepreduce_objectives,
            reference="authors",
        ),
        Switch(
            "ages",
            "UTKFace age groups",
            "4 groups, ages 0-1 dropped",
            "5 groups, ages 0-1 kept",
            ("UTKFace images used", "all"),
            None,
            charted="",
        ),
        Switch(
            "test_size",
            "Test set thinned too",
            "Not said",
            "CIFAR-10's test is thinned like its training set",
            ("accuracy drop by linearization", "all"),
            runs.thinned_test,
            reference="balanced",
            charted="",
        ),
        Switch(
            "mismatch",
            "Other data to linearize on",
            "SVHN with its natural imbalance throughout",
            "Base on all of SVHN, linearization on 90 % of digits 0-4 and 30 % of 5-9",
            ("accuracy drop", "minority"),
            runs.mismatch,
        ),
        Switch(
            "augmentation",
            "No augmentation",
            "Not said; here: random shifts",
            "None",
            ("accuracy drop", "minority"),
            runs.augmentation,
            reference="shifts",
        ),
        Switch(
            "leak",
            "Two seeds, two splits",
            "Not said; here: one seed for original and linearized network",
            "Defaults 1 and 42, and the seed decides the split",
            (ACCURACY, "all"),
            runs.leak,
        ),
        Switch(
            "checkpoint",
            "Best test epoch kept",
            "Not said; here: the last epoch",
            "The epoch with the best test accuracy",
            ("accuracy on the test that is reported", "all"),
            runs.checkpoint,
            reference="last",
            charted="accuracy on the test that is reported",
        ),
        Switch(
            "initialisation",
            "Weights at the start",
            "Not said; here: torch's own",
            "Kaiming-normal, 2.4 times as large",
            (ACCURACY, "minority"),
            thin.initialisation,
            reference="torch",
        ),
        Switch(
            "threshold",
            "Masks made binary",
            "Not said",
            "Batch normalization keeps the statistics of the relaxed network",
            ("accuracy before fine-tuning", "all"),
            thin.threshold,
            reference="statistics updated",
        ),
        Switch(
            "exact_budget",
            "Budget checked by epoch",
            "Budgets are kept",
            "The mask is taken at the first epoch's end within the budget",
            ("ReLUs kept", "all"),
            runs.exact_budget,
            reference="exact",
        ),
        Switch(
            "diagnostics",
            "Diagnostics by batch",
            "Norm and eigenvalue of the group's risk",
            "Mean (maximum) over batches of the batch's, on the test set",
            ("gradient norm, minority / majority", "all"),
            diagnostics,
            charted="",
        ),
    )
}
"""By name, in the order of the page."""
