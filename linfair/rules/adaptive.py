"""Private training that scales gradients where DP-SGD clips them: a repair that keeps the guarantee.

DP-SGD clips the images with large gradients, those of small and difficult groups before all, and so turns the batch's
gradient away from theirs. DPSGD-Global-Adapt (Esipova et al., ICLR 2023, arXiv 2206.07737) has a bound Z, and takes

    g = (sum_{i in B} g_i clip / max(Z, |g_i|) + noise * clip * N(0, 1)) / (q n),

so that gradients up to Z are all scaled alike, and no image adds more than `clip`. Z follows the gradients privately,

    Z <- Z exp(b - rate),    b = (#{i in B: |g_i| > threshold * Z} + count_noise * N(0, 1)) / (q n),

until about a share `rate` of a batch lies above it. Nothing here knows the groups. One image changes the sum by at most
`clip` and the count by at most 1, both from one Poisson batch, so a step is one Gaussian mechanism whose noise is

    (noise^-2 + count_noise^-2)^(-1/2)

and it is this noise that epsilon is counted for (as Andrew et al., NeurIPS 2021, do). The formulas are those of the
authors' released code, but that it divides b by the size of the batch drawn, which is private, and not by q n, and that
it counts both releases as if each drew a batch of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from linfair.ledger import Guarantee
from linfair.rules.private import DPSGD, PrivateGradient
from linfair.schedule import Schedule
from linfair.training import Data, seed_of


@dataclass(eq=False, kw_only=True)
class AdaptedGradient(PrivateGradient):
    """The rule of one training: `bound` is Z of each member, `above` the images of this step that lie over it."""

    bound: Tensor
    above: Tensor | float = 0.0

    def scale(self, norms: Tensor, here: Tensor) -> Tensor:
        """What each image's gradient is multiplied by; counts the large ones."""
        self.bound = self.bound.to(norms)
        self.above = self.above + ((norms > self.options.threshold * self.bound) & here).sum(dim=0)
        return self.options.clip / torch.maximum(norms, self.bound)

    def _noisy(self, sums: dict[str, Tensor]) -> None:
        """Add noise to the sums and to the count, and move the bound by that count."""
        super()._noisy(sums)
        drawn = [torch.Generator().manual_seed(seed_of(f"{one}/{self.stage}/{self.steps}/count")) for one in self.seeds]
        noise = torch.cat([torch.randn(1, generator=one) for one in drawn]).to(self.bound)
        share = (self.above + (self.options.count_noise if self.noise else 0.0) * noise) / self.size
        self.bound, self.above = self.bound * (share - self.options.rate).exp(), 0.0

    def state(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        """What `linfair.resume` keeps."""
        return {"bound": self.bound}, {"steps": self.steps}

    def restore(self, tensors: dict[str, Tensor], notes: dict[str, object]) -> None:
        """Take what was kept."""
        self.bound, self.steps = tensors["bound"], int(notes["steps"])


@dataclass(frozen=True)
class DPGlobalAdapt(DPSGD):
    """DP-SGD that scales gradients up to an adapted bound and clips those beyond it."""

    name = "dp_global_adapt"
    bound: float = 1.0  #: Z at the start; at `clip` the first step is DP-SGD's
    rate: float = 0.2  #: The share of a batch that is to lie above the bound
    threshold: float = 1.0  #: From where on a gradient counts as above it, over Z
    count_noise: float = 10.0  #: Standard deviation of the count's noise; it must be above that of the whole step

    def guarantee(self, n: int, schedule: Schedule) -> Guarantee | None:
        """What a training on n images guarantees; its noise is that of both releases together."""
        if not self.noise:
            return super().guarantee(n, schedule)
        return DPSGD.guarantee(replace(self, noise=(self.noise**-2 + self.count_noise**-2) ** -0.5), n, schedule)

    def gradient(self, data: Data, schedule: Schedule, seeds: Sequence[int], stage: str) -> AdaptedGradient:
        """The rule itself."""
        plain = super().gradient(data, schedule, seeds, stage)
        if (both := plain.noise) >= self.count_noise:
            raise ValueError(f"count_noise must be above {both:.3g}, the noise of a whole step, got {self.count_noise}")
        noise = (both**-2 - self.count_noise**-2) ** -0.5 if both else 0.0
        bound = torch.full((len(seeds),), self.bound)
        return AdaptedGradient(options=self, noise=noise, size=plain.size, seeds=plain.seeds, stage=stage, bound=bound)
