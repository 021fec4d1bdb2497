"""Original networks that are trained on another part of the data than their students, and data that are only a part.

The code released with the paper trains SVHN's original network on all of its images and linearizes it on 90 % of the
digits 0-4 and 30 % of 5-9. Both are splits of one seed: what validates or tests the students must train nobody.
"""

from collections.abc import Sequence
from dataclasses import replace

from linfair.data import DataError, GroupedData, load_data
from linfair.study.grids import Cell, data_words


def load_sets(cell: Cell) -> tuple[list[GroupedData], list[GroupedData]]:
    """A cell's data on its device, one split for each seed: the students', and what the original is trained on."""
    options = dict(cell.data_options)
    sets = [load_data(cell.data, seed=seed, **options).to(cell.device) for seed in cell.seeds]
    if not cell.base_data_options:
        return sets, sets
    options |= dict(cell.base_data_options)
    base = [load_data(cell.data, seed=seed, **options).to(cell.device) for seed in cell.seeds]
    return [beside(one, other) for one, other in zip(sets, base, strict=True)], base


def beside(data: GroupedData, base: GroupedData) -> GroupedData:
    """A data set as the students see it whose original network was trained on another: with that one's normalisation.

    Args:
        data: The students' data.
        base: The original network's, of the same seed.

    Raises:
        DataError: If an image of the students' validation or test splits is among the original's training images, or
            labels differ.
    """
    if (data.label_names, data.input_shape) != (base.label_names, base.input_shape):
        raise DataError(f"{data.name}: the original network's data have other labels, or another size of images")
    trained = {image.numpy().tobytes() for image in base.splits["train"].x.cpu()}
    for split in [name for name in data.splits if name != "train"]:
        leaked = sum(image.numpy().tobytes() in trained for image in data.splits[split].x.cpu())
        if leaked:
            raise DataError(
                f"{data.name}: the original network would be trained on {leaked} of {len(data.splits[split])} images "
                f"of the students' {split} split; base_data_options may change which training images are kept "
                "(svhn: fractions), not the split"
            )
    return replace(data, mean=base.mean, std=base.std)


def found_words(cell: Cell, sets: Sequence[GroupedData]) -> str:
    """A cell's data in words, saying whether only a part of the data set is here: `svhn subset`."""
    subset = any(one.provenance.get("subset") for one in sets)
    return data_words(cell.data, cell.data_options, cell.base_data_options, subset=subset)
