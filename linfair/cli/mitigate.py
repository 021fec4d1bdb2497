"""What `linfair mitigate` prints and writes."""

import sys
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path

from linfair.cli.diagnose import pair_options
from linfair.paths import whole


def mitigate(options: Namespace) -> None:
    """Read teacher and mask, fine-tune under every arm, choose on validation, print, write weights and table."""
    from linfair import gates
    from linfair.audit.diagnose import read_pair
    from linfair.audit.repair import DEFAULT_ARMS, arm_list, mitigate, mitigated_text
    from linfair.checkpoints import save_network
    from linfair.linearizers.record import kept_share

    arms = DEFAULT_ARMS if options.arms is None else split_arms(options.arms)
    arm_list(arms, options.mu)
    out = Path(options.out or Path(options.mask).parent / f"{_stem(options.mask)}-mitigated")
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; name a folder, it is made if missing")
    pair = read_pair(
        options.teacher,
        options.mask,
        weights=options.weights,
        data=options.data,
        label=options.label,
        group=options.group,
        device=options.device,
    )
    if not options.weights and pair.beside:
        print(f"Starting from the teacher's own weights; from those beside the mask: --weights {pair.beside}")
    found = mitigate(
        pair,
        arms=arms,
        mu=options.mu,
        max_accuracy_loss=options.max_accuracy_loss,
        significance=options.significance,
        min_images=options.min_images,
        profile=options.profile,
        announce=lambda line: print(line, file=sys.stderr, flush=True),
    )
    row = found.table.iloc[0]
    left = kept_share(row["kept"], gates.total_units(found.model), row["budget"])
    head = f"{pair.header.network} on {pair.header.data}, seed {pair.header.seed}: {left}"
    print(f"{head}; fine-tuned in profile {options.profile}")
    print(mitigated_text(found))
    weights = save_network(out / "chosen.weights.safetensors", found.model, replace(pair.header, gated=True))
    with whole(out / "report.parquet") as part:
        found.table.to_parquet(part, index=False)
    print(f"\nwrote {weights} ({found.choice.chosen}) and {out / 'report.parquet'}")


def split_arms(text: str) -> list[str]:
    """Arms as they are typed, split at the commas that stand outside brackets.

    >>> split_arms("plain, lagrangian(mu=0.005, clip=5.0),group_dro")
    ['plain', 'lagrangian(mu=0.005, clip=5.0)', 'group_dro']
    """
    arms, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and not depth:
            arms.append("")
        else:
            arms[-1] += character
    return [arm.strip() for arm in arms if arm.strip()]


def _stem(mask: str) -> str:
    return Path(mask).name.removesuffix(".safetensors").removesuffix(".mask")


def numbers(text: str) -> list[float]:
    """Numbers as they are typed, `0.005,0.01`."""
    return [float(part) for part in text.split(",")]


def significance_option(parser: ArgumentParser) -> None:
    """Add `--significance`, which `linfair audit` has too."""
    parser.add_argument(
        "--significance",
        type=float,
        default=0.05,
        metavar="P",
        help="keep plain fine-tuning unless the p-value of a repair's gain on validation is at most this (default: "
        "0.05; 1 takes the best repair, noise or not)",
    )


def mitigate_options(parser: ArgumentParser) -> None:
    """Add the options of `linfair mitigate`."""
    pair_options(parser, weights="start from these weights")
    parser.add_argument(
        "--max-accuracy-loss",
        type=float,
        default=1.0,
        metavar="POINTS",
        help="overall validation accuracy an arm may lose against plain fine-tuning (default: 1.0)",
    )
    parser.add_argument(
        "--arms",
        metavar="ARM,...",
        help="what to try, options in brackets: 'group_dro,lagrangian(mu=0.005)' (default: six); plain fine-tuning "
        "is always among them",
    )
    parser.add_argument(
        "--mu",
        type=numbers,
        default=[],
        metavar="MU,...",
        help="try the lagrangian arms at these steps (default: 0.001)",
    )
    significance_option(parser)
    parser.add_argument(
        "--judge-from",
        "--min-images",
        dest="min_images",
        type=int,
        default=10,
        metavar="N",
        help="groups with fewer validation images than N are judged together (default: 10; 1 judges each alone). "
        "--min-images is its old name; in other commands that leaves groups out",
    )
    parser.add_argument("--profile", default="small", help="of the fine-tuning: smoke, small, quick or paper")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--out", metavar="DIR", help="where to write (default: beside the mask, MASK-mitigated)")
