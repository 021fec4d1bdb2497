"""What a data set's provenance says of the images it was made from, in short lines."""

from collections.abc import Mapping, Sequence

from linfair.data.groups import some

KINDS = {
    "missing": "with a missing value",
    "conflict": "listed with conflicting values",
    "unreadable": "not readable",
    "identical": "identical to an image of another split",
    "other": "for another reason",
}
"""Why a file was skipped, by `Skipped.kind`."""


def notes(known: Mapping[str, object]) -> list[str]:
    """A line for everything that a reader of results should know of the images.

    Args:
        known: `GroupedData.provenance`.

    >>> notes({"skipped": [("a.png", "no label")], "skipped_kinds": {"missing": 1}, "rotated": 2})
    ['files skipped: 1 (1 with a missing value)', 'images turned upright by their EXIF orientation: 2']
    """
    found = [skipped_line(known)] if known.get("skipped") else []
    if known.get("duplicates"):
        found.append(f"files listed more than once: {len(known['duplicates'])}, each counted once")
    if known.get("found_as"):
        listed = some([f"{file} is {there}" for file, there in known["found_as"]])
        found.append(f"files found under another spelling: {len(known['found_as'])} ({listed})")
    if known.get("copies"):
        differ = known.get("copies_differ", 0)
        but = f" ({differ} with another label or group)" * bool(differ)
        found.append(f"images identical to another one: {known['copies']}{but}, kept in its split")
    if known.get("rotated"):
        found.append(f"images turned upright by their EXIF orientation: {known['rotated']}")
    if known.get("merged"):
        found.append(f"groups merged: {'; '.join(known['merged'])}")
    if known.get("left_out"):
        images = sum(n for _, n in known["left_out"])
        listed = some([f"{name} {n}" for name, n in known["left_out"]])
        found.append(f"groups left out for having too few images: {len(known['left_out'])}, {images} images ({listed})")
    if known.get("untested"):
        found.append(f"labels without a test image: {some(known['untested'])}")
    thin: dict[str, list[str]] = {}
    for split, groups in known.get("drawn", {}).items():
        for group in groups:
            thin.setdefault(group, []).append(split)
    if thin:
        listed = some([f"{group} ({', '.join(splits)})" for group, splits in thin.items()])
        found.append(f"drawn in proportion to group alone, having too few images of each label: {listed}")
    found += known.get("lookalikes", [])
    return found


def skipped_line(known: Mapping[str, object]) -> str:
    """How many files were skipped, and of which kind."""
    kinds = known.get("skipped_kinds", {})
    why = ", ".join(f"{kinds[kind]} {text}" for kind, text in KINDS.items() if kind in kinds)
    return f"files skipped: {len(known.get('skipped', []))}" + f" ({why})" * bool(why)


def listed(files: Sequence[Sequence[str]], most: int) -> list[str]:
    """A line for each file with its reason; where more than `most` have one reason, one line for all of them.

    >>> listed([("a.png", "empty"), ("b.png", "gone"), ("c.png", "gone")], 1)
    ['a.png: empty', 'gone: 2 files, b.png, c.png']
    """
    reasons: dict[str, list[str]] = {}
    for file, why in files:
        reasons.setdefault(why, []).append(file)
    lines: list[str] = []
    for why, names in reasons.items():
        many = len(names) > most
        lines += [f"{why}: {len(names)} files, {some(names)}"] if many else [f"{name}: {why}" for name in names]
    return lines


def split_line(known: Mapping[str, object]) -> str:
    """Which splits were drawn, and which the source has.

    >>> split_line({"drawn": {"val": []}, "options": {"label": "kind", "group": "site"}})
    'split: train and test as given; val drawn in proportion to kind and site'
    """
    drawn, options = list(known["drawn"]), known["options"]
    given = [split for split in ("val", "test") if split not in drawn]
    by = " and ".join(dict.fromkeys((options["label"], options["group"])))
    parts = [f"{' and '.join(['train', *given])} as given"] if given else []
    parts += [f"{' and '.join(sorted(drawn))} drawn in proportion to {by}"] if drawn else []
    return f"split: {'; '.join(parts)}"
