"""The page on speed: its numbers, kept in one table, and the generated parts that show them.

python -m linfair_book.speedpage measure    # minutes on one core: book/results/performance.parquet, then the page
python -m linfair_book.speedpage fill       # the page alone, book/performance.md, from that table
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from linfair.paths import whole
from linfair.training import threads
from linfair_book.build import repository
from linfair_book.speed import STEPS, arithmetic, ladder, side_by_side, stages, table_of

TABLE = Path("book/results/performance.parquet")
PAGE = Path("book/performance.md")


def blocks(table: pd.DataFrame) -> dict[str, str]:
    """The generated parts of the page, by name: tables in Markdown, every number from the table of numbers.

    Args:
        table: From `table_of`.
    """
    value = dict(zip(table["key"], table["value"], strict=True))
    about = dict(zip(table["key"], table["settings"], strict=True))
    where = dict(zip(table["key"], table["device"], strict=True))

    def names(start: str, end: str) -> list[str]:
        return [
            key.removeprefix(start).removesuffix(end) for key in value if key.startswith(start) and key.endswith(end)
        ]

    def evidence(key: str) -> str:
        row = table[table["key"] == key].iloc[0]
        counted = "by arithmetic" if row["of"] == "arithmetic" else f"{row['n']} {row['of']}"
        return f"*{about[key]} · {counted} · {where[key]} · torch {row['torch']} · linfair {row['linfair']}*"

    made = {}
    shown = [
        [name, *(f"{value[f'cell/{profile}/{name}/{what}']:.{digits}f}" for profile, what, digits in _CELL)]
        for name in names("cell/paper/", "/by bytes")
    ]
    units = {"operations": "PFLOP", "by operations": "seconds by operations", "by bytes": "seconds by bytes"}
    heads = ["stage", *(f"`{profile}`, {units[what]}" for profile, what, _ in _CELL)]
    made["cell"] = _markdown(heads, shown) + "\n\n" + evidence("cell/paper/all/by bytes")
    taken = [
        [name, f"{value[f'stage/{name}/seconds']:.1f}", *_share(value, f"stage/{name}")]
        for name in names("stage/", "/seconds")
    ]
    made["stages"] = _markdown(["stage", "seconds", "floor (s)", "share of the floor"], taken)
    made["stages"] += "\n\n" + evidence("stage/base/seconds")
    climbed = [
        [
            name,
            STEPS[name][0] or "",
            f"{value[f'ladder/{name}/seconds']:.2f}",
            f"{value[f'ladder/{name}/gain']:.2f}" if STEPS[name][0] else "",
            *_share(value, f"ladder/{name}"),
        ]
        for name in names("ladder/", "/seconds")
    ]
    made["ladder"] = _markdown(["step", "on top of", "seconds", "gain", "floor (s)", "share of the floor"], climbed)
    made["ladder"] += "\n\n" + evidence("ladder/bf16/seconds")
    made["ceilings"] = (
        f"Here: {value['ceiling/float32/operations']:.0f} GFLOP/s in float32, "
        f"{value['ceiling/bf16/operations']:.0f} GFLOP/s in bf16, {value['ceiling/float32/bytes']:.0f} GB/s "
        f"({where['ceiling/bf16/bytes']}, measured in the process that measured the steps)."
    )
    made["ensemble"] = (
        f"One by one {value['ensemble/one by one/seconds']:.2f} s, side by side "
        f"{value['ensemble/ensemble/seconds']:.2f} s: {value['ensemble/gain']:.1f} times as fast.\n\n"
        + evidence("ensemble/gain")
    )
    grids = [
        [name.replace("/", ", "), *(f"{value[f'grid/{profile}/{name}/hours']:.2f}" for profile in ("fast", "paper"))]
        for name in names("grid/paper/", "/hours")
    ]
    made["grid"] = _markdown(
        ["data, network, method", "`fast`, GPU-hours at least", "`paper`, GPU-hours at least"], grids
    )
    made["grid"] += "\n\n" + evidence("grid/paper/all/hours")
    return made


_CELL = tuple(
    (profile, what, digits)
    for profile in ("fast", "paper")
    for what, digits in (("operations", 1), ("by operations", 0), ("by bytes", 0))
)


def _share(value: Mapping[str, float], name: str) -> list[str]:
    floor = value.get(f"{name}/floor")
    return ["", ""] if floor is None else [f"{floor:.2g}", f"{100 * floor / value[f'{name}/seconds']:.0f} %"]


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] + ["--:"] * (len(heads) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def fill(text: str, made: Mapping[str, str]) -> str:
    r"""Put generated parts between `% begin NAME` and `% end NAME`.

    Args:
        text: The page.
        made: The parts by name; each must have its place, once.

    Raises:
        ValueError: If a part has no place.

    >>> fill("% begin a\nold\n% end a\n", {"a": "new"})
    '% begin a\n\nnew\n\n% end a\n'
    """
    for name, part in made.items():
        text, count = re.subn(
            rf"(% begin {name}\n).*?(% end {name}\n)",
            lambda found, part=part: f"{found[1]}\n{part}\n\n{found[2]}",
            text,
            flags=re.DOTALL,
        )
        if count != 1:
            raise ValueError(
                f"the page has {count} places for {name!r}; write `% begin {name}` and `% end {name}` once"
            )
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, or take what was measured; then fill the page."""
    parser = argparse.ArgumentParser(prog="python -m linfair_book.speedpage", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("measure", "fill"))
    root = repository()
    if parser.parse_args(arguments).what == "measure":
        with threads(1):
            measured = table_of([*ladder(), *side_by_side(), *stages()])
    else:
        measured = pd.read_parquet(root / TABLE)
        measured = measured[measured["of"] != "arithmetic"]
    table = pd.concat([measured, table_of(arithmetic(root))], ignore_index=True)
    with whole(root / TABLE) as part:
        table.to_parquet(part, index=False)
    print(root / TABLE)
    page = fill((root / PAGE).read_text(encoding="utf-8"), blocks(table))
    with whole(root / PAGE) as part:
        part.write_text(page, encoding="utf-8")
    print(root / PAGE)


if __name__ == "__main__":
    main()
