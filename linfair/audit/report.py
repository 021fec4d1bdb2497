"""The report of an audit: one HTML file that needs nothing else, with the tables and networks it rests on beside it.

No script, no request: style and figures (SVG) are in the page. It follows the reader's light or dark setting, fits a
phone and prints. What it says is computed from the `Audit`, so that the page and its tables cannot disagree.
"""

from dataclasses import replace
from html import escape
from pathlib import Path

import pandas as pd
from safetensors.torch import save_file

from linfair import plots
from linfair.audit import figures
from linfair.audit.caveats import caveats
from linfair.audit.findings import answer, besides, drift, explanation, gap_of, interval, left, overall, rows_of, share
from linfair.audit.page import disclosure, figure, page, section, table
from linfair.audit.repair import change_of_worst, change_text
from linfair.audit.run import Audit, mask_of
from linfair.audit.tables import accuracy_table, arm_table, cost_table, drop_table, repair_table, why_table
from linfair.checkpoints import save_network
from linfair.cost import DELPHI
from linfair.mitigation import PLAIN
from linfair.paths import whole


def write_report(audit: Audit, folder: str | Path, *, command: str = "") -> Path:
    """Write the report, its tables, and the mask and weights of every network.

    Args:
        audit: The findings.
        folder: Where to; made if missing.
        command: What repeats it, as typed.

    Returns:
        The page, `index.html`; beside it lie `groups.parquet`, `cost.parquet`, with repairs `arms.parquet`, and for
        each network `ARM-BUDGET.mask.safetensors` and `ARM-BUDGET.weights.safetensors`.

    Raises:
        ValueError: If the folder is a file.
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


def html(audit: Audit, *, command: str = "", files: list[str] | None = None) -> str:
    """The page as text.

    Args:
        audit: The findings.
        command: What repeats it.
        files: Names of what lies beside it.
    """
    plots.style()
    header = audit.subject.header
    title = f"Who pays for fewer ReLUs: {header.network} on {_data_name(audit)}"
    lead = " ".join(f"<p>{escape(sentence)}</p>" for sentence in answer(audit))
    warnings = "".join(f'<p class="warning">{escape(text)}</p>' for text in audit.subject.warnings)
    parts = [
        section("answer", "The answer", f'{warnings}<div class="answer">{lead}</div>'),
        section("groups", "Who pays at which budget", groups_part(audit)),
        section("why", "Why", why_part(audit)),
        section("repair", "What repair buys", repair_part(audit)),
        section("cost", "What it costs in private inference", cost_part(audit)),
        section("caveats", "What this report does not say", caveats_part(audit)),
        section("provenance", "How it was made", provenance_part(audit, command, files or [])),
    ]
    return page(title, "".join(parts))


def _data_name(audit: Audit) -> str:
    kind, colon, place = audit.subject.header.data.partition(":")
    return f"{kind} {Path(place).name}" if colon else kind


def groups_part(audit: Audit) -> str:
    """Bars and tables of every group and budget."""
    before, budgets = rows_of(audit, "original", 1.0), audit.plan.budgets
    lines = ", ".join(f"{left(audit, b)}: {overall(rows_of(audit, PLAIN, b)):.1f} %" for b in budgets)
    gaps = {budget: gap_of(rows_of(audit, PLAIN, budget)) for budget in budgets}
    listed = "; ".join(f"{left(audit, budget)}: {interval(gap.gap, gap.low, gap.high)}" for budget, gap in gaps.items())
    alt = (
        f"Horizontal bars of accuracy in per cent for {len(before)} groups, largest first: the original network in "
        f"grey, then {', '.join(map(share, budgets))} of the ReLUs, blue for majority and orange for minority groups, "
        "with intervals. The numbers are in the table below."
    )
    return (
        "<p>A group is <em>majority</em> if it has at least as many training images as the average group. The network "
        f"was linearized by {escape(audit.plan.method)} and fine-tuned; accuracy is on the {escape(audit.split)} "
        "images, with 95 % Wilson intervals.</p>"
        + figure(
            figures.svg(figures.accuracy_bars(audit.groups), "accuracy", alt), "Accuracy of every group and budget"
        )
        + table("Accuracy in %, with its 95 % interval", accuracy_table(audit))
        + f"<p>All test images together: 100 %: {overall(before):.1f} %, {lines}.</p>"
        + table("Drop in points against all ReLUs, with its 95 % interval", drop_table(audit))
        + f"<p>Gap between the group that pays most and the one that pays least, in points: {listed}.</p>"
        + f"<p>{escape(drift(audit))}</p>"
    )


def why_part(audit: Audit) -> str:
    """Diagnostics of every group, original and at the explained budget, and what they can and cannot say."""
    budget = audit.plan.named
    before, after, rows = rows_of(audit, "original", 1.0), rows_of(audit, PLAIN, budget), why_table(audit)
    shown = ", ".join(words for words in figures.WHY.values() if words in rows)
    alt = (
        f"Dots for each of {len(before)} groups: {shown}, in the original network as open marks and at "
        f"{left(audit, budget)} of the ReLUs as filled ones. The numbers are in the table below."
    )
    caption = (
        f"Original → {left(audit, budget)}, measured on the {audit.split} images; R(a) is how much the group's "
        "loss rose, in nats"
    )
    where, what, limits = explanation(audit)
    partial = rows.astype(str).apply(lambda column: column.str.contains("not converged")).to_numpy().any()
    note = "<p>An eigenvalue marked “not converged” is a lower bound of its size.</p>" if partial else ""
    return (
        f"<p>{escape(where)} {escape(what)}</p>"
        + figure(
            figures.svg(figures.why_dots(before, after), "why", alt), f"Original and {left(audit, budget)} of the ReLUs"
        )
        + table(caption, rows)
        + note
        + f"<p>{escape(limits)}</p>"
    )


def repair_part(audit: Audit) -> str:
    """The arms on validation, the choice and its reason, both networks on test."""
    found, budget, rows = audit.mitigated, audit.plan.named, arm_table(audit)
    if found is None:
        return "<p>No repair was tried: the audit was run with <code>--no-mitigate</code>.</p>"
    chosen = found.choice.chosen
    parts = [
        f"<p>At {left(audit, budget)} the same masked network was fine-tuned in {len(rows) + len(found.diverged)} ways "
        "and one was chosen on validation images: the best worst group among those that lose at most "
        f"{audit.plan.max_accuracy_loss:g} points overall against plain fine-tuning (<em>{PLAIN}</em>), and plain "
        "fine-tuning itself unless the gain of the worst group is more than noise "
        f"(p at most {audit.plan.significance:g}).</p>",
        table("On validation images, accuracy in %", rows),
        *(f"<p>{escape(arm)} diverged and is left out.</p>" for arm in found.diverged),
        f"<p>{escape(found.choice.verdict)} <strong>Chosen: {escape(chosen)}.</strong> "
        f"{escape(found.choice.reason)}</p>",
    ]
    if chosen != PLAIN:
        before, after = rows_of(audit, PLAIN, budget), rows_of(audit, chosen, budget)
        alt = (
            f"Pairs of bars for {len(before)} groups: accuracy with plain fine-tuning in grey and with {chosen} in "
            "green, with intervals. The numbers are in the table below."
        )
        drawing = figures.svg(figures.repair_bars(before, after, chosen), "repair", alt)
        parts += [
            figure(drawing, f"Plain fine-tuning and repair at {left(audit, budget)}"),
            table(f"On the {audit.split} images, accuracy in %", repair_table(audit)),
            f"<p>Worst group: {change_text(*change_of_worst(before, after))}. All test images together: "
            f"{overall(before):.1f} % with plain fine-tuning, {overall(after):.1f} % with {escape(chosen)}.</p>",
        ]
    return "".join(parts)


def cost_part(audit: Audit) -> str:
    """Seconds and bytes of one private answer at every budget."""
    link = f"{audit.plan.bandwidth / 1e6:g} Mbit/s and {1000 * audit.plan.rtt:g} ms round trip time"
    freed = [f"{share(row.budget)}: {row.freed}" for row in audit.cost.itertuples() if row.freed]
    text = "No layer is left without a ReLU, so no round trip is saved: only bytes and computing."
    if freed:
        text = f"Whole layers without a ReLU, each saves a round trip: {'; '.join(freed)}."
    alt = (
        f"Stacked bars: seconds of one private answer at {', '.join(share(b) for b in audit.cost['budget'])} of the "
        "ReLUs, split into linear layers, computing ReLUs, sending, and round trips. The numbers are in the table "
        "below."
    )
    return (
        f"<p>One answer under Delphi's protocol over a link with {escape(link)}: {DELPHI.online_bytes:,} bytes for "
        "each ReLU while the client waits, and one round trip for each layer that holds any.</p>"
        + figure(figures.svg(plots.cost_parts(audit.cost), "cost", alt), "Where the seconds of one answer go")
        + table("One private answer", cost_table(audit))
        + f"<p>{escape(text)}</p><p>“MB before” is sent ahead of the question. The linear layers' own bytes are in "
        f"neither column. {escape(besides(audit))}</p>"
    )


def caveats_part(audit: Audit) -> str:
    """The limits, one paragraph each."""
    return "<dl>" + "".join(f"<dt>{escape(t)}</dt><dd>{escape(d)}</dd>" for t, d in caveats(audit)) + "</dl>"


def provenance_part(audit: Audit, command: str, files: list[str]) -> str:
    """Digests, versions, options, files, and the command that repeats it."""
    plan, header = audit.plan, audit.subject.header
    asked = {"network": header.network, "data": header.data, "seed": header.seed} | dict(header.data_options)
    asked |= {"method": plan.method, "budgets": ", ".join(map(share, plan.budgets)), "profile": plan.profile}
    asked |= {
        "explained and repaired": share(plan.named),
        "arms": ", ".join(plan.arms) if plan.mitigate else "not tried",
    }
    asked |= {"points a repair may cost": f"{plan.max_accuracy_loss:g}", "significance": f"{plan.significance:g}"}
    asked |= {"test images looked at": audit.split, "seconds of training": f"{audit.trained_seconds:.0f}"}
    asked |= {"seconds of the last run": f"{audit.seconds:.0f}"}
    facts = pd.DataFrame(list((asked | audit.facts).items()), columns=["what", "value"])
    listed = "".join(f"<li><code>{escape(name)}</code></li>" for name in files)
    again = f"<p>Run it again with</p><pre><code>{escape(command)}</code></pre>" if command else ""
    use = (
        "from linfair import gates\nfrom safetensors.torch import load_file\n\n"
        f"network = gates.install(build(), {header.input_shape})  # your own function\n"
        f'network.load_state_dict(load_file("{plan.method}-{plan.named:g}.weights.safetensors"))'
    )
    how = "" if audit.subject.own else f"<p>A linearized network is used so:</p><pre><code>{escape(use)}</code></pre>"
    return again + table("Options, versions and digests", facts) + disclosure("Files beside this page", listed) + how
