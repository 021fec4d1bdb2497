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
    """A line for everything that a reader of results should know of the images, from `GroupedData.provenance`."""
    again, spelled, left_out = (known.get(name, ()) for name in ("duplicates", "found_as", "left_out"))
    differ = f" ({known['copies_differ']} with another label or group)" if known.get("copies_differ") else ""
    drawn: dict[str, list[str]] = {}
    for split, groups in known.get("drawn", {}).items():
        for group in groups:
            drawn.setdefault(group, []).append(split)
    lines = {
        "skipped": skipped_line(known),
        "duplicates": f"files listed more than once: {len(again)}, each counted once",
        "found_as": f"files found under another spelling: {len(spelled)} "
        f"({some([f'{file} is {there}' for file, there in spelled])})",
        "copies": f"images identical to another one: {known.get('copies')}{differ}, kept in its split",
        "rotated": f"images turned upright by their EXIF orientation: {known.get('rotated')}",
        "merged": f"groups merged: {'; '.join(known.get('merged', ()))}",
        "left_out": f"groups left out for having too few images: {len(left_out)}, {sum(n for _, n in left_out)} images "
        f"({some([f'{name} {n}' for name, n in left_out])})",
        "untested": f"labels without a test image: {some(known.get('untested', ()))}",
    }
    found = [line for name, line in lines.items() if known.get(name)]
    if drawn:
        thin = some([f"{group} ({', '.join(splits)})" for group, splits in drawn.items()])
        found.append(f"drawn in proportion to group alone, because there are too few images of each label: {thin}")
    return found + list(known.get("lookalikes", []))


def skipped_line(known: Mapping[str, object]) -> str:
    """How many files were skipped, and of which kind."""
    kinds = known.get("skipped_kinds", {})
    why = ", ".join(f"{kinds[kind]} {text}" for kind, text in KINDS.items() if kind in kinds)
    return f"files skipped: {len(known.get('skipped', []))}" + f" ({why})" * bool(why)


def listed(files: Sequence[Sequence[str]], most: int) -> list[str]:
    """A line for each file with its reason; where more than `most` have one reason, one line for all of them."""
    reasons: dict[str, list[str]] = {}
    for file, why in files:
        reasons.setdefault(why, []).append(file)
    lines: list[str] = []
    for why, names in reasons.items():
        many = len(names) > most
        lines += [f"{why}: {len(names)} files, {some(names)}"] if many else [f"{name}: {why}" for name in names]
    return lines


def split_line(known: Mapping[str, object]) -> str:
    """Which splits were drawn, and which the source has."""
    drawn, options = list(known["drawn"]), known["options"]
    given = [split for split in ("val", "test") if split not in drawn]
    by = " and ".join(dict.fromkeys((options["label"], options["group"])))
    parts = [f"{' and '.join(['train', *given])} as given"] if given else []
    parts += [f"{' and '.join(sorted(drawn))} drawn in proportion to {by}"] if drawn else []
    return f"split: {'; '.join(parts)}"
