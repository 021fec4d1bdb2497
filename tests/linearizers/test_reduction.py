"""A second reduction, written here: the control and fine-tuning run on it as they do on ReLUs."""

import copy
from functools import partial

import torch
from torch import Tensor, nn

from linfair.data import GroupedData, load_data
from linfair.ensemble import Ensemble
from linfair.linearizers import control, finetune
from linfair.linearizers.record import LinearizedModel, record
from linfair.masks import RELUS, Mask, Reduction, structure_hash
from linfair.models import build
from linfair.training import Distill, Schedule, fit, predict

ONCE = Schedule(epochs=2, optimizer="adamw", lr=1e-3)


class Switched(nn.Module):
    """A linear layer that gives 0 where an output channel's weights are removed."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        self.register_buffer("on", torch.ones(linear.out_features))

    def forward(self, x: Tensor) -> Tensor:
        """Run the layer."""
        return self.linear(x) * self.on


def switched(model: nn.Module, input_shape: tuple[int, ...]) -> nn.Module:
    model = copy.deepcopy(model)
    for name, child in list(model.named_children())[:-1]:
        if isinstance(child, nn.Linear):
            setattr(model, name, Switched(child))
    return model


def switches(model: nn.Module) -> dict[str, Tensor]:
    """By site, each (members, channels)."""
    network, axis = (model.network, None) if isinstance(model, Ensemble) else (model, 0)
    found = {name: one.on for name, one in network.named_modules() if isinstance(one, Switched)}
    return found if axis is None else {name: on.unsqueeze(0) for name, on in found.items()}


def apply(model: nn.Module, mask: Mask | list[Mask]) -> nn.Module:
    masks = [mask] if isinstance(mask, Mask) else mask
    for name, on in switches(model).items():
        on.copy_(torch.stack([one.units[name] for one in masks]))
    return model


def present(model: nn.Module) -> list[Mask]:
    found, structure = switches(model), structure_hash(model)
    count = len(next(iter(found.values())))
    return [Mask({name: on[m].bool().clone() for name, on in found.items()}, structure) for m in range(count)]


CHANNELS = Reduction(switched, apply, present)


def half(model: nn.Module, data: GroupedData, steps: int) -> LinearizedModel:
    """A record with every second channel removed, its mask taken after so many steps."""
    networks = model.networks() if isinstance(model, Ensemble) else [model]
    removed = []
    for network in networks:
        one = CHANNELS.install(network, data.input_shape)
        every = {name: torch.arange(on.shape[1]) % 2 == 0 for name, on in switches(one).items()}
        removed.append(CHANNELS.apply(one, Mask(every, structure_hash(one))))
    epochs = [-(-steps // ONCE.steps(len(data.splits["train"])))] * len(networks)
    single, taken = not isinstance(model, Ensemble), [steps] * len(networks)
    return record("every second", 0.5, 8, removed, epochs, [], single=single, steps=taken, reduction=CHANNELS)


def test_finetuning_trains_the_weights_that_are_left(teacher: nn.Module, digits: GroupedData) -> None:
    """Oracle: `fit` on the same network and objective; the mask is as it was, and removed channels stay 0."""
    one = half(teacher, digits, 0)
    tuned = finetune(one, teacher, digits, seeds=[0], schedule=ONCE, progress=False)
    by_hand = copy.deepcopy(one.model)
    fit(by_hand, digits, Distill(teacher, digits), ONCE, seeds=[0], stage="finetune", progress=False)
    assert all(torch.equal(value, tuned.model.state_dict()[name]) for name, value in by_hand.state_dict().items())
    assert tuned.reduction is CHANNELS
    assert tuned.kept == CHANNELS.kept(tuned.model) == (CHANNELS.total(tuned.model) // 2,)
    assert not torch.equal(predict(tuned.model, digits, "val"), predict(one.model, digits, "val"))


def test_the_control_keeps_every_unit_and_stops_where_the_mask_was_taken(
    teacher: nn.Module, digits: GroupedData
) -> None:
    """Oracle: distilling the teacher itself for as many epochs; multiplying by 1 changes no bit."""
    steps = ONCE.steps(len(digits.splits["train"]))
    [ours] = control(teacher, digits, [half(teacher, digits, steps)], seeds=[0], schedule=ONCE, progress=False)
    by_hand = copy.deepcopy(teacher)
    stop = {"after_epoch": lambda epoch: True, "progress": False}
    fit(by_hand, digits, Distill(teacher, digits), ONCE, seeds=[0], stage="masks", **stop)
    assert torch.equal(predict(ours.model, digits, "val"), predict(by_hand, digits, "val"))
    assert ours.kept == (CHANNELS.total(ours.model),)
    assert ours.reduction is CHANNELS


def test_members_of_an_ensemble_keep_their_own_masks() -> None:
    sets = [load_data("digits", seed=seed) for seed in (5, 6)]
    teacher = Ensemble([build("mlp", one.input_shape, 10, width=8, seed=seed) for seed, one in enumerate(sets)])
    run = partial(finetune, schedule=ONCE, progress=False)
    tuned = run(half(teacher, sets[0], 0), teacher, sets, seeds=[5, 6])
    assert tuned.kept == (8, 8)
    alone = run(half(teacher.member(1), sets[1], 0), teacher.member(1), sets[1], seeds=[6])
    torch.testing.assert_close(
        tuned.model.member(1)(sets[1].normalise(sets[1].splits["val"].x)),
        alone.model(sets[1].normalise(sets[1].splits["val"].x)),
        rtol=1e-3,
        atol=1e-4,
    )


def test_relus_are_the_reduction_that_gates_are(teacher: nn.Module, digits: GroupedData) -> None:
    gated = RELUS.install(teacher, digits.input_shape)
    assert RELUS.kept(gated) == (RELUS.total(gated),)
    assert all(parameter.requires_grad for name, parameter in gated.named_parameters() if name.endswith("alpha"))
    fixed = RELUS.fixed(gated)
    assert fixed is gated
    assert not any(parameter.requires_grad for name, parameter in gated.named_parameters() if name.endswith("alpha"))
