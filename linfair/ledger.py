"""The ledger of privacy guarantees: what a network was trained with, and what its later steps left of it.

A private rule (`linfair.rules`) gives a network an (epsilon, delta) guarantee for each training image: with the image
or without it, any set of networks comes out with probabilities P <= e^epsilon P' + delta (Dwork et al., 2006). What is
computed from that network alone keeps the guarantee (post-processing). What reads the training images again without
noise of its own ends it: nothing is known then, and no number is left to print. A step that nobody described ends it.
"""

from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Context


@dataclass(frozen=True)
class Step:
    """One thing that is done to a network, whether a guarantee outlives it, and why, in words that follow `which`."""

    name: str
    keeps: bool
    why: str


_KEEPS = {
    "magnitude mask": "reads the weights alone",
    "random mask": "reads nothing",
    "averaging": "joins weights that were computed with noise",
    "export": "writes the weights as they are",
    "measuring": "leaves the network as it is, though numbers on training images are released without noise",
}
_ENDS = {
    "SNL": "learns masks and weights from training images without noise",
    "DeepReDuce": "trains and compares networks on training images without noise",
    "SNIP": "scores by gradients of training images",
    "negative_part": "scores by activations of training images",
    "retraining": "follows gradients of training images without noise",
    "fine-tuning": "follows gradients of training images without noise",
    "distillation from a non-private teacher": "hands on what that teacher knows of training images",
    "group multipliers": "follow the losses of groups of training images",
    "balanced sampling": "draws training images by their groups, at other rates than the accountant counted",
    "batch-norm re-estimation": "takes means and deviations of training images without noise",
    "normalisation by training images": "takes their mean and deviation without noise",
    "repeated images": "gives a training image several gradients in a batch, of which the accountant counted one",
    "a mask of another network": "may show what that network knows of training images",
    "choice among networks": "has seen several, each of which spent a guarantee of its own",
    "an undescribed step": "may read training images",
}
STEPS = {name: Step(name, keeps, why) for keeps, said in ((True, _KEEPS), (False, _ENDS)) for name, why in said.items()}
"""Every step by name."""
UNDESCRIBED = STEPS["an undescribed step"]


@dataclass(frozen=True)
class Guarantee:
    """What private training promises of each `unit`, how it was counted, and what ended it; checked on its numbers."""

    epsilon: float
    delta: float
    accountant: str  #: How the steps were added up, `rdp` or `prv`
    noise: float  #: Standard deviation of the noise, in units of `clip`
    clip: float  #: Largest norm of the gradient of one image
    rate: float  #: Probability with which an image is in a batch
    steps: int
    unit: str = "training image"
    ended: str = ""  #: The name of the step that ended it; empty while it holds

    def __post_init__(self) -> None:
        for name in ("epsilon", "delta", "noise", "clip", "rate"):
            value, most = getattr(self, name), 1 if name in ("delta", "rate") else float("inf")
            if not 0 < value < most and (name, value) != ("rate", 1):
                below = {"delta": "below 1", "rate": "at most 1"}.get(name, "finite")
                raise ValueError(f"has {name} = {value} in its guarantee; {name} is above 0 and {below}")
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise ValueError(f"has steps = {self.steps} in its guarantee; steps is a whole number above 0")
        if self.ended and (self.ended not in STEPS or STEPS[self.ended].keeps):
            known = ", ".join(_ENDS)
            raise ValueError(f"has ended = {self.ended[:80]!r} in its guarantee; what ends one is one of {known}")

    @property
    def holds(self) -> bool:
        """Whether nothing has ended it."""
        return not self.ended

    def text(self) -> str:
        """One line for reports; epsilon and delta are rounded up.

        >>> Guarantee(7.99999, 1e-5, "rdp", 2.2, 1.0, 0.25, 160).text().partition(" for")[0]
        'privacy guarantee holds: epsilon = 8, delta = 1e-05'
        """
        up = Context(prec=4, rounding=ROUND_CEILING).create_decimal
        budget = ", ".join(f"{name} = {float(up(repr(getattr(self, name)))):g}" for name in ("epsilon", "delta"))
        if self.ended:
            return f"no privacy guarantee: that of {budget} was ended by {self.ended}, which {STEPS[self.ended].why}"
        how = f"noise {self.noise:.4g}, clip {self.clip:g}, rate {self.rate:.4g}, {self.steps:,} steps"
        held = f"privacy guarantee holds: {budget} for each {self.unit} ({how}, {self.accountant} accountant)"
        counted = f"it counts one training, from weights that had learned nothing of these {self.unit}s"
        return f"{held}; {counted}, and covers the network, not numbers that are measured on {self.unit}s"


def masked_by(guarantee: Guarantee | None, step: str, *, same: bool) -> Guarantee | None:
    """What a mask leaves of a network's guarantee, made by a step, from the `same` network or another one."""
    done = STEPS.get(step, UNDESCRIBED)
    if done.keeps and not same and step != "random mask":
        done = STEPS["a mask of another network"]
    return after(guarantee, done)


def after(guarantee: Guarantee | None, step: Step) -> Guarantee | None:
    """The guarantee after a step; what has ended stays ended, and what never was private stays so."""
    if guarantee is None or guarantee.ended or step.keeps:
        return guarantee
    return replace(guarantee, ended=step.name)
