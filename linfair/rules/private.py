"""Private training: DP-SGD, and DP-SAT, which takes its gradients after a step along what it has released already.

A batch B holds each of n images with probability q, all independent (Poisson); q n is the schedule's batch size. With
g_i the gradient of image i's cross entropy, over all trained parameters and averaged over `multiplicity` shifts, a step
releases

    g = (sum_{i in B} g_i min(1, clip / (|g_i| + 1e-6)) + noise * clip * N(0, 1)) / (q n)

(Abadi et al., CCS 2016), from which the schedule's optimizer goes on: momentum, decay and averages cost no privacy. An
empty batch is a step of noise alone. DP-SAT (Park et al., ICML 2023) takes the g_i at w + rho g' / |g'|, g' being the
step before's g and nothing at first: what is released already costs nothing either.

The noise is drawn from seed, stage and step: it can be drawn again, so it is not cryptographic, and neither are
arithmetic and random numbers in float32. The loss in the history is the batch's own, without clipping or noise: it is
not private. What is measured is what such a training does, not what may be published.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from linfair.data import GroupedData
from linfair.ensemble import Ensemble
from linfair.ledger import Guarantee
from linfair.rules.accounting import noise_for, spent
from linfair.rules.options import RuleOptions
from linfair.schedule import Loss, Schedule
from linfair.training import Batch, Batches, Data, seed_of, supervised


def poisson(groups: Tensor, batch_size: int | None, generator: torch.Generator) -> Sequence[Tensor]:
    """Batches that hold each image with the same probability, all independent: round(n / batch size) of them.

    >>> parts = poisson(torch.zeros(1000), 100, torch.Generator().manual_seed(0))
    >>> len(parts), 60 < len(parts[0]) < 140
    (10, True)
    """
    rate, steps = sampling(len(groups), batch_size)
    draws = (torch.rand(len(groups), generator=generator, dtype=torch.float64) for _ in range(steps))
    return [(one < rate).nonzero().flatten() for one in draws]


def sampling(n: int, batch_size: int | None) -> tuple[float, int]:
    """The probability of an image to be in a batch, and the batches of an epoch.

    >>> sampling(1000, 300), sampling(1000, None)
    ((0.3, 3), (1.0, 1))
    """
    size = min(batch_size or n, n)
    return size / n, round(n / size)


@dataclass(eq=False)
class PrivateGradient:
    """The rule of one training: `noise` is that over the options' `clip`, `size` the expected batch."""

    pads = True
    options: "DPSGD"
    noise: float
    size: float
    seeds: Sequence[int]
    stage: str
    steps: int = field(default=0, repr=False)  # done so far
    released: dict[str, Tensor] = field(default_factory=dict, repr=False)  # the last g, where DP-SAT needs it

    def check(self, model: nn.Module, objective: object, schedule: Schedule, batches: Batches) -> None:
        """Refuse what would not be private, or cannot be trained so."""
        rule, plan = self.options.name, getattr(batches, "plan", batches)
        for name, module in model.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) or getattr(module, "track_running_stats", False):
                whose = f"{name or type(model).__name__} ({type(module).__name__})"
                text = f"{rule} needs a gradient of each image on its own, and {whose} mixes the images of a batch, or "
                raise ValueError(f'{text}keeps their moments unprotected; build the network with norm="group"')
        if objective is not supervised:
            said = getattr(objective, "__name__", type(objective).__name__)
            text = f"{rule} bounds what each image adds through its own cross entropy; {said} may mix the images of a "
            text += "batch or ask a teacher: train on cross entropy, or with a rule that is not private"
            raise ValueError(text)
        if schedule.compile or schedule.precision != "float32" or schedule.tf32:
            given = f"compile={schedule.compile}, precision={schedule.precision!r}, tf32={schedule.tf32}"
            text = f"{rule} needs compile=False, precision='float32' and tf32=False, got {given}"
            raise ValueError(f"{text}; of the profiles for GPUs, fast_float32 has these")
        kinds = {str(one.dtype).partition(".")[2] for one in model.parameters() if one.requires_grad}
        if coarse := sorted(kinds - {"float32", "float64"}):
            text = f"{rule} bounds gradients to `clip`, which {coarse[0]} would round to more"
            raise ValueError(f"{text}: give the network weights of float32, model.float()")
        if plan is not poisson or getattr(batches, "times", 1) != self.options.multiplicity:
            raise ValueError(f"{rule} counts epsilon for the Poisson batches that `start` gives, so it takes no others")

    def __call__(self, model: nn.Module, loss: Loss, batch: Batch) -> Tensor:
        """Compute the gradients of a batch; returns its loss: no clipping, no noise, at the weights themselves."""
        many, members, times = isinstance(model, Ensemble), len(self.seeds), self.options.multiplicity
        network, axis = model.network if many else model, int(many)
        named, places = dict(network.named_parameters()), _places(network)
        held = named | dict(network.named_buffers())
        weights = {name: one.detach() for name, one in named.items() if one.requires_grad}
        rest = {name: one.detach() for name, one in held.items() if name not in weights}
        ascended = self._ascended(weights)
        shape = (batch.y.shape[axis] // times, times)
        fields = [one.unflatten(axis, shape) for one in (batch.x, batch.y, batch.a, batch.index)]

        def of_one(given: dict[str, Tensor], rest: dict[str, Tensor], *fields: Tensor) -> tuple[Tensor, Tensor]:
            own = Batch(*fields, augmented=batch.augmented)
            values = {place: (rest | given)[name] for place, name in places.items()}
            value = loss(own, lambda x: functional_call(network, values, (x,), tie_weights=False))
            return value, value

        def each(function: Callable, given: dict[str, Tensor], some: Sequence[Tensor]) -> tuple:
            images = vmap(function, (None, None, *[0] * 4), randomness="different")
            return (vmap(images, randomness="different") if many else images)(given, rest, *some)

        sums = {name: one.new_zeros(members, one.numel() // members) for name, one in weights.items()}
        total = batch.x.new_zeros(members)
        at_once = max(1, self.options.physical // times)
        for some in zip(*(one.split(at_once, dim=axis) for one in fields), strict=True) if shape[0] else ():
            gradients, values = each(grad(of_one, has_aux=True), ascended, some)
            if ascended is not weights:
                with torch.no_grad():
                    values = each(of_one, weights, some)[1]
            here = (some[3].select(-1, 0) >= 0).view(members, -1)  # others fill up
            total += (values.view(members, -1) * here).sum(dim=1)
            flat = {name: one.reshape(*here.shape, -1) for name, one in gradients.items()}
            norms = torch.stack([torch.linalg.vector_norm(one, dim=2) for one in flat.values()])
            scale = self.scale(torch.linalg.vector_norm(norms, dim=0).T, here.T).T * here
            for name, one in flat.items():
                sums[name] += torch.bmm(scale.to(one.dtype)[:, None], one)[:, 0]
        self._noisy(sums)
        for name, one in sums.items():
            named[name].grad = one.view_as(named[name]) / self.size
        if self.options.rho:
            self.released = {name: one / self.size for name, one in sums.items()}
        self.steps += 1
        images = (batch.index.view(members, -1) >= 0).sum(dim=1) // times
        return (total / images.clamp(min=1)).view(batch.y.shape[:-1])

    def scale(self, norms: Tensor, here: Tensor) -> Tensor:
        """What each image's gradient is multiplied by, from its norm and whether it is one, (images, members) each."""
        return (self.options.clip / (norms + 1e-6)).clamp(max=1.0)

    def _ascended(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weights, moved by rho along what was released last; nothing is changed in place."""
        if not self.released:
            return weights
        way = {name: self.released[name].to(one) for name, one in weights.items()}
        norms = torch.stack([torch.linalg.vector_norm(one, dim=1) for one in way.values()])
        length = self.options.rho / (torch.linalg.vector_norm(norms, dim=0) + 1e-12)
        return {name: one + (length[:, None] * way[name]).view_as(one) for name, one in weights.items()}

    def _noisy(self, sums: dict[str, Tensor]) -> None:
        """Add each member's noise of this step, drawn on the CPU."""
        if not self.noise:
            return
        sizes = [one.shape[1] for one in sums.values()]
        drawn = [torch.Generator().manual_seed(seed_of(f"{one}/{self.stage}/{self.steps}/noise")) for one in self.seeds]
        drawn = torch.stack([torch.randn(sum(sizes), generator=one) for one in drawn])
        for one, noise in zip(sums.values(), drawn.split(sizes, dim=1), strict=True):
            one += self.noise * self.options.clip * noise.to(one)

    def state(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        """What `linfair.resume` keeps."""
        return self.released, {"steps": self.steps}

    def restore(self, tensors: dict[str, Tensor], notes: dict[str, object]) -> None:
        """Take what was kept."""
        self.released, self.steps = dict(tensors), int(notes["steps"])


@dataclass(frozen=True)
class DPSGD(RuleOptions):
    """Differentially private SGD."""

    name = "dp_sgd"
    epsilon: float = 8.0  #: What all steps may spend, unless `noise` is given
    delta: float = 1e-5  #: At which it is counted
    clip: float = 1.0  #: Largest norm of an image's gradient
    noise: float | None = None  #: Its deviation over `clip`; None is the least that epsilon allows, 0 no guarantee
    physical: int = 256  #: Shifted images whose gradients are held at a time; bounds the memory, not the value
    plan = staticmethod(poisson)
    rho = 0.0

    def guarantee(self, n: int, schedule: Schedule) -> Guarantee | None:
        """What a training on n images guarantees; None without noise."""
        if self.delta >= 1 / n:
            raise ValueError(f"{self.name}: delta must be below 1 / {n} for {n} images, got {self.delta:g}")
        rate, each = sampling(n, schedule.batch_size)
        steps, noise = each * schedule.epochs, self.noise
        if noise is None:
            noise = noise_for(self.epsilon, self.delta, rate, steps)
        if not noise:
            return None
        if not (epsilon := spent(noise, self.delta, rate, steps)):
            text = f"{self.name}: noise of {noise:g} spends an epsilon of 0 at a delta of {self.delta:g}"
            raise ValueError(f"{text}, which says nothing of the noise: take a smaller delta, or less noise")
        return Guarantee(epsilon, self.delta, "rdp", noise=noise, clip=self.clip, rate=rate, steps=steps)

    def gradient(self, data: Data, schedule: Schedule, seeds: Sequence[int], stage: str) -> PrivateGradient:
        """The rule of one training."""
        n = len((data if isinstance(data, GroupedData) else data[0]).splits["train"])
        noise = getattr(self.guarantee(n, schedule), "noise", 0.0)
        return PrivateGradient(self, noise, sampling(n, schedule.batch_size)[0] * n, tuple(seeds), stage)


@dataclass(frozen=True)
class DPSAT(DPSGD):
    """DP-SGD with gradients taken after a step along the last noisy gradient."""

    name = "dp_sat"
    rho: float = 0.05  #: Length of the step


def _places(network: nn.Module) -> dict[str, str]:
    """Where each parameter and buffer lies, under one path of its module -> the name it goes by."""
    # torch's own ties swap the tensors of a module that has two names twice, and leave the wrong ones in the network
    names = {id(one): name for name, one in (*network.named_buffers(), *network.named_parameters())}
    modules = [(path, one._parameters | one._buffers) for path, one in network.named_modules()]
    held = [(f"{path}.{name}".lstrip("."), one) for path, own in modules for name, one in own.items()]
    return {place: names[id(one)] for place, one in held if one is not None}
