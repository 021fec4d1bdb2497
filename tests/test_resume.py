"""Training that goes on within a stage; the oracle is always the same training without an interruption, bit for bit."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from linfair import gates
from linfair.engine import stages
from linfair.engine.store import DamagedFile, ResultStore
from linfair.linearizers import SNL, control, finetune
from linfair.linearizers.registry import LINEARIZERS, find
from linfair.linearizers.snl import snl
from linfair.metrics import curvature
from linfair.mitigation import MITIGATIONS
from linfair.models import build
from linfair.resume import resumable
from linfair.training import Schedule, fit, supervised


class Stopped(Exception):
    """The machine is taken away."""


@pytest.fixture
def store(tmp_path) -> ResultStore:
    return ResultStore(tmp_path)


@pytest.fixture
def stop_after(monkeypatch):
    """Let so many epochs end, over all fits, and stop before the next one."""
    rate = Schedule.rate

    def arm(epochs: int) -> None:
        begun: list[int] = []

        def counted(self, epoch):
            if begun[-1:] != [epoch]:  # asked once for each group of weights
                begun.append(epoch)
            if len(begun) > epochs:
                raise Stopped
            return rate(self, epoch)

        monkeypatch.setattr(Schedule, "rate", counted)

    return arm


def equal(one: nn.Module, two: nn.Module) -> bool:
    states = one.state_dict(), two.state_dict()
    return states[0].keys() == states[1].keys() and all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def interrupted(run, store, stop_after, epochs: int):
    """Run, stopped after some epochs, and run again as another process would."""
    stop_after(epochs)
    with pytest.raises(Stopped), resumable(store, name="stage", every=0):
        run()
    stop_after(10**6)
    with resumable(store, name="stage", every=0) as kept:
        again = run()
    assert kept.earlier > 0
    assert not list((store.folder / "checkpoints").glob("*")), "nothing is left behind"
    return again


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("way", [{}, {"channels_last": True, "fused": True}], ids=["plain", "fused"])
def test_base_training(optimizer, way, digits, store, stop_after):
    how = Schedule(epochs=5, optimizer=optimizer, lr=1e-2, decay="cosine", **way)

    def run():
        network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10))
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(0)
            network(torch.zeros(2, *digits.input_shape))
            for weight in network.parameters():
                weight.normal_(0, 0.05)
            network[1].reset_running_stats()
        rows = fit(network, digits, supervised, how, seeds=[0], stage="base", parts=(), progress=False)
        return network, rows

    whole = run()
    again = interrupted(run, store, stop_after, 3)
    assert equal(whole[0], again[0]) and whole[1] == again[1]


SETTINGS = SNL(
    lasso=3e-3, warmup=0, check_every=3, schedule=Schedule(epochs=80, optimizer="adam", lr=1e-3, alpha_lr=8e-3)
)


@pytest.mark.parametrize(
    ("changed", "stops"),
    [({}, (1, 12, 22)), ({"mitigation": "lagrangian"}, (12,)), ({"rewind": True}, (22,))],
    ids=["snl", "fair", "rewind"],
)
def test_a_mask_path_and_its_control(changed, stops, teacher, digits, store, stop_after):
    options = replace(SETTINGS, **changed)

    def run():
        path = snl(teacher, digits, [0.8, 0.5, 0.3], seeds=[0], options=options, progress=False)
        phase = find("snl").phase(options, teacher, digits, [0])
        copies = control(teacher, digits, path, seeds=[0], progress=False, **phase)
        return path, copies

    whole = run()
    for stop in stops:
        again = interrupted(run, store, stop_after, stop)
        for one, two in zip([*whole[0], *whole[1]], [*again[0], *again[1]], strict=True):
            assert equal(one.model, two.model) and (one.epochs, one.steps) == (two.epochs, two.steps)
        assert whole[0][0].history == again[0][0].history


@pytest.mark.parametrize("arm", [None, *MITIGATIONS])
def test_fine_tuning_under_every_mitigation(arm, teacher, digits, store, stop_after):
    [half] = snl(teacher, digits, [0.5], seeds=[0], options=SETTINGS, progress=False)
    how = Schedule(epochs=4, lr=1e-3, decay="cosine")

    def run():
        return finetune(half, teacher, digits, seeds=[0], schedule=how, mitigation=arm, progress=False)

    whole = run()
    again = interrupted(run, store, stop_after, 2)
    assert equal(whole.model, again.model) and whole.finetuning == again.finetuning


@pytest.mark.parametrize("method", [name for name, one in LINEARIZERS.items() if hasattr(one.options(), "schedule")])
def test_every_method_that_trains_goes_on(method, teacher, digits, store, stop_after):
    """Fits that a method had ended before it was stopped are read, not trained again."""
    options = SETTINGS if method == "snl" else find(method).options(schedule=Schedule(epochs=2, lr=1e-2))

    def run():
        return find(method).run(teacher, digits, [0.5], seeds=[0], options=options, progress=False)

    [whole] = run()
    [again] = interrupted(run, store, stop_after, 3)
    assert equal(whole.model, again.model)


def test_a_state_of_another_call_or_network_is_left_alone(digits, teacher, store, stop_after):
    def run(lr: float, network: nn.Module):
        how = Schedule(epochs=3, lr=lr)
        return fit(network, digits, supervised, how, seeds=[0], stage="base", parts=(), progress=False), network

    stop_after(2)
    with pytest.raises(Stopped), resumable(store, name="stage", every=0):
        run(1e-2, copy.deepcopy(teacher))
    stop_after(10**6)
    for lr, network in ((1e-3, teacher), (1e-2, gates.install(teacher, digits.input_shape))):
        whole = run(lr, copy.deepcopy(network))
        with resumable(store, name="stage", every=1e9):
            again = run(lr, copy.deepcopy(network))
        assert whole[0] == again[0] and equal(whole[1], again[1])


def test_eigenvalues_of_a_stopped_search_are_kept_group_by_group(digits, teacher, store, monkeypatch):
    """The same numbers, to the last bit; only the groups whose search had not ended are searched again."""
    search, searched = curvature._search, []

    def counted(*args, **options):
        if len(searched) == stop:
            raise Stopped
        searched.append(1)
        return search(*args, **options)

    monkeypatch.setattr(curvature, "_search", counted)
    one, stop = stages.Stages(digits, store=store, progress=False), None
    monkeypatch.setattr(stages, "resumable", partial(resumable, every=0))
    whole, needed = curvature.top_eigenvalue_pairs(teacher, digits), len(searched)
    stop = needed + 4
    with pytest.raises(Stopped), one.measuring(teacher):
        curvature.top_eigenvalue_pairs(teacher, digits)
    kept, stop = len(list((store.folder / "checkpoints").glob("*-fit*"))), None
    assert 0 < kept <= 4
    before = len(searched)
    with one.measuring(teacher):
        assert curvature.top_eigenvalue_pairs(teacher, digits) == whole
    assert len(searched) - before < needed
    assert not list((store.folder / "checkpoints").iterdir())


def test_a_training_that_declares_nothing_is_not_kept(digits, teacher, store, stop_after):
    with resumable(store, name="stage", every=0):
        how = Schedule(epochs=1, lr=1e-3)
        fit(copy.deepcopy(teacher), digits, supervised, how, seeds=[0], stage="base", progress=False)
    assert not (store.folder / "checkpoints").exists()


STATES: dict[str, Callable[[dict, dict], tuple[dict, object]]] = {
    "notes null": lambda tensors, notes: (tensors, None),
    "notes []": lambda tensors, notes: (tensors, []),
    "no parts": lambda tensors, notes: (tensors, notes | {"parts": []}),
    "parts of text": lambda tensors, notes: (tensors, notes | {"parts": ["x"]}),
    "rows null": lambda tensors, notes: (tensors, notes | {"rows": None}),
    "seconds of text": lambda tensors, notes: (tensors, notes | {"seconds": "long"}),
    "without the optimizer's numbers": lambda tensors, notes: (
        {name.replace("optimizer/0/", "optimizer/99/"): value for name, value in tensors.items()},
        notes,
    ),
    "weights nan": lambda tensors, notes: (
        {name: value * math.nan if "weight" in name else value for name, value in tensors.items()},
        notes,
    ),
}


@pytest.mark.parametrize("kind", STATES)
def test_a_kept_state_that_does_not_fit_is_set_aside_and_the_stage_begins_anew(
    kind: str, digits: object, store: ResultStore, stop_after: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written by the store itself, so that digest and name are right. The mask path's has a part, whose state it is."""
    monkeypatch.setattr(stages, "resumable", partial(resumable, every=0))

    def path(where: ResultStore) -> nn.Module:
        one = stages.Stages(digits, store=where, progress=False)
        return (
            one.path(one.given(build("mlp", digits.input_shape, 10, seed=0)), "snl", (0.5,), SETTINGS).records[0].model
        )

    whole = path(ResultStore(store.folder / "whole"))
    stop_after(3)
    with pytest.raises(Stopped):
        path(store)
    stop_after(10**6)
    [kept] = (store.folder / "checkpoints").glob("*.safetensors")
    store.save(kept.stem, *STATES[kind](*store.load(kept.stem)))
    with pytest.warns(DamagedFile, match=f"{kept.name}.damaged-1"):
        again = path(store)
    assert equal(whole, again)
