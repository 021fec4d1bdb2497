"""What limits the answer of an audit: its data, its settings, and what no audit can say."""

from linfair.audit.findings import besides, drift, failed, rows_of, share
from linfair.audit.run import Audit
from linfair.data.notes import notes
from linfair.mitigation import PLAIN

FEW = 30
"""Groups with fewer test images are named in the caveats."""


def caveats(audit: Audit) -> list[tuple[str, str]]:
    """What limits the answer, each with a title of a few words."""
    subject, plan, data = audit.subject, audit.plan, audit.subject.data
    before = rows_of(audit, "original", 1.0)
    found = [("Before anything else", text) for text in subject.warnings]
    broken = [share(budget) for budget in plan.budgets if failed(audit, PLAIN, budget)]
    if broken:
        text = f"At {', '.join(broken)} the linearized network is not measurably better than one fixed answer. "
        found.append(
            ("Failed budgets", text + "Its rows show a method that failed at these settings, not a fairness finding.")
        )
    if plan.profile == "smoke":
        found.append(
            ("Profile smoke", "Training was cut to seconds to see that everything runs: the numbers mean nothing.")
        )
    elif plan.profile != "paper":
        text = f"Trained in profile {plan.profile}, shorter than the paper's; more training can shrink the drops."
        found.append((f"Profile {plan.profile}", text))
    if subject.drawn and not subject.own:
        text = (
            f"linfair drew validation and test images itself (seed {subject.header.seed}). If your network was trained "
            "on some of them, its accuracy with all ReLUs is too good and every drop too large. Give labels.csv a "
            "column split (train, val, test) with the split it was trained on."
        )
        found.append(("Whose test images", text))
    elif not subject.own and "val" in data.provenance.get("drawn", ("val",)):
        text = "They come out of the data's training part, so your network may have been trained on them: repairs are "
        found.append(("Validation images", text + "chosen on images it may know. The test images are the data's own."))
    if not subject.own and "mean" not in dict(subject.header.data_options) and data.mean:
        scale = " and ".join(", ".join(f"{v:.3f}" for v in values) for values in (data.mean, data.std))
        text = f"Images were scaled by the training images' own mean and deviation ({scale}). "
        found.append(("Preparation", text + "If your network was trained with other numbers, give --mean and --std."))
    found += [
        (
            "One seed",
            "One split, one mask, one fine-tuning. Another seed gives other drops, often by several points; "
            "run again with --seed 1, 2, ... before you rely on a difference.",
        ),
        (
            "Intervals",
            "Each 95 % interval is about the test images: what would change with other images of the same "
            "kind. It holds the trained networks fixed and knows nothing of other seeds. A drop's interval treats the "
            "two accuracies as independent although they are on the same images, so it is rather too wide.",
        ),
        (
            "Worst of several",
            f"The group that pays most is picked among {len(before)} after looking, so its drop is "
            "flattered by chance: expect less of it on new images.",
        ),
        ("Groups", _groups_text(audit)),
    ]
    small = before[before["n"] < FEW]
    if len(small):
        listed = ", ".join(f"{row.group_name} ({row.n})" for row in small.itertuples())
        found.append(("Small groups", f"Fewer than {FEW} test images: {listed}. Their numbers are rough."))
    found.append(("Control", drift(audit)))
    if audit.mitigated is not None:
        n = len(data.splits["val"])
        text = f"Repairs were compared on {n:,} validation images; the test images were looked at once, afterwards."
        found.append(("Selection", " ".join([text, *(f"{one}." for one in audit.mitigated.warnings)])))
    found += [
        (
            "Cause",
            "Gradient norms, margins and eigenvalues go along with losses. That is no proof of cause, and "
            "changing them need not change the losses.",
        ),
        (
            "Cost",
            "Seconds follow a model (Delphi, constants measured for ResNet18 on 32x32 images, linear layers "
            "scaled by their multiply-accumulates). ReLU counts and bytes carry over; read seconds as an order of "
            f"magnitude. {besides(audit)}",
        ),
        (
            "What this is not",
            "Accuracy per group on one data set is no legal assessment of fairness or "
            "discrimination, and says nothing about how errors harm people.",
        ),
    ]
    skipped = data.provenance.get("skipped") or []
    if skipped:
        found.append(("Skipped files", f"{len(skipped)} lines of labels.csv could not be used and are not in here."))
    others = notes(data.provenance | {"skipped": []})
    return found + [("The images", "; ".join(others) + ".")] * bool(others)


def _groups_text(audit: Audit) -> str:
    data = audit.subject.data
    part = data.splits[audit.split]
    options = data.provenance.get("options") or {}
    if bool((part.a == part.y).all()) and data.group_names == data.label_names:
        return (
            "Groups are the labels themselves: a group's accuracy is how often images of that label are recognised. "
            "For groups of people or circumstances name another column with --group."
        )
    named = str(options.get("group", "")).split(",")
    column = f"the column{'s' * (len(named) > 1)} {' and '.join(named)} of labels.csv"
    column = column if "group" in options else "the data's own groups"
    return (
        f"Groups are {column}, nothing finer: within a group, some may pay more than others, and what is not recorded "
        "cannot be seen."
    )
