"""Networks for small images and plain features, of any `width`, built from `nn.ReLU` modules, one module per call.

At 32x32 ResNet18 and 34 hold 491,520 and 901,120 ReLU units: the stem has no ReLU after it, as in the code released
with the paper. Batch norm joins the images of a batch, so private training, which clips the gradient of each, cannot
use it: every network takes group norm in its place, and convolutions with standardised weights (De et al. 2022).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from linfair.names import unknown

Shape = tuple[int, ...]


class MLP(nn.Sequential):
    """Fully connected: flatten, then linear and ReLU for each of two layers of `width` units, then linear.

    It has no norm; `grouped`, there is a group norm over the units between each linear layer and its ReLU.
    """

    def __init__(self, input_shape: Shape, classes: int, *, width: int = 64, grouped: bool = False) -> None:
        features, hidden = [torch.Size(input_shape).numel(), width, width], []
        for a, b in zip(features, features[1:], strict=False):
            hidden += [nn.Linear(a, b), *[group_norm(b, 4)] * grouped, nn.ReLU()]
        super().__init__(nn.Flatten(), *hidden, nn.Linear(features[-1], classes))


def groups(channels: int, least: int = 2) -> int:
    """Groups of a group norm: as many as divide the channels, at most 16 (De et al. 2022), of `least` channels or more.

    A group of one channel would be instance norm; of two units without an image a norm makes 1 and -1, so these need
    four.

    >>> [groups(channels) for channels in (8, 16, 64, 6, 7, 1)], groups(32, 4)
    ([4, 8, 16, 3, 1, 1], 8)
    """
    return max(count for count in range(1, 17) if count == 1 or (channels % count == 0 and channels >= least * count))


def group_norm(channels: int, least: int = 2) -> nn.GroupNorm:
    """Group norm with `groups` groups (Wu and He, ECCV 2018)."""
    return nn.GroupNorm(groups(channels, least), channels)


class StandardisedConv2d(nn.Conv2d):
    """A convolution whose weights are standardised for each output channel (Qiao et al., arXiv 1903.10520, Eq. 5).

    w becomes v / sqrt(|v|^2 + 1e-5) with v = w - mean(w), over the weights of the channel that are not 0; weights of 0,
    which pruning leaves behind, stay 0. Qiao et al. divide by the standard deviation; |v| itself is what the code of
    Brock et al. (2021) and De et al. (2022) divides by. A norm behind the layer takes off the factor.
    """

    def standardised(self) -> Tensor:
        """The weights that it convolves with."""
        axes, there = (1, 2, 3), self.weight != 0
        mean = self.weight.sum(axes, keepdim=True) / there.sum(axes, keepdim=True).clamp(min=1)
        v = there * (self.weight - mean)
        return v * (v.square().sum(axes, keepdim=True) + 1e-5).rsqrt()

    def forward(self, input: Tensor) -> Tensor:
        """Convolve with the standardised weights."""
        return self._conv_forward(input, self.standardised(), self.bias)


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, and a shortcut (He et al., CVPR 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu1 = _conv(inputs, outputs, stride), nn.BatchNorm2d(outputs), nn.ReLU()
        self.conv2, self.bn2, self.relu2 = _conv(outputs, outputs), nn.BatchNorm2d(outputs), nn.ReLU()
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Run the block."""
        out = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(out + self.shortcut(x))


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 and a 1x1 convolution with batch norm, the last four times as wide, and a shortcut (He et al.)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        inner = outputs // 4
        self.conv1, self.bn1, self.relu1 = nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU()
        self.conv2, self.bn2, self.relu2 = _conv(inner, inner, stride), nn.BatchNorm2d(inner), nn.ReLU()
        self.conv3, self.bn3, self.relu3 = nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Run the block."""
        out = self.relu2(self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x))))))
        return self.relu3(self.bn3(self.conv3(out)) + self.shortcut(x))


class PreActivationBlock(nn.Module):
    """Batch norm, ReLU and 3x3 convolution, twice, and a shortcut (Zagoruyko and Komodakis, BMVC 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.relu1, self.conv1 = nn.BatchNorm2d(inputs), nn.ReLU(), _conv(inputs, outputs, stride)
        self.bn2, self.relu2, self.conv2 = nn.BatchNorm2d(outputs), nn.ReLU(), _conv(outputs, outputs)
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Run the block; a projection shortcut starts behind the first ReLU, an identity one before it."""
        ready = self.relu1(self.bn1(x))
        out = self.conv2(self.relu2(self.bn2(self.conv1(ready))))
        return out + (x if self.shortcut is None else self.shortcut(ready))


class _Staged(nn.Module):
    """A stem, stages, a last norm, average pooling and a linear head: images (n, channels, height, width) to logits."""

    def __init__(self, stem: nn.Module, stages: nn.Module, norm: nn.Module, channels: int, classes: int) -> None:
        super().__init__()
        self.stem, self.stages, self.norm, self.pool = stem, stages, norm, nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.norm(self.stages(self.stem(x)))).flatten(1))


def _stages(block: type, blocks: Sequence[int], inputs: int, wide: int = 1) -> nn.Sequential:
    """Stages of blocks: `wide` times the inputs in the first, twice as many and half the size in every further one."""
    stages, first = [], inputs * wide
    for number, count in enumerate(blocks):
        channels = [inputs] + [first * 2**number] * count
        strides = [1 if number == 0 else 2] + [1] * (count - 1)
        stages.append(nn.Sequential(*map(block, channels, channels[1:], strides)))
        inputs = channels[-1]
    return nn.Sequential(*stages)


class ResNet(_Staged):
    """ResNet for small images: a 3x3 stem of `width` channels without ReLU, and stages of blocks.

    Blocks of the first stage give `width` channels, bottlenecks four times as many.
    """

    def __init__(
        self, input_shape: Shape, classes: int, *, block: type = BasicBlock, blocks: Shape = (2,) * 4, width: int = 64
    ) -> None:
        stem, wide = nn.Sequential(_conv(input_shape[0], width), nn.BatchNorm2d(width)), 1 + 3 * (block is Bottleneck)
        stages = _stages(block, blocks, width, wide)
        super().__init__(stem, stages, nn.Identity(), wide * width * 2 ** (len(blocks) - 1), classes)


class WideResNet(_Staged):
    """Wide ResNet with pre-activation and no ReLU before the head, `width` channels in its stem: WRN-22-8, WRN-16-4.

    Its three stages of `blocks` blocks have `wide` times 1, 2 and 4 as many channels.
    """

    def __init__(self, input_shape: Shape, classes: int, *, blocks: int = 3, width: int = 16, wide: int = 8) -> None:
        stem, stages = _conv(input_shape[0], width), _stages(PreActivationBlock, [blocks] * 3, width, wide)
        super().__init__(stem, stages, nn.BatchNorm2d(4 * width * wide), 4 * width * wide, classes)


class VGG(_Staged):
    """VGG with batch norm, a max-pooling between its five stages and one linear layer (Simonyan and Zisserman, 2015).

    Stages have `width` times 1, 2, 4, 8 and 8 channels; small images skip the poolings that would leave nothing. With
    `large_head` the head is that for ImageNet: 7x7 averages, two hidden layers of 64 `width` units with dropout.
    """

    def __init__(self, input_shape: Shape, classes: int, *, width: int = 64, large_head: bool = False) -> None:
        channels, side, stages = input_shape[0], min(input_shape[1:]), []
        for number, count in enumerate((2, 2, 4, 4, 4)):
            layers: list[nn.Module] = [nn.MaxPool2d(2)] if number and side >= 2 else []
            side //= 2 if layers else 1
            for outputs in [width * 2 ** min(number, 3)] * count:
                layers += [_conv(channels, outputs), nn.BatchNorm2d(outputs), nn.ReLU()]
                channels = outputs
            stages.append(nn.Sequential(*layers))
        super().__init__(nn.Identity(), nn.Sequential(*stages), nn.Identity(), channels, classes)
        if large_head:
            self.pool, sizes = nn.AdaptiveAvgPool2d(7), [49 * channels, 64 * width, 64 * width]
            each = zip(sizes, sizes[1:], strict=False)
            hidden = [layer for a, b in each for layer in (nn.Linear(a, b), nn.ReLU(), nn.Dropout())]
            self.head = nn.Sequential(*hidden, nn.Linear(sizes[-1], classes))


class CNN(nn.Sequential):
    """Two 5x5 convolutions, each with ReLU and a 2x2 max-pooling, then three linear layers, with LeNet-5's channels.

    At the full width of 6 these are 6 and 16 channels, 120 and 84 units (LeCun et al., 1998); images are padded. It has
    no norm; `grouped`, there is a group norm between each convolution and its ReLU.
    """

    def __init__(self, input_shape: Shape, classes: int, *, width: int = 6, grouped: bool = False) -> None:
        channels, layers = [input_shape[0], width, 8 * width // 3], []
        for a, b in zip(channels, channels[1:], strict=False):
            layers += [nn.Conv2d(a, b, 5, padding=2), *[group_norm(b)] * grouped, nn.ReLU(), nn.MaxPool2d(2)]
        sizes = [channels[-1] * (input_shape[1] // 4) * (input_shape[2] // 4), 20 * width, 14 * width]
        hidden = [layer for a, b in zip(sizes, sizes[1:], strict=False) for layer in (nn.Linear(a, b), nn.ReLU())]
        super().__init__(*layers, nn.Flatten(), *hidden, nn.Linear(sizes[-1], classes))


NETWORKS: dict[str, tuple[Callable[..., nn.Module], dict[str, object], int]] = {
    "mlp": (MLP, {}, 64),
    "resnet18": (ResNet, {}, 64),
    "resnet34": (ResNet, {"blocks": (3, 4, 6, 3)}, 64),
    "resnet50": (ResNet, {"block": Bottleneck, "blocks": (3, 4, 6, 3)}, 64),
    "wrn22_8": (WideResNet, {}, 16),
    "wrn16_4": (WideResNet, {"blocks": 2, "wide": 4}, 16),
    "vgg19": (VGG, {}, 64),
    "vgg19_imagenet": (VGG, {"large_head": True}, 64),
    "cnn": (CNN, {}, 6),
}
"""Name -> (class, options other than its own, the paper's width)."""

INITS = ("torch", "kaiming_normal")
"""How convolutions and linear layers start: torch's own, uniform with standard deviation 1 / sqrt(3 fan_in), or normal
with sqrt(2 / fan_in), 2.4 times as much (He et al., ICCV 2015), as the ResNets released with the paper do."""


NORMS = ("batch", "group")
"""What networks normalise by; `mlp` and `cnn` have no batch norm, so that `batch` leaves them without any."""


def threads_of(network: str) -> int | None:
    """CPU threads on which a network of that name is computed: an MLP is too small for more than one; None is all."""
    return 1 if network == "mlp" else None


def build(
    name: str,
    input_shape: Shape,
    classes: int,
    *,
    width: int | None = None,
    seed: int = 0,
    init: str = "torch",
    norm: str = "batch",
    standardised: bool = False,
) -> nn.Module:
    """Build a network on the CPU, its weights drawn from one seed; the global random state stays as it is.

    Args:
        name: One of `NETWORKS`.
        input_shape: Shape of one input.
        classes: At least 2.
        width: Channels or units of the first stage; None is the full network.
        seed: Seed of the initial weights.
        init: One of `INITS`, for the weights of convolutions and linear layers; biases and norms are torch's own.
        norm: One of `NORMS`; `group` puts a `group_norm` where batch norms are, and for `mlp` and `cnn`, which have no
            norm, between each hidden linear layer or convolution and its ReLU. The drawn weights are the same.
        standardised: Make every convolution a `StandardisedConv2d`, the drawn weights the same; for networks with a
            norm, which takes off the scale. A ValueError names what makes no network.
    """
    if name not in NETWORKS:
        raise ValueError(unknown("no network", name, NETWORKS))
    if classes < 2 or (width is not None and width < 1):
        raise ValueError(f"a network needs classes >= 2 and width >= 1, got classes={classes}, width={width}")
    for what, given, known in (("init", init, INITS), ("norm", norm, NORMS)):
        if given not in known:
            raise ValueError(f"no {what} {given!r}; there are {', '.join(known)}")
    kind, options, full = NETWORKS[name]
    if kind is not MLP and (len(input_shape) != 3 or min(input_shape[1:]) < (4 if kind is CNN else 1)):
        takes = f"{name} takes images (channels, height, width){' of at least 4x4 pixels' * (kind is CNN)}"
        raise ValueError(f"{takes}, got inputs of shape {tuple(input_shape)}")
    if norm == "group" and kind in (MLP, CNN):
        options = options | {"grouped": True}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = kind(tuple(input_shape), classes, width=width or full, **options)
        for module in network.modules() if init == "kaiming_normal" else ():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
    return _changed(network, f"{name} of width {width or full}", norm, standardised)


def _changed(network: nn.Module, whose: str, norm: str, standardised: bool) -> nn.Module:
    """A network with the norm and the convolutions that are asked for, its weights as they are."""
    for module in list(network.modules()):
        for name, child in module._modules.items():
            if isinstance(child, nn.BatchNorm2d) and norm == "group":
                module._modules[name] = group_norm(child.num_features)
            elif isinstance(child, nn.Conv2d) and standardised:
                if child.weight[0].numel() < 2:
                    text = f"{whose} has a convolution with one weight a channel, which standardising would make 0; "
                    raise ValueError(f"{text}take a larger width, or standardised=False")
                child.__class__ = StandardisedConv2d
    if any(isinstance(one, nn.GroupNorm) and one.num_channels < 2 for one in network.modules()):
        raise ValueError(f"{whose} has a layer of one channel, and group norm needs two; take a larger width")
    return network
