"""Notebook 14: the repairs of Tran et al. (NeurIPS 2022) before pruning, after it, and both; their tables."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from linfair.study.arms import base_of, canonical
from linfair.study.tables import over_seeds
from linfair_book import tables
from linfair_book.averages import paired, role_accuracy, violations
from linfair_book.why import role_ratios

PLAIN = "plain(kd=0.0)"
BASE = "lagrangian"
"""Under which a fair original network is trained, without distillation: Eq. 8 with the paper's step."""
FULL = canonical("equal_gradients(eigenvalues=False, kd=0.0)")

SHORT = {FULL: "full, norms", "balanced_sampling(kd=0.0)": "balanced"}
"""Arms in a word, for columns of tables."""
ORIGINALS = {"": "cross entropy", base_of(BASE): "Eq. 8"}
"""What original networks are trained on, in words."""


TIMES = ("No mitigation", "Fair Bf", "Fair Aft", "Fair Both")
"""When a mitigation acts, in the words of Tran et al. (NeurIPS 2022): never, before the reduction, after it, both."""


def before_and_after(
    table: pd.DataFrame, mitigation: str, *, base: str = "", plain: str = "plain", partly: bool = False
) -> pd.DataFrame:
    """Rows of `plain` and of a mitigation from both originals of a seed, named as `TIMES`; `partly`: what is there."""
    fair, found = base_of(base or mitigation), []
    arms = {plain: TIMES[:2], canonical(mitigation): TIMES[2:]}
    wanted = {(one, arm): names[one != ""] for arm, names in arms.items() for one in ("", fair)}
    for (one, arm), name in wanted.items():
        part = table[(table["base"].fillna("") == one) & (table["arm"] == arm)]
        if part.empty and not partly:
            whose = f"of an original network trained {f'under {one}' if one else 'on cross entropy'}"
            raise ValueError(f"{name} has no rows: they are those of arm {arm!r} {whose}")
        found.append(part.assign(arm=name))
    return pd.concat(found, ignore_index=True)


def relaxed(step: float) -> str:
    """The arm of Eq. 8 with that step of the multipliers."""
    return canonical(f"lagrangian(kd=0.0, mu={step!r}, clip=5.0)")


def compute(seeds: Sequence[int], *, step: float, **how: object) -> pd.DataFrame:
    """Every repair after pruning, and the relaxed one of the original network: rows of `study.run`; as `grid`."""
    how = {"data": "digits", "network": "mlp", "method": "prune_magnitude", "curvature": "none", "seeds": seeds} | how
    parts = [
        tables.ran(("original", PLAIN, relaxed(step), *more), base_mitigation=base, **how).assign(base=base_of(base))
        for base, more in (("", (FULL, "balanced_sampling(kd=0.0)")), (BASE, ()))
    ]
    return pd.concat(parts, ignore_index=True)


def committed(step: float) -> pd.DataFrame:
    """The same on digits from the rows that come with the book, those of the study figure `pruning`."""
    rows = tables.committed("digits_mlp_pruning")
    rows = rows.assign(base=rows["base"].fillna(""))
    return rows[rows["arm"].isin(("original", PLAIN, relaxed(step), FULL, "balanced_sampling(kd=0.0)"))]


def levels(times: pd.DataFrame, *, split: str) -> pd.DataFrame:
    """Accuracy in % of both roles under each of `TIMES`, mean over seeds."""
    means = role_accuracy(times, ["arm", "budget", "group_name"], split=split)
    return means.sort_values("arm", key=lambda arms: arms.map(TIMES.index), kind="stable", ignore_index=True)


def changes(times: pd.DataFrame, *, split: str) -> pd.DataFrame:
    """Overall accuracy and both violations against no mitigation, paired over seeds, in points and 0.01 nats."""
    named = {"overall": "overall", "accuracy_violation": "max - min accuracy", "excess_violation": "max - min R(a)"}
    rows = violations(times[times["split"] == split].drop(columns=["base", "teacher"], errors="ignore"))
    long = rows.melt(["arm", "budget", "seed"], list(named), "of", "value").replace({"of": named})
    wide = 100 * long.pivot(index=["of", "budget", "seed"], columns="arm", values="value")
    arms = [arm for arm in TIMES[1:] if arm in wide]
    parts = [(wide[arm] - wide[TIMES[0]]).rename("value").reset_index().assign(arm=arm) for arm in arms]
    return over_seeds(pd.concat(parts), "value", ["of", "arm", "budget"])


def by_group(times: pd.DataFrame, *, split: str) -> pd.DataFrame:
    """Accuracy of each group against no mitigation, paired over seeds, in points, the largest group first."""
    there = set(times["arm"])
    each = paired(times, arm=[arm for arm in TIMES[1:] if arm in there], against=TIMES[0], split=split)
    each = each.sort_values(["n_train", "budget"], ascending=False)
    return over_seeds(each, "value", ["group_name", "arm", "budget"])


def multipliers(table: pd.DataFrame) -> pd.DataFrame:
    """The largest multiplier of a group after retraining under Eq. 8, by original network and budget, over seeds."""
    rows = table[table["arm"].str.startswith(BASE)]
    largest = rows.groupby(["base", "budget", "seed"], as_index=False)["multiplier"].max()
    named = largest.replace({"base": ORIGINALS}).rename(columns={"base": "original trained on"})
    named = named.sort_values("budget", ascending=False, kind="stable")
    return over_seeds(named, "multiplier", ["original trained on", "budget"])


def seconds(table: pd.DataFrame) -> pd.DataFrame:
    """Seconds of retraining by arm, and how many times those of plain retraining."""
    spent = table[table["arm"] != "original"].drop_duplicates(["arm", "seconds_finetune"])
    found = spent.groupby("arm", sort=False)["seconds_finetune"].sum()
    return pd.DataFrame({"seconds": found, "times plain": found / found[PLAIN]}).reset_index()


def balance(table: pd.DataFrame) -> pd.DataFrame:
    """Minority over majority of gradient norm, margin and accuracy in both original networks, geometric means."""
    rows, parts = table[table["arm"] == "original"], []
    for name, split in (("gradient_norm", "train"), ("margin", "test"), ("accuracy", "test")):
        parts.append(role_ratios(rows, name, split=split, by="base").assign(quantity=name.replace("_", " ")))
    found = pd.concat(parts).replace({"base": ORIGINALS}).rename(columns={"base": "trained on"})
    return found[["quantity", "trained on", "n_seeds", "mean", "low", "high"]]


_TABLE_1 = {
    "UTKFace age": "856 128 145 319 331 342 181 334 512 / 810 096 141 284 385 324 227 257 533",
    "UTKFace gender": "830 876 / 868 845",
    "SVHN": "864 911 869 819 887 784 840 877 805 856 / 824 910 775 726 827 752 747 789 713 755",
    "MNIST": "998 996 993 998 994 991 991 993 992 985 / 994 988 989 986 987 979 981 988 969 994",
}
"""Class-wise accuracies in thousandths under the full and the relaxed form, as printed."""
_TABLE_2 = {
    "No mitigation": ((0.546, 0.545, 0.529, 0.559), (0.179, 0.186, 0.152, 0.134)),
    "Fair Bf": ((0.539, 0.557, 0.529, 0.540), (0.189, 0.190, 0.174, 0.238)),
    "Fair Aft": ((0.538, 0.532, 0.497, 0.472), (0.172, 0.161, 0.163, 0.05)),
    "Fair Both": ((0.525, 0.541, 0.508, 0.484), (0.170, 0.144, 0.156, 0.073)),
}
"""Overall accuracies and violations at 30, 50, 70, 90 % pruned, as printed."""


def table_1() -> pd.DataFrame:
    """Table 1 of Tran et al.: max - min group accuracy of both forms, and whether the full one is fairer."""
    lines = []
    for data, both in _TABLE_1.items():
        full, short = (float(np.ptp(np.array(form.split(), float) / 1000)) for form in both.split(" / "))
        lines.append({"data": data, "full": full, "relaxed": short, "full is fairer": "yes" if full < short else "no"})
    return pd.DataFrame(lines)


def table_2() -> pd.DataFrame:
    """Table 2 of Tran et al. against its own row without mitigation."""
    accuracy, violation = map(np.array, _TABLE_2["No mitigation"])
    lines = []
    for name, (right, gap) in list(_TABLE_2.items())[1:]:
        fairer, change = int((np.array(gap) < violation).sum()), 100 * (np.array(right) - accuracy)
        line = {"method": name, "fairer at": f"{fairer} of 4"}
        lines.append(line | {"points of accuracy": ", ".join(f"{one:+.1f}".replace("+0.0", "0.0") for one in change)})
    return pd.DataFrame(lines)


def printed() -> dict[str, float]:
    """What both printed tables say of the paper's sentences, by the keys of the claims page."""
    gap = {name: np.array(values) for name, (_, values) in _TABLE_2.items()}
    rows = {f"Table 1 full less relaxed on {row.data}": row.full - row.relaxed for row in table_1().itertuples()}
    for one, other in [(one, other) for one in gap for other in list(gap)[:2] if one not in ("No mitigation", other)]:
        rows[f"Table 2 {one} fairer than {other}"] = float((gap[one] < gap[other]).sum())
    lead = gap["Fair Bf"] - gap["Fair Aft"]
    rows |= {
        "Table 2 lead of Aft at 90 less at 30": float(lead[3] - lead[0]),
        "experiments whose group is not the label": 1.0,
    }
    return {name.lower().replace(" ", "-"): value for name, value in rows.items()}
