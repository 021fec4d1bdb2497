"""The first page's figure: accuracy by group at each ReLU budget, from committed rows, with a slider for the budget.

Everything is drawn when the book is built: a picture for each data set, and a table with the numbers of one budget.
`book/_static/front.js` moves the budget and changes the data set; without it the first picture and its table stay.
"""

import json
from dataclasses import dataclass
from html import escape

import pandas as pd
import yaml
from linfair_book.build import repository
from linfair_book.tables import committed

from linfair.plots.style import apart
from linfair.study.tables import by_role, one_teacher, over_seeds

RELEASED = "https://github.com/SaswatD27/ICML_Linearization_Disparate_Impact"
LEFT, RIGHT, TOP, BOTTOM, WIDTH, HEIGHT = 46, 380, 14, 250, 480, 300


@dataclass(frozen=True)
class Shown:
    """One data set: its table, how its rows are chosen, and what is said below the picture."""

    name: str
    table: str
    split: str
    says: str
    width: int | None = None

    def rows(self) -> pd.DataFrame:
        """The rows of the one network that is shown: for each group, of ten classes on balanced images by role."""
        rows = one_teacher(committed(self.table))[0]
        rows = rows[(rows["split"] == self.split) & rows["arm"].isin(["original", "control", "plain"])]
        rows = rows if self.width is None else rows[rows["width"] == self.width]
        arms = rows.groupby("seed")["arm"].transform("nunique")
        rows = rows[arms == arms.max()]  # a seed without its control is compared with nothing
        return by_role(rows) if self.split == "test_balanced" else rows


DIGITS = "Shifted handwritten digits, a network of 128 ReLUs, SNL"
FACES = "The paper's faces (UTKFace), ResNet18 at a quarter of its width, SNL"
SHOWN = (
    Shown("CIFAR-10", "cifar10_cpu", "test_balanced", "CIFAR-10, ResNet18 at a quarter of its width, SNL"),
    Shown("Faces by race", "utkface_race_cpu", "test", FACES, width=16),
    Shown("Faces by age", "utkface_age_cpu", "test", FACES),
    Shown("Handwritten digits", "digits_mlp_snl", "test_balanced", DIGITS),
)


def numbers(shown: Shown) -> dict[str, object]:
    """What the script needs of a data set: budgets, and for each group role, size and accuracies in per cent."""
    rows = shown.rows()
    means = over_seeds(rows.assign(value=100 * rows["accuracy"]), "value", ["arm", "budget", "group_name"])
    budgets = sorted(means["budget"].unique(), reverse=True)
    sizes = rows.groupby("group_name").agg(role=("role", "first"), n_train=("n_train", "mean"))
    found = []
    for name, group in sizes.sort_values("n_train", ascending=False).iterrows():
        own = means[means["group_name"] == name].set_index(["arm", "budget"])
        at = [("original" if budget == 1 else "plain", budget) for budget in budgets]
        control = [("original" if budget == 1 else "control", budget) for budget in budgets]
        found.append(
            {"name": str(name), "role": group["role"], "images": round(group["n_train"])}
            | {"accuracy": own.loc[at, "mean"].round(1).tolist(), "control": own.loc[control, "mean"].round(1).tolist()}
            | {
                "low": own.loc[at, "low"].round(1).tolist(),
                "high": own.loc[at, "high"].clip(upper=100).round(1).tolist(),
            }
        )
    kept = rows.groupby("budget")["budget_units"].first()
    original = rows[rows["arm"] == "original"].groupby("seed")["n"].sum()
    says = f"{shown.says}; {len(original)} seeds, {original.mean():,.0f} test images a seed."
    return {"name": shown.name, "says": says, "budgets": budgets, "kept": kept[budgets].tolist(), "groups": found}


def picture(data: dict[str, object], number: int) -> str:
    """The lines of the groups over the budgets, as SVG with a name for each and a rule at the last budget."""
    budgets, groups = data["budgets"], data["groups"]
    xs = [LEFT + 16 + (RIGHT - LEFT - 32) * i / (len(budgets) - 1) for i in range(len(budgets))]
    height = BOTTOM - TOP

    def y(value: float) -> float:
        return round(BOTTOM - height * value / 100, 1)

    parts = []
    for value in range(0, 101, 25):
        parts.append(f'<path class="grid" d="M{LEFT} {y(value)}H{RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(value) + 5}" text-anchor="end">{value}</text>')
    for x, budget in zip(xs, budgets, strict=True):
        parts.append(f'<text x="{x:.0f}" y="{BOTTOM + 21}" text-anchor="middle">{100 * budget:g} %</text>')
    parts.append(f'<text x="{(LEFT + RIGHT) / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">ReLUs kept</text>')
    parts.append(f'<path class="rule" d="M{xs[-1]:.0f} {TOP}V{BOTTOM}" data-xs="{" ".join(f"{x:.0f}" for x in xs)}"/>')
    labels = apart([y(group["accuracy"][-1]) for group in groups], 17)
    for group, label in zip(groups, labels, strict=True):
        points = [(round(x), y(value)) for x, value in zip(xs, group["accuracy"], strict=True)]
        ticks = "".join(f"M{round(x) - 9} {y(v)}h18" for x, v in zip(xs[1:], group["control"][1:], strict=True))
        bars = "".join(
            f"M{round(x)} {y(a)}V{y(b)}" for x, a, b in zip(xs, group["low"], group["high"], strict=True) if a == a
        )
        marks = "".join(
            f'<circle cx="{x}" cy="{v}" r="4.5"/>'
            if group["role"] == "majority"
            else f'<rect x="{x - 4}" y="{v - 4}" width="8" height="8"/>'
            for x, v in points
        )
        line = "M" + "L".join(f"{x} {v}" for x, v in points)
        parts.append(
            f'<g class="{group["role"]}"><path class="control" d="{ticks}"/><path d="{line}{bars}"/>{marks}'
            f'<text x="{RIGHT - 4}" y="{label + 5:.1f}">{escape(group["name"])}</text></g>'
        )
    ends = [f"{g['name']} {g['accuracy'][0]:.1f} to {g['accuracy'][-1]:.1f} %" for g in groups]
    title = f"{data['name']}: accuracy from all ReLUs to {100 * budgets[-1]:g} % of them. {', '.join(ends)}."
    hidden = " hidden" if number else ""
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}"{hidden}>{"".join(parts)}</svg>'


def table(data: dict[str, object]) -> str:
    """The numbers of the last budget, a line for each group."""
    head = ("group", "training images", "accuracy (%)", "with all ReLUs (%)")
    lines = [
        f'<tr><th scope="row"><span class="dot {group["role"]}" aria-hidden="true"></span>{escape(group["name"])}</th>'
        f"<td>{group['images']:,}</td><td>{group['accuracy'][-1]:.1f}</td><td>{group['control'][-1]:.1f}</td></tr>"
        for group in data["groups"]
    ]
    heads = "".join(f'<th scope="col">{name}</th>' for name in head)
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def figure() -> str:
    """The whole figure as HTML that MyST passes through."""
    data = [numbers(shown) for shown in SHOWN]
    first = data[0]
    pictures = "".join(picture(one, i) for i, one in enumerate(data))
    choices = "".join(
        f'<label><input type="radio" name="front-data" value="{i}"{" checked" * (not i)}> {escape(one["name"])}</label>'
        for i, one in enumerate(data)
    )
    last = f"{100 * first['budgets'][-1]:g} % ({first['kept'][-1]:,} of {first['kept'][0]:,})"
    packed = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    html = f"""<figure class="front" id="front-figure">
<div class="controls" hidden><fieldset><legend>Data</legend>{choices}</fieldset>
<label>ReLUs kept: <b class="kept">{last}</b>
<input type="range" min="0" max="{len(first["budgets"]) - 1}" value="0"></label></div>
<div class="both"><div class="pictures">{pictures}</div>
<div class="said"><p>At <b class="kept">{last}</b> of the ReLUs:</p>{table(first)}</div></div>
<figcaption><span class="says">{escape(first["says"])}</span> Means with 95 % t intervals over seeds. Grey dashes and
last column: trained as long with all ReLUs kept.</figcaption>
<script type="application/json" class="data">{packed}</script>
<script src="../_static/front.js" defer></script></figure>"""
    return f"```{{raw}} html\n{html}\n```"


def paper() -> str:
    """Title, authors and venue of the paper, with links; that to the repository once `_config.yml` has its address."""
    links = {"Paper": "https://arxiv.org/abs/2402.03629", "Released code": RELEASED, "Data": "data/index.html"}
    config = yaml.safe_load((repository() / "_config.yml").read_text(encoding="utf-8"))
    if address := config["sphinx"]["config"]["html_theme_options"]["repository_url"]:
        links["This book's repository"] = address
    listed = " · ".join(f'<a href="{escape(address)}">{name}</a>' for name, address in links.items())
    html = f"""<div class="paper">
<p><b>Disparate Impact on Group Accuracy of Linearization for Private Inference</b></p>
<p>Saswat Das, Marco Romanelli, Ferdinando Fioretto · ICML 2024</p><p>{listed}</p></div>"""
    return f"```{{raw}} html\n{html}\n```"
