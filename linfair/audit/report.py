"""The report of an audit: `report.html`, one page with style and figures (SVG) and no script; tables lie beside it."""

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import jinja2
import pandas as pd

from linfair import plots
from linfair.audit import figures, findings
from linfair.audit.expose import MARKS, NO_PROMISE, shown
from linfair.audit.run import Audit, recipe_for
from linfair.audit.shown import interval, minus, number
from linfair.checkpoints import save_network
from linfair.cost import ONLINE_BYTES
from linfair.engine.store import weights_digest
from linfair.linearizers.record import share
from linfair.linearizers.registry import find
from linfair.mitigation import PLAIN
from linfair.mitigation.choose import NOISE
from linfair.names import called
from linfair.paths import save_table, whole


def write_report(audit: Audit, folder: str | Path, *, command: str = "") -> Path:
    """Write the page (returned), its tables, masks and weights into a folder; `command`, as typed, repeats it."""
    folder, reduction = Path(folder), audit.plan.reduction
    folder.mkdir(parents=True, exist_ok=True)
    step = find(audit.plan.method).does(recipe_for(audit.subject, audit.plan)[1])
    files, made = [], {"step": step.name, "teacher": weights_digest(audit.subject.model)}
    for (arm, budget), model in audit.networks.items():
        if arm == "control":
            continue
        stem = f"{audit.plan.method if arm == PLAIN else 'repaired'}-{budget:g}"
        files += [f"{stem}.mask.safetensors", f"{stem}.weights.safetensors"]
        replace(reduction.masks(model)[0], **made).save(folder / files[-2])
        header = replace(audit.subject.header, guarantee=audit.guarantees.get((arm, budget)))
        save_network(folder / files[-1], model, header)
    found = {"groups": audit.groups, "cost": audit.cost}
    if audit.exposed:
        tables = [one.table.assign(network=name) for name, one in audit.exposed.items()]
        found["exposure"] = pd.concat(tables, ignore_index=True)
    for name, rows in (found | ({"arms": audit.mitigated.table} if audit.mitigated else {})).items():
        files.append(f"{name}.parquet")
        save_table(rows, folder / files[-1])
    with whole(folder / "index.html") as part:
        part.write_text(html(audit, command=command, files=files), encoding="utf-8")
    return folder / "index.html"


@cache
def _template(name: str, *, escape: bool) -> jinja2.Template:
    """A template beside this file: for a page (texts are escaped) or for plain text."""
    loader, strict = jinja2.FileSystemLoader(Path(__file__).parent), jinja2.StrictUndefined
    found = jinja2.Environment(loader=loader, autoescape=escape, undefined=strict, trim_blocks=True, lstrip_blocks=True)
    found.filters |= {"share": share, "commas": "{:,}".format}
    found.filters["points"] = lambda value: f"{value:g} point{'s' * (value != 1)}"
    found.globals |= {"interval": interval, "number": number, "overall": findings.overall, "findings": findings}
    found.globals |= {"noise": NOISE, "relu_bytes": ONLINE_BYTES, "figures": figures, "plots": plots}
    found.globals |= {"shown": shown, "marks": MARKS, "no_promise": NO_PROMISE, "called": called}
    return found.get_template(name)


def words(audit: Audit, *names: str) -> str | tuple[str, ...]:
    """What macros of `words.html` say of an audit, as plain text: `light`, `who`, `when`, `repair`, `control`, ..."""
    known, module = findings.facts(audit), _template("words.html", escape=False).module
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
    plan, header, known = audit.plan, audit.subject.header, findings.facts(audit)
    asked = {"network": header.network, "data": header.data, "seed": header.seed, **dict(header.data_options)}
    given = ", ".join(f"{name}={value}" for name, value in plan.given)
    asked["method"] = plan.method + f"({given})" * bool(given)
    asked |= {"budgets": ", ".join(map(share, plan.budgets)), "profile": plan.profile}
    arms = ", ".join(map(called, plan.arms)) if plan.mitigate else "not tried"
    asked |= {"explained and repaired": share(plan.named), "arms": arms}
    limits = {"points a group may lose": plan.tolerance, "points a repair may cost": plan.max_accuracy_loss}
    asked |= {name: f"{most:g}" for name, most in (limits | {"significance": plan.significance}).items()}
    asked |= {"test images looked at": called(audit.split), "seconds of training": f"{audit.trained_seconds:.0f}"}
    asked |= {"seconds of the last run": f"{audit.seconds:.0f}", **audit.facts}
    kind, _, place = header.data.partition(":")
    title = f"Who pays for fewer {known['units']}: {header.network} on {f'{kind} {Path(place).name}'.strip()}"
    about = pd.DataFrame({"what": asked.keys(), "value": asked.values()})
    more = {"title": title, "about": about, "command": command, "files": files or []}
    page = _template("report.html", escape=True).render(known, f=known, **more)
    own = r"<(pre|code|script|style|svg)\b.*?</\1>|>[^<]+"
    return re.sub(own, lambda part: part[0] if part[1] else minus(part[0]), page, flags=re.DOTALL)
