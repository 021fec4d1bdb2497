"""The report of an audit: one HTML file that needs nothing else, with the tables and networks it rests on beside it.

No script, no request: style and figures (SVG) are in the page. It follows the reader's light or dark setting, fits a
phone and prints. `report.html` is the page, `words.html` what it says of each check; all numbers come from the `Audit`,
so that the page and its tables cannot disagree.
"""

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import jinja2
import pandas as pd
from safetensors.torch import save_file

from linfair import plots
from linfair.audit import figures, tables
from linfair.audit.findings import check_table, facts, overall
from linfair.audit.repair import change_text
from linfair.audit.run import Audit, mask_of
from linfair.audit.shown import interval, number
from linfair.checkpoints import save_network
from linfair.cost import DELPHI
from linfair.linearizers.record import share
from linfair.mitigation import PLAIN
from linfair.mitigation.choose import NOISE
from linfair.paths import whole


def write_report(audit: Audit, folder: str | Path, *, command: str = "") -> Path:
    """Write the report, its tables, and the mask and weights of every network into a folder, made if missing.

    The page is `index.html`; beside it lie `groups.parquet`, `cost.parquet`, with repairs `arms.parquet`, and for each
    network `ARM-BUDGET.mask.safetensors` and `ARM-BUDGET.weights.safetensors`. `command` is what repeats it, as typed.
    A folder that is a file is refused with a ValueError.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out {folder} is a file; name a folder, it is made if missing")
    folder.mkdir(parents=True, exist_ok=True)
    files = _write_networks(audit, folder)
    for name, rows in {"groups": audit.groups, "cost": audit.cost, "arms": audit.arms}.items():
        if rows is not None:
            with whole(folder / f"{name}.parquet") as part:
                rows.to_parquet(part, index=False)
            files.append(f"{name}.parquet")
    with whole(folder / "index.html") as part:
        part.write_text(html(audit, command=command, files=files), encoding="utf-8")
    return folder / "index.html"


def _write_networks(audit: Audit, folder: Path) -> list[str]:
    """Masks and weights; what linfair can build again is written so that its commands can read it."""
    files = []
    header = replace(audit.subject.header, gated=True)
    for (arm, budget), model in audit.networks.items():
        if arm == "control":
            continue
        stem = f"{audit.plan.method if arm == PLAIN else 'repaired'}-{budget:g}"
        mask_of(model).save(folder / f"{stem}.mask.safetensors")
        if audit.subject.own:
            save_network(folder / f"{stem}.weights.safetensors", model, header)
        else:
            tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
            with whole(folder / f"{stem}.weights.safetensors") as part:
                save_file(tensors, part, metadata={"network": header.network, "arm": arm, "budget": f"{budget:g}"})
        files += [f"{stem}.mask.safetensors", f"{stem}.weights.safetensors"]
    return files


@cache
def _templates(*, html: bool) -> jinja2.Environment:
    """The templates beside this file: for a page (texts are escaped) or for plain text."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=html,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"share": share, "commas": "{:,}".format}
    found.filters["points"] = lambda value: f"{value:g} point{'s' * (value != 1)}"
    found.globals |= {"interval": interval, "number": number, "overall": overall, "noise": NOISE, "tables": tables}
    found.globals |= {"change_text": lambda one: change_text(one.value, one.low, one.high)}
    return found


def words(audit: Audit, *names: str) -> str | tuple[str, ...]:
    """What macros of `words.html` say of an audit, as plain text: `who`, `when`, `repair`, `control`, `standing`."""
    known, module = facts(audit), _templates(html=False).get_template("words.html").module
    said = tuple(" ".join(getattr(module, name)(known).split()) for name in names)
    return said if len(said) > 1 else said[0]


def answer(audit: Audit) -> tuple[str, str, str]:
    """The answer in three sentences: who pays most and how much, from which budget on, and what was done about it."""
    return words(audit, "who", "when", "repair")


def caveats(audit: Audit) -> list[tuple[str, str]]:
    """What limits the answer, each with a title of a few words."""
    return re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", words(audit, "caveats"))


def html(audit: Audit, *, command: str = "", files: list[str] | None = None) -> str:
    """The page as text, with the command that repeats it and the names of the files beside it."""
    plots.style()
    known = facts(audit)
    chosen = PLAIN if audit.mitigated is None else audit.mitigated.choice.chosen
    drawings = {
        "accuracy": lambda: figures.accuracy_bars(audit.groups),
        "why": lambda: figures.why_dots(known["before"], known["rows"]),
        "repair": lambda: figures.repair_bars(known["rows"], known["repaired"], chosen),
        "cost": lambda: plots.cost_parts(audit.cost),
    }
    kind, colon, place = audit.subject.header.data.partition(":")
    data = f"{kind} {Path(place).name}" if colon else kind
    return (
        _templates(html=True)
        .get_template("report.html")
        .render(
            title=f"Who pays for fewer ReLUs: {audit.subject.header.network} on {data}",
            f=facts(audit),
            audit=audit,
            plan=audit.plan,
            subject=audit.subject,
            groups=len(audit.subject.data.group_names),
            drawn=lambda name, alt: figures.svg(drawings[name](), name, alt),
            checked=tables.shown_checks(check_table(audit)),
            about=_about(audit),
            relu_bytes=DELPHI.online_bytes,
            command=command,
            files=files or [],
        )
    )


def _about(audit: Audit) -> pd.DataFrame:
    """Options, versions and digests."""
    plan, header = audit.plan, audit.subject.header
    asked = {"network": header.network, "data": header.data, "seed": header.seed, **dict(header.data_options)}
    asked |= {"method": plan.method, "budgets": ", ".join(map(share, plan.budgets)), "profile": plan.profile}
    asked["explained and repaired"] = share(plan.named)
    asked["arms"] = ", ".join(plan.arms) if plan.mitigate else "not tried"
    asked |= {"points a repair may cost": f"{plan.max_accuracy_loss:g}", "significance": f"{plan.significance:g}"}
    asked |= {"test images looked at": audit.split, "seconds of training": f"{audit.trained_seconds:.0f}"}
    asked |= {"seconds of the last run": f"{audit.seconds:.0f}"}
    return pd.DataFrame(list((asked | audit.facts).items()), columns=["what", "value"])
