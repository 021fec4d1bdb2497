"""Masks as files: what is read is what was written, and nothing else is taken for a mask."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from linfair import gates, masks
from linfair.ensemble import Ensemble
from linfair.gates import GateError, install
from linfair.masks import FORMAT, Mask, apply_mask, masks_of, structure_hash
from linfair.models import build

SHAPE = (1, 8, 8)


def resnet(*, width: int = 2, seed: int = 0) -> nn.Module:
    return install(build("resnet18", SHAPE, 3, width=width, seed=seed), SHAPE).eval()


def mlp(inputs: int = 4, *, width: int = 6, seed: int = 0) -> nn.Module:
    return install(build("mlp", (inputs,), 3, width=width, seed=seed), (inputs,))


def half(model: nn.Module, seed: int = 0) -> nn.Module:
    """Keep a random half of the units."""
    generator = torch.Generator().manual_seed(seed)
    return gates.set_alphas(model, lambda _, a: (torch.rand(a.shape, generator=generator) < 0.5).float())


def same(one: Mask, other: Mask) -> bool:
    return (
        list(one.units) == list(other.units)
        and all(torch.equal(unit, other.units[site]) for site, unit in one.units.items())
        and one.structure == other.structure
    )


# Files


def test_a_saved_mask_makes_another_copy_of_the_network_the_same_function_bit_for_bit(tmp_path: Path) -> None:
    model = half(resnet())
    mask = masks_of(model)[0]
    path = mask.save(tmp_path / "folder" / "mask.safetensors")
    read = Mask.load(path)
    assert same(read, mask)
    assert all(unit.dtype == torch.bool for unit in read.units.values())
    x = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(1))
    twin = apply_mask(resnet(), read)
    assert torch.equal(twin(x), model(x))
    assert not torch.equal(resnet()(x), model(x))
    assert not any(gate.alpha.requires_grad for gate in gates.sites(twin).values())
    assert same(masks_of(twin)[0], mask)


def test_safetensors_alone_reads_the_file(tmp_path: Path) -> None:
    mask = masks_of(half(mlp()))[0]
    with safe_open(mask.save(tmp_path / "mask.safetensors"), framework="np") as file:
        assert file.metadata()["format"] == FORMAT
        assert int(file.metadata()["kept"]) == sum(file.get_tensor(site).sum() for site in mask.units)
        assert {site: file.get_tensor(site).shape for site in mask.units} == {"2": (6,), "4": (6,)}


def test_saving_again_replaces_the_file_and_a_failing_write_leaves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = masks_of(half(mlp(), seed=1))[0], masks_of(half(mlp(), seed=2))[0]
    assert not same(one, two)
    path = one.save(tmp_path / "mask.safetensors")
    assert same(Mask.load(two.save(path)), two)

    def fail(tensors: dict, path: Path, metadata: dict) -> None:
        Path(path).write_bytes(b"half a file")
        raise OSError("disk full")

    monkeypatch.setattr(masks, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        one.save(path)
    with pytest.raises(OSError, match="disk full"):
        one.save(tmp_path / "new.safetensors")
    assert same(Mask.load(path), two)
    assert not (tmp_path / "new.safetensors").exists()


@pytest.mark.parametrize("keep", [0, 5, 0.5, -1])
def test_a_truncated_file_is_named(tmp_path: Path, keep: float) -> None:
    path = masks_of(mlp())[0].save(tmp_path / "mask.safetensors")
    content = path.read_bytes()
    path.write_bytes(content[: round(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(GateError, match=r"mask\.safetensors is truncated or no mask"):
        Mask.load(path)


def test_other_files_are_no_masks(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"2": torch.ones(6)}, path)
    with pytest.raises(GateError, match=r"weights\.safetensors is no mask"):
        Mask.load(path)
    save_file({"2": torch.ones(6)}, path, metadata={"format": "another-1"})
    with pytest.raises(GateError, match="no mask"):
        Mask.load(path)
    with pytest.raises(GateError, match=r"no mask at .*nowhere"):
        Mask.load(tmp_path / "nowhere")


GOOD = {"format": FORMAT, "structure": "0123456789abcdef", "kept": "6", "sites": '{"2": [6]}'}
ONES = torch.ones(6, dtype=torch.bool)


@pytest.mark.parametrize(
    ("notes", "units", "named"),
    [
        ({"structure": None}, {"2": ONES}, "structure"),
        ({"structure": "0"}, {"2": ONES}, 'structure = "0"'),
        ({"kept": None}, {"2": ONES}, "kept"),
        *(({"kept": one}, {"2": ONES}, f'kept = "{one}"') for one in ("null", "-1", "1.5", "true", "", "9" * 70)),
        ({"kept": "5"}, {"2": ONES}, "kept = 5 .*keeps 6"),
        ({"sites": None}, {"2": ONES}, "not an object"),
        *(({"sites": one}, {"2": ONES}, "not an object") for one in ("null", "1", '"2"', '["2"]')),
        *(
            ({"sites": f'{{"2": {one}}}'}, {"2": ONES}, "sites = ")
            for one in ("6", "[-6]", "[6.0]", "[true]", '"6"', "[[6]]")
        ),
        ({"sites": "{}"}, {"2": ONES}, "sites"),
        ({"sites": '{"2": [6], "2": [6]}'}, {"2": ONES}, "'2' twice"),
        ({"sites": "[" * 100_000}, {"2": ONES}, "nested too deeply"),
        ({"sites": '{"2": [99999999, 99999999, 99999999]}'}, {"2": ONES}, "99999999"),
        ({"sites": '{"4": [6]}'}, {"2": ONES}, "missing in the file: 4; unknown to the network: 2"),
        ({"sites": '{"2": [3, 2]}'}, {"2": ONES}, r"bool \(6,\) in the file and bool \(3, 2\)"),
        ({}, {"2": ONES, "4": ONES.clone()}, "unknown to the network: 4"),
        ({"colour": "red"}, {"2": ONES}, "colour"),
        *(({}, {"2": ONES.to(kind)}, str(kind)[6:]) for kind in (torch.float64, torch.int64, torch.uint8)),
        ({}, {"2": ONES * float("nan")}, "float32"),
    ],
)
def test_a_header_or_a_value_of_another_type_is_named(
    notes: dict, units: dict[str, torch.Tensor], named: str, tmp_path: Path
) -> None:
    path = tmp_path / "mask.safetensors"
    save_file({"2": ONES}, path, metadata=GOOD)
    assert Mask.load(path).kept == 6
    save_file(units, path, metadata={name: one for name, one in (GOOD | notes).items() if one is not None})
    with pytest.raises(GateError, match=named) as caught:
        Mask.load(path)
    assert str(path) in str(caught.value) and len(str(caught.value)) < 600


def test_truth_values_that_are_neither_are_named(tmp_path: Path) -> None:
    save_file({"2": ONES}, tmp_path / "mask.safetensors", metadata=GOOD)
    content = (tmp_path / "mask.safetensors").read_bytes()
    (tmp_path / "mask.safetensors").write_bytes(content[:-1] + b"\x02")
    with pytest.raises(GateError, match="bytes in 2"):
        Mask.load(tmp_path / "mask.safetensors")


# Another network


def test_a_mask_for_another_width_names_the_site_and_both_shapes() -> None:
    with pytest.raises(GateError, match=r"2 is \(6,\) there and \(7,\) here"):
        apply_mask(mlp(width=7), masks_of(mlp(width=6))[0])


def test_a_mask_for_other_sites_names_them() -> None:
    deep = install(nn.Sequential(nn.Flatten(), *[nn.Linear(4, 4), nn.ReLU()] * 3), (4,))
    flat = install(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), (4,))
    with pytest.raises(GateError, match="sites missing from the mask: 2, 4, 6") as caught:
        apply_mask(deep, masks_of(flat)[0])
    assert "sites only in the mask: 1" in str(caught.value)


def test_a_mask_for_the_same_sites_but_other_weights_names_both_structures() -> None:
    other, ours = mlp(inputs=4), mlp(inputs=5)
    with pytest.raises(GateError) as caught:
        apply_mask(ours, masks_of(other)[0])
    assert structure_hash(other) in str(caught.value)
    assert structure_hash(ours) in str(caught.value)


def test_a_refused_mask_changes_nothing() -> None:
    model = half(mlp())
    before = masks_of(model)[0]
    for wrong in (masks_of(mlp(width=7))[0], masks_of(mlp(inputs=5))[0]):
        with pytest.raises(GateError):
            apply_mask(model, wrong)
    assert same(masks_of(model)[0], before)
    assert all(gate.alpha.requires_grad for gate in gates.sites(model).values())


def test_structure_is_of_names_and_shapes_not_of_values() -> None:
    assert structure_hash(mlp(seed=0)) == structure_hash(mlp(seed=1))
    ensemble = Ensemble([mlp(), mlp()])
    assert structure_hash(ensemble) == structure_hash(mlp())
    assert len({structure_hash(model) for model in (mlp(), mlp(5), mlp(width=7), resnet(), resnet(width=3))}) == 5


# Ensembles


def test_masks_of_an_ensemble_are_the_masks_of_its_networks_and_go_back_one_by_one() -> None:
    networks = [half(mlp(seed=seed), seed) for seed in range(3)]
    ensemble = Ensemble(networks)
    found = masks_of(ensemble)
    assert all(same(mask, masks_of(network)[0]) for mask, network in zip(found, networks, strict=True))
    fresh = apply_mask(Ensemble([mlp() for _ in networks]), found)
    assert all(same(masks_of(fresh.member(m))[0], mask) for m, mask in enumerate(found))
    assert same(masks_of(apply_mask(mlp(), found[2]))[0], found[2])
    with pytest.raises(GateError, match="2 masks for 3 networks"):
        apply_mask(ensemble, found[:2])
    with pytest.raises(GateError, match="1 masks for 3 networks"):
        apply_mask(ensemble, found[0])


# Counts


bits = st.lists(st.booleans(), min_size=6, max_size=6)


@given(bits, bits, bits, bits)
def test_counts_and_jaccard_equal_python_sets(a: list, b: list, c: list, d: list) -> None:
    one = Mask({"s": torch.tensor(a), "t": torch.tensor(b).view(2, 3)}, "")
    other = Mask({"s": torch.tensor(c), "t": torch.tensor(d).view(2, 3)}, "")
    ours = {("s", i) for i in range(6) if a[i]} | {("t", i) for i in range(6) if b[i]}
    theirs = {("s", i) for i in range(6) if c[i]} | {("t", i) for i in range(6) if d[i]}
    assert (one.kept, one.total, one.per_site) == (len(ours), 12, {"s": sum(a), "t": sum(b)})
    expected = len(ours & theirs) / len(ours | theirs) if ours | theirs else 1.0
    assert one.jaccard(other) == other.jaccard(one) == pytest.approx(expected)
    assert one.jaccard(one) == 1.0


def test_jaccard_of_masks_of_different_networks_is_an_error() -> None:
    with pytest.raises(GateError, match="the other mask belongs to another network"):
        masks_of(mlp())[0].jaccard(masks_of(mlp(width=7))[0])


def test_masks_of_uses_the_threshold_strictly() -> None:
    model = gates.set_alphas(mlp(), lambda *_: torch.tensor([[0.0, 0.01, 0.02, 0.3, 0.6, 1.0]]))
    assert masks_of(model)[0].per_site == {"2": 4, "4": 4}
    assert masks_of(model, threshold=0.5)[0].per_site == {"2": 2, "4": 2}
