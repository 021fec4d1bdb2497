"""One-shot controls: rank the units once, keep the best, train nothing before fine-tuning.

They tell whether the *selection* of the units or only their *count* drives a disparity. Each meets its budget exactly.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from linfair import gates
from linfair.data import GroupedData
from linfair.device import full_precision
from linfair.ensemble import Ensemble
from linfair.linearizers.record import LinearizedModel, budget_units, check_budgets, record
from linfair.masks import RELUS, Reduction
from linfair.names import some
from linfair.training import Batch, Data, Source, seed_of, supervised

Scores = dict[str, Tensor]


@dataclass(frozen=True)
class OneShot:
    """Options of the one-shot methods.

    Attributes:
        batch_size: Images of a batch while scoring; it does not change the scores beyond rounding.
    """

    batch_size: int = 512


def random_scores(network: nn.Module, data: GroupedData, seed: int, options: OneShot) -> Scores:
    """A uniform random number for each unit."""
    generator, [mask] = torch.Generator().manual_seed(seed_of(f"{seed}/random")), reduction_of(options).masks(network)
    return {site: torch.rand(unit.shape, generator=generator) for site, unit in mask.units.items()}


def reduction_of(options: object) -> Reduction:
    """What is removed under a method's options."""
    return getattr(options, "reduction", RELUS)


@full_precision()
def negative_part_scores(network: nn.Module, data: GroupedData, seed: int, options: OneShot) -> Scores:
    """Mean of max(-x, 0), which linearizing a unit changes, over the training split, x its input in evaluation mode."""
    sums: Scores = {}

    def add(site: str, _gate: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        (x,) = (*args, *kwargs.values())
        sums[site] = sums.get(site, 0) + x.clamp(max=0).double().neg().sum(0)

    found = gates.sites(network).items()
    handles = [gate.register_forward_pre_hook(partial(add, site), with_kwargs=True) for site, gate in found]
    with torch.no_grad():
        for batch in batches(network, data, options.batch_size):
            network(batch.x)
    for handle in handles:
        handle.remove()
    return {site: total.cpu() / len(data.splits["train"]) for site, total in sums.items()}


@full_precision()
def snip_scores(network: nn.Module, data: GroupedData, seed: int, options: OneShot) -> Scores:
    """|dL/dalpha| at alpha = 1 for each unit, L the mean cross entropy over the training split.

    After SNIP (Lee, Ajanthan, Torr; ICLR 2019), which SNL's authors use as a baseline for gates.
    """
    gates.freeze(network, frozen=False)
    for gate in gates.sites(network).values():
        gate.alpha.grad = torch.zeros_like(gate.alpha)  # of a unit that does not reach the scores, too
    n = len(data.splits["train"])
    for batch in batches(network, data, options.batch_size):
        (supervised(network, batch) * len(batch.y) / n).backward()
    scores = {site: gate.alpha.grad.abs().double().cpu() for site, gate in gates.sites(network).items()}
    network.zero_grad(set_to_none=True)
    gates.freeze(network)
    return scores


def batches(network: nn.Module, data: GroupedData, batch_size: int) -> Iterator[Batch]:
    """The training split in batches, in its own order."""
    source = Source(data, "train", network)
    return (source.take(part.unsqueeze(0)) for part in torch.arange(source.n, device=source.y.device).split(batch_size))


def top_units(scores: Scores, count: int, *, as_torch: bool = False) -> Scores:
    """The `count` units with the largest scores over all sites, as boolean tensors.

    Of equal scores, those stay that `topk` finds; `as_torch` those that `torch.nn.utils.prune` keeps (the smallest go).

    >>> best = top_units({"a": torch.tensor([3.0, 1.0]), "b": torch.tensor([2.0])}, 2)
    >>> {site: unit.tolist() for site, unit in best.items()}
    {'a': [True, False], 'b': [True]}
    """
    flat = torch.cat([score.flatten().cpu() for score in scores.values()])
    chosen = torch.full((len(flat),), as_torch)
    chosen[flat.topk(len(flat) - count if as_torch else count, largest=not as_torch).indices] = not as_torch
    parts = chosen.split([score.numel() for score in scores.values()])
    return {site: part.view(score.shape) for (site, score), part in zip(scores.items(), parts, strict=True)}


def even_units(scores: Scores, count: int, **ties: bool) -> Scores:
    """The same share of every site, by score within the site; largest remainders make the total `count`.

    >>> even = even_units({"a": torch.arange(4.0), "b": torch.arange(2.0)}, 3)
    >>> {site: unit.tolist() for site, unit in even.items()}
    {'a': [False, False, True, True], 'b': [False, True]}
    """
    total = sum(score.numel() for score in scores.values())
    shares = {site: count * score.numel() / total for site, score in scores.items()}
    counts = {site: int(share) for site, share in shares.items()}
    for site in sorted(shares, key=lambda site: counts[site] - shares[site])[: count - sum(counts.values())]:
        counts[site] += 1
    return {site: top_units({site: score}, counts[site], **ties)[site] for site, score in scores.items()}


def one_shot(
    name: str,
    score: Callable[[nn.Module, GroupedData, int, OneShot], Scores],
    choose: Callable[[Scores, int], Scores],
    kind: type = OneShot,
) -> Callable[..., list[LinearizedModel]]:
    """A linearizer or pruner from a score for each unit, called like `linfair.linearizers.snl`.

    `score` makes scores by site of a network with switches (frozen gates) in evaluation mode, its data, seed and
    options; it leaves the weights as they are. `choose` says which units stay, exactly a count: `top_units` or
    `even_units`. `kind` is the dataclass of the options; its `reduction` says what is removed, its `ready` makes a
    masked network ready.
    """

    def run(
        teacher: nn.Module,
        data: Data,
        budgets: Sequence[float],
        *,
        seeds: Sequence[int],
        options: OneShot | None = None,
        progress: bool = True,
    ) -> list[LinearizedModel]:
        budgets, options, single = check_budgets(budgets), options or kind(), not isinstance(teacher, Ensemble)
        sets, reduction, records = [data] if single else list(data), reduction_of(options), []
        ready = getattr(options, "ready", lambda network, _: network)
        switched = reduction.fixed(reduction.install(teacher, sets[0].input_shape)).eval()
        networks, present = [switched] if single else switched.networks(), reduction.masks(switched)
        each = zip(networks, sets, seeds, strict=True)
        scores = [score(network, one, seed, options) for network, one, seed in each]
        if bad := [site for one in scores for site, values in one.items() if not values.isfinite().all()]:
            text = f"{name} cannot rank units whose scores are not finite, at {some(dict.fromkeys(bad))}"
            raise ValueError(f"{text}; the network diverged: train it at a lower rate")
        for budget, units in ((budget, budget_units(budget, present[0].total)) for budget in budgets):
            masks = [replace(mask, units=choose(one, units)) for mask, one in zip(present, scores, strict=True)]
            each = zip(networks, masks, sets, strict=True)
            masked = [ready(reduction.apply(copy.deepcopy(net), mask), one) for net, mask, one in each]
            epochs = [0] * len(masked)
            records.append(record(name, budget, units, masked, epochs, [], single=single, reduction=reduction))
        return records

    run.__name__ = name
    return run


random = one_shot("random", random_scores, top_units)
uniform = one_shot("uniform", random_scores, even_units)
negative_part = one_shot("negative_part", negative_part_scores, top_units)
snip = one_shot("snip", snip_scores, top_units)
