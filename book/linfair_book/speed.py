"""The page on speed from the committed numbers; `tests/benchmarks` measures them, `floors.py` there computes floors."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import pandas as pd

from linfair.plots.style import evidence
from linfair.study.compare import equivalent
from linfair_book.tables import RESULTS

TABLE = RESULTS / "performance.parquet"
PRECISION = RESULTS / "digits_resnet18_precision.parquet"
MARGIN = 1.0  # points within which bf16 must lie, stated before the cells of `PRECISION` were computed
ARITHMETIC = "arithmetic"
WAYS = ("float32", "bf16")


def blocks(table: pd.DataFrame) -> dict[str, str]:
    """The generated parts of the page, by name: every number and all evidence is from the rows."""
    rows = table.set_index("key")
    parts = rows.index.to_series().str.extract(r"^(?P<part>[^/]+)/(?:(?P<name>.+)/)?(?P<what>[^/]+)$").fillna("")

    def wide(part: str) -> pd.DataFrame:
        """The numbers of a part: a line for each name, a column for each kind of number."""
        at = parts[parts["part"] == part]
        values = rows.loc[at.index, "value"].set_axis(pd.MultiIndex.from_frame(at[["name", "what"]]))
        return values.unstack(sort=False)

    def shown(values: pd.Series, digits: int = 2) -> pd.Series:
        return values.map(f"{{:.{digits}f}}".format).where(values.notna(), "")

    def timed(found: pd.DataFrame, digits: int) -> dict[str, pd.Series]:
        shares = shown(100 * found["floor"] / found["seconds"], 0).replace(r"(.+)", r"\1 %", regex=True)
        floors = found["floor"].map("{:#.2g}".format).where(found["floor"].notna(), "")
        return {"seconds": shown(found["seconds"], digits), "floor (s)": floors, "floor, of the seconds": shares}

    def said(key: str) -> str:
        row = rows.loc[key]
        counted = {ARITHMETIC: "by arithmetic", "best of five": "best of five"}.get(
            row["of"], f"{row['n']} {row['of']}"
        )
        return f"{row['settings']} · {counted} · {row['device']} · torch {row['torch']} · linfair {row['linfair']}"

    def markdown(first: str, columns: Mapping[str, pd.Series], key: str) -> str:
        return f"{_markdown(first, columns)}\n\n*{said(key)}*"

    def of_profiles(found: pd.DataFrame, kinds: Mapping[str, tuple[int, str]]) -> dict[str, pd.Series]:
        columns = {}
        for profile in ("fast", "paper"):
            own = found[found.index.str.startswith(f"{profile}/")]
            own = own.set_axis(own.index.str.removeprefix(f"{profile}/").str.replace("/", ", "))
            columns |= {f"`{profile}`, {unit}": shown(own[kind], digits) for kind, (digits, unit) in kinds.items()}
        return columns

    kinds = {"operations": (1, "PFLOP")}
    kinds |= {f"by {what}": (0, f"seconds by {what}") for what in ("operations", "bytes")}
    hours = {"hours": (2, "GPU-hours at least")}
    ceiling, step, ladder, beside = map(wide, ("ceiling", "step", "ladder", "ensemble"))
    logits, gpu, replay = map(wide, ("logits", "gpu", "replay"))
    gained = {f"{way} (ms)": shown(replay[way], 1) for way in ("launched", "replayed")}
    rates = {"GFLOP/s in a product": ceiling["operations"], "GB/s in a copy": ceiling["bytes"]}
    moved = {"largest logit": "range", "moves by": "moved", "moves at most by": "largest"}
    differ = {"decisions that differ": shown(logits["decisions"], 0)}
    error = gpu["error"].dropna()
    errors = {
        "relative error of logits": error.map("{:.1g}".format),
        "decisions that differ": shown(gpu.loc[error.index, "decisions"], 0),
    }
    ways = {way: step["ratio"].filter(regex=f"/{way}$").rename(lambda name: name.partition("/")[0]) for way in WAYS}
    base = {way: pd.Series({"base, in seconds": f"{step.loc[f'base/{way}', 'seconds']:.3f}"}) for way in WAYS}
    both = beside["seconds"].dropna()
    gain = pd.Series({"one by one": "", "ensemble": f"{beside.loc['', 'gain']:.1f}"})
    return {
        "cell": markdown("stage", of_profiles(wide("cell"), kinds), "cell/paper/all/by bytes"),
        "ceilings": markdown("", {name: shown(rate, 0) for name, rate in rates.items()}, "ceiling/bf16/bytes"),
        "stages": markdown("stage", timed(wide("stage"), 1), "stage/base/seconds"),
        "steps": markdown(
            "step",
            {way: pd.concat([base[way], shown(ratios)]) for way, ratios in ways.items()},
            "step/base/float32/seconds",
        ),
        "logits": markdown(
            "trained in",
            {name: logits[kind].map("{:.2g}".format) for name, kind in moved.items()} | differ,
            "logits/bf16/moved",
        ),
        "ladder": markdown("step", {"gain": shown(ladder["gain"]), **timed(ladder, 2)}, "ladder/bf16/seconds"),
        "ensemble": markdown("ten networks", {"seconds": shown(both), "times as fast": gain}, "ensemble/gain"),
        "gpu": markdown("step", timed(gpu[gpu["seconds"].notna()], 3), "gpu/full width/seconds"),
        "replay": markdown("a step of", gained, "replay/distillation/replayed"),
        "gpu errors": markdown("precision", errors, f"gpu/{error.index[0]}/error"),
        "grid": markdown("data, network, method", of_profiles(wide("grid"), hours), "grid/paper/all/hours"),
    }


def precision_part(rows: pd.DataFrame) -> str:
    """bf16 beside float32, seeds paired, from `PRECISION`: all images, the groups, and what they show."""
    found, columns = equivalent(rows, "bf16", "float32", column="precision", margin=MARGIN), {}
    whole = found.rows["group_name"] == "all"
    for row in found.rows[whole].itertuples():
        groups = found.rows[~whole & (found.rows["arm"] == row.arm) & (found.rows["budget"] == row.budget)]
        columns[row.arm if row.budget == 1 else f"{row.arm} at {100 * row.budget:g} %"] = {
            "all images": f"{row.mean:z.2f} [{row.low:z.2f}, {row.high:z.2f}]",
            "groups within the margin": f"{groups['lies_within'].sum()} of {len(groups)}",
            "farthest end of a group's interval": f"{groups[['low', 'high']].abs().max(axis=None):.1f}",
            "equivalent": "yes" if replace(found, rows=groups).shown else "not shown",
        }
    arms = rows.drop_duplicates(["precision", "teacher", "arm"])
    about = {name: ", ".join(rows[name].unique()) for name in ("device", "torch", "linfair")}
    n = f"{rows.loc[rows['group_name'] == 'all', 'n'].max()} test images a seed"
    line = evidence(seeds=rows["seed"].nunique(), n=n, seconds=arms["seconds"].sum(), **about)
    table = _markdown("bf16 minus float32 (points)", pd.DataFrame(columns).T.to_dict("series"))
    return f"{table}\n\n*{line}*"


def _markdown(first: str, columns: Mapping[str, pd.Series]) -> str:
    found = pd.DataFrame(columns)
    lines = [[first, *found.columns], ["---", *["--:"] * len(columns)], *found.reset_index().to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@cache
def made(root: Path) -> dict[str, str]:
    """The parts of the page from the committed tables."""
    return blocks(pd.read_parquet(root / TABLE)) | {"precision": precision_part(pd.read_parquet(root / PRECISION))}
