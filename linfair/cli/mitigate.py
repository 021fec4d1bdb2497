"""`linfair mitigate`: repair a linearized network."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from linfair import audit, gates
from linfair.audit.repair import DEFAULT_ARMS, arm_list
from linfair.checkpoints import save_network
from linfair.cli.diagnose import Files
from linfair.cli.options import Arms, Training, commas, numbers, says, tell
from linfair.linearizers.record import kept_share
from linfair.mitigation.choose import FEW, NOISE
from linfair.paths import whole

SIGNIFICANCE = (
    "Keep plain fine-tuning unless the p-value of a repair's gain on validation is at most this; 1 takes the best "
    "repair, noise or not."
)
JUDGED = (
    "Groups with fewer validation images than this are judged together; 1 judges each alone. --min-images is its old "
    "name; in other commands that leaves groups out."
)


def mitigate(
    *,
    files: Files,
    max_accuracy_loss: Annotated[
        float, says("Points of overall validation accuracy that an arm may lose against plain fine-tuning.")
    ] = 1.0,
    arms: Arms = DEFAULT_ARMS,
    mu: Annotated[tuple[float, ...], commas(numbers, "Try the lagrangian arms at these steps.")] = (),
    significance: Annotated[float, says(SIGNIFICANCE)] = NOISE,
    min_images: Annotated[int, says(JUDGED, name=["--judge-from", "--min-images"])] = FEW,
    profile: Training = "small",
    out: Annotated[str | None, says("Where to write; by default beside the mask, MASK-mitigated.")] = None,
) -> None:
    """Repair a linearized network."""
    arm_list(arms, mu)
    stem = Path(files.mask).name.removesuffix(".safetensors").removesuffix(".mask")
    folder = Path(out or Path(files.mask).parent / f"{stem}-mitigated")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out {folder} is a file; name a folder, it is made if missing")
    pair = files.read()
    if not files.weights and pair.beside:
        print(f"Starting from the teacher's own weights; from those beside the mask: --weights {pair.beside}")
    limits = {"max_accuracy_loss": max_accuracy_loss, "significance": significance, "min_images": min_images}
    found = audit.mitigate(pair, arms=arms, mu=mu, profile=profile, announce=tell, **limits)
    row = found.table.iloc[0]
    left = kept_share(row["kept"], gates.total_units(found.model), row["budget"])
    head = f"{pair.header.network} on {pair.header.data}, seed {pair.header.seed}: {left}"
    print(f"{head}; fine-tuned in profile {profile}")
    print(audit.mitigated_text(found))
    weights = save_network(folder / "chosen.weights.safetensors", found.model, replace(pair.header, gated=True))
    with whole(folder / "report.parquet") as part:
        found.table.to_parquet(part, index=False)
    print(f"\nwrote {weights} ({found.choice.chosen}) and {folder / 'report.parquet'}")
