"""Networks against the counts in the literature and their seeds."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from linfair import gates, weights
from linfair.cost import count_macs
from linfair.data.torchvision import torchvision
from linfair.ensemble import Ensemble
from linfair.linearizers.configurations import stage_units
from linfair.masks import masks_of
from linfair.models import NETWORKS, VGG, StandardisedConv2d, WideResNet, build, group_norm, groups

IMAGE = (3, 32, 32)
KAIMING = {"init": "kaiming_normal"}


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "units", "stages", "weights"),
    [
        ("resnet18", 491_520, [262_144, 131_072, 65_536, 32_768], 11_173_962),
        ("resnet34", 901_120, [393_216, 262_144, 196_608, 49_152], 21_282_122),
        # kuangliu/pytorch-cifar's ResNet50 has 23,520,842 parameters; three ReLUs a block, widths and sizes by hand
        ("resnet50", 2_875_392, [1_179_648, 884_736, 638_976, 172_032], 23_520_842),
    ],
)
def test_resnets_have_the_papers_relu_units_and_the_known_parameter_counts(
    name: str, units: int, stages: list[int], weights: int
) -> None:
    """Units: SNL's and DeepReDuce's tables, no ReLU after the stem. Parameters: the CIFAR ResNets with 10 classes."""
    network = build(name, IMAGE, 10)
    assert parameters(network) == weights
    gated = gates.install(network, IMAGE)
    assert gates.total_units(gated) == gates.kept_units(gated).item() == units == sum(stages)
    found = [0] * 4
    for site, gate in gates.sites(gated).items():
        _, stage, *_ = site.split(".")
        found[int(stage)] += gate.alpha.numel()
    assert found == stages


@pytest.mark.parametrize(
    ("name", "units", "stages", "weights"),
    [
        # Zagoruyko and Komodakis' 17.2M
        ("wrn22_8", 1_359_872, [671_744, 458_752, 229_376], 17_158_106),
        # their 2.7M; four ReLUs a stage, the first on the channels and pixels of the stage before
        ("wrn16_4", 458_752, [212_992, 163_840, 81_920], 2_748_890),
        # kuangliu/pytorch-cifar's VGG19, 20,040,522, without its 5,504 convolution biases
        ("vgg19", 303_104, [131_072, 65_536, 65_536, 32_768, 8_192], 20_035_018),
    ],
)
def test_wide_resnet_and_vgg_have_the_papers_relu_units_and_the_known_parameter_counts(
    name: str, units: int, stages: list[int], weights: int
) -> None:
    network = build(name, IMAGE, 10)
    gated = gates.install(network, IMAGE)
    assert gates.total_units(gated) == units == sum(stages)
    assert stage_units(gated) == stages
    assert parameters(network) == weights


def test_the_wide_resnet_with_other_options_is_the_known_wrn_28_10() -> None:
    """36,479,194 parameters, Zagoruyko and Komodakis' 36.5M."""
    assert parameters(WideResNet(IMAGE, 10, blocks=4, width=16, wide=10)) == 36_479_194


def test_vgg19_with_the_imagenet_head_is_torchvisions_but_for_the_biases_of_convolutions() -> None:
    """143,678,248 parameters, the paper's 143 M, without 5,504 biases."""
    assert parameters(build("vgg19_imagenet", (3, 224, 224), 1000)) == 143_678_248 - 5_504


def test_the_small_cnn_has_two_convolutions_three_linear_layers_and_lenets_channels() -> None:
    network = build("cnn", IMAGE, 5)
    assert [one.out_channels for one in network if isinstance(one, nn.Conv2d)] == [6, 16]
    assert [one.out_features for one in network if isinstance(one, nn.Linear)] == [120, 84, 5]
    with pytest.raises(ValueError, match="at least 4x4 pixels"):
        build("cnn", (1, 3, 3), 2)


def loaded(network: nn.Module, source: nn.Module) -> nn.Module:
    """A network with another's tensors, taken in order; each must fit."""
    pairs = list(zip(network.state_dict().items(), source.state_dict().values(), strict=True))
    network.load_state_dict({name: value.view_as(own) for (name, own), value in pairs})
    return network.eval()


@pytest.mark.parametrize("name", ["resnet18", "resnet34"])
@torch.no_grad()
def test_resnet_stages_equal_torchvisions_layers(name: str) -> None:
    """Same tensors, same order: torchvision's four layers on the stem's output, in evaluation mode."""
    torch.manual_seed(0)
    network = build(name, IMAGE, 10)
    network(1 + 2 * torch.randn(4, *IMAGE))
    theirs = getattr(torchvision().models, name)(weights=None)
    layers = loaded(nn.Sequential(theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4), network.stages)
    x = network.eval().stem(torch.randn(2, *IMAGE))
    torch.testing.assert_close(network.stages(x), layers(x))
    assert layers(x).std() > 0


@torch.no_grad()
def test_vgg19_equals_torchvisions_vgg19_bn_up_to_its_last_pooling() -> None:
    """Same tensors; torchvision's convolutions have biases, here zero."""
    torch.manual_seed(0)
    network = build("vgg19", IMAGE, 10)
    network(1 + 2 * torch.randn(4, *IMAGE))
    theirs = torchvision().models.vgg19_bn(weights=None, init_weights=False).features[:-1].eval()
    ours = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.BatchNorm2d)]
    same = [module for module in theirs if isinstance(module, nn.Conv2d | nn.BatchNorm2d)]
    for mine, other in zip(ours, same, strict=True):
        state = mine.state_dict()
        other.load_state_dict(state | {"bias": state.get("bias", torch.zeros(len(state["weight"])))})
    x = torch.randn(2, *IMAGE)
    torch.testing.assert_close(network.eval().stages(x), theirs(x), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_wide_resnet_equals_its_forward_pass_written_out() -> None:
    """He et al.'s pre-activation: norm, ReLU, convolution, twice; a projection starts behind the first ReLU."""
    torch.manual_seed(0)
    network = build("wrn22_8", IMAGE, 10, width=2)
    network(1 + 2 * torch.randn(8, *IMAGE))
    network.eval()
    state = network.state_dict()

    def norm(x: Tensor, name: str) -> Tensor:
        parts = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *parts)

    x = images = torch.randn(3, *IMAGE)
    x = F.conv2d(x, state["stem.weight"], padding=1)
    for stage in range(3):
        for block in range(3):
            at, stride = f"stages.{stage}.{block}", 2 if stage and not block else 1
            ready = torch.relu(norm(x, f"{at}.bn1"))
            out = F.conv2d(ready, state[f"{at}.conv1.weight"], stride=stride, padding=1)
            out = F.conv2d(torch.relu(norm(out, f"{at}.bn2")), state[f"{at}.conv2.weight"], padding=1)
            x = out + (F.conv2d(ready, state[f"{at}.shortcut.weight"], stride=stride) if not block else x)
    logits = norm(x, "norm").mean((2, 3)) @ state["head.weight"].T + state["head.bias"]
    torch.testing.assert_close(network(images), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "full", "units"), [("wrn22_8", 16, 1_359_872), ("vgg19", 64, 303_104)])
@pytest.mark.parametrize("width", [1, 4])
def test_thin_ones_too_have_units_in_proportion_to_their_width(name: str, full: int, units: int, width: int) -> None:
    gated = gates.install(build(name, IMAGE, 10, width=width), IMAGE)
    assert gates.total_units(gated) == units * width // full


@pytest.mark.parametrize(("side", "poolings"), [(32, 4), (16, 4), (12, 3), (8, 3), (2, 1), (1, 0)])
def test_vgg_skips_the_poolings_that_would_leave_nothing(side: int, poolings: int) -> None:
    """Halving 12 gives 6, 3, 1; the last stage's maps have at least one pixel."""
    network = VGG((1, side, side), 3, width=2).eval()
    assert sum(isinstance(module, nn.MaxPool2d) for module in network.modules()) == poolings
    assert network(torch.zeros(2, 1, side, side)).shape == (2, 3)
    assert min(network.stages(torch.zeros(2, 1, side, side)).shape) > 0


@pytest.mark.parametrize("width", [2, 8])
def test_a_thin_resnet_has_units_in_proportion_to_its_width(width: int) -> None:
    gated = gates.install(build("resnet18", IMAGE, 10, width=width), IMAGE)
    assert gates.total_units(gated) == 491_520 * width // 64


@pytest.mark.parametrize(("inputs", "classes", "width"), [((2,), 2, 16), ((1, 12, 12), 10, 64), ((3, 4, 5), 3, 1)])
def test_mlp_has_the_parameters_of_three_matrices(inputs: tuple[int, ...], classes: int, width: int) -> None:
    n = int(np.prod(inputs))
    network = build("mlp", inputs, classes, width=width)
    assert parameters(network) == (n + 1) * width + (width + 1) * width + (width + 1) * classes
    assert gates.total_units(gates.install(network, inputs)) == 2 * width


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("inputs", [(1, 12, 12), (3, 16, 24)])
def test_any_input_size_and_number_of_classes_gives_logits(name: str, inputs: tuple[int, ...]) -> None:
    network = build(name, inputs, 7, width=2).eval()
    logits = network(torch.randn(4, *inputs))
    assert logits.shape == (4, 7)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_seed_alone_decides_the_weights_and_global_generators_are_left_alone(name: str) -> None:
    def state(seed: int) -> list[bytes]:
        return [value.numpy().tobytes() for value in build(name, IMAGE, 10, width=2, seed=seed).state_dict().values()]

    torch.manual_seed(1)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tobytes()  # noqa: NPY002
    first = state(5)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == before[1:]  # noqa: NPY002
    torch.manual_seed(2)
    assert state(5) == first
    assert state(6) != first


def test_wrong_requests_say_what_there_is() -> None:
    with pytest.raises(ValueError, match="no network 'resnet'; did you mean 'resnet"):
        build("resnet", IMAGE, 10)
    for name in ("resnet18", "resnet34", "wrn22_8", "vgg19"):
        with pytest.raises(ValueError, match=r"images .* got inputs of shape \(2,\)"):
            build(name, (2,), 10)
    with pytest.raises(ValueError, match="classes=1"):
        build("mlp", (2,), 1)
    with pytest.raises(ValueError, match="width=0"):
        build("mlp", (2,), 2, width=0)


# How weights start


@pytest.mark.parametrize("name", NETWORKS)
def test_kaiming_normal_weights_have_the_standard_deviation_sqrt_2_over_fan_in(name: str) -> None:
    """Of every convolution and linear layer with 2,000 weights or more; torch's own have 1 / sqrt(3 fan_in)."""
    for init, factor in (("kaiming_normal", 2.0), ("torch", 1 / 3)):
        network, checked = build(name, IMAGE, 10, width=8, init=init), 0
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear) and (n := module.weight.numel()) >= 2000:
                fan_in = module.weight[0].numel()
                expected = (factor / fan_in) ** 0.5
                # relative standard error of a normal sample's standard deviation: 1 / sqrt(2 n)
                assert module.weight.std().item() == pytest.approx(expected, rel=6 / (2 * n) ** 0.5)
                checked += 1
        assert checked


def test_starts_differ_in_weights_alone_and_the_default_is_torchs_own() -> None:
    default, own, other = (build("resnet18", IMAGE, 10, width=2, seed=4, **o) for o in ({}, {"init": "torch"}, KAIMING))
    again = build("resnet18", IMAGE, 10, width=2, seed=4, **KAIMING).state_dict()
    for name, value in default.state_dict().items():
        assert torch.equal(value, own.state_dict()[name])
        assert torch.equal(other.state_dict()[name], again[name])
        matrix = name.endswith("weight") and value.ndim > 1
        assert torch.equal(value, other.state_dict()[name]) != matrix


def test_an_unknown_start_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="no init 'xavier'; there are torch, kaiming_normal"):
        build("mlp", (2,), 2, init="xavier")


# Networks for private training: group norm, standardised weights

SMALL = {"resnet50": 8}  # a width whose layers all have two channels or more


def variants(name: str) -> list[nn.Module]:
    """Group norm, standardised weights, and both."""
    how = ({"norm": "group"}, {"standardised": True}, {"norm": "group", "standardised": True})
    return [build(name, (3, 16, 16), 3, width=SMALL.get(name, 4), seed=1, **one) for one in how]


def test_a_group_of_a_group_norm_has_two_channels_or_more() -> None:
    """At most 16 groups; opacus' fixer would give 8 channels 8 groups, which is instance norm."""
    for channels in range(2, 200):
        assert channels % groups(channels) == 0 and channels // groups(channels) >= 2 and groups(channels) <= 16
    assert [groups(channels) for channels in (8, 16, 24, 64, 512)] == [4, 8, 12, 16, 16]
    assert group_norm(8).num_groups == 4
    norms = [one.num_groups for one in build("mlp", (2,), 2, width=32, norm="group") if isinstance(one, nn.GroupNorm)]
    assert norms == [8, 8]  # of two units a norm would make 1 and -1, whatever they are


@pytest.mark.parametrize("name", NETWORKS)
def test_an_image_is_seen_alone_in_training_where_the_norm_is_group_norm(name: str) -> None:
    """What private training needs, and batch norm breaks; the drawn weights are those with batch norm."""
    grouped, _, both = variants(name)
    x = torch.randn(4, 3, 16, 16)
    drawn = build(name, (3, 16, 16), 3, width=SMALL.get(name, 4), seed=1)
    for network in (grouped, both):
        assert not any(isinstance(one, nn.modules.batchnorm._BatchNorm) for one in network.modules())
        assert any(isinstance(one, nn.GroupNorm) for one in network.modules())
        own = [one.weight for one in network.modules() if isinstance(one, nn.Conv2d | nn.Linear)]
        same = [one.weight for one in drawn.modules() if isinstance(one, nn.Conv2d | nn.Linear)]
        assert all(torch.equal(one, other) for one, other in zip(own, same, strict=True))
        for one in network.modules():
            if isinstance(one, nn.Dropout):
                one.p = 0.0
        torch.testing.assert_close(network.train()(x)[:1], network(x[:1]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_variants_take_gates_weight_switches_ensembles_and_costs(name: str) -> None:
    """Each computes the same with every switch on and as a member; group norms are paid for, weights are not."""
    plain, x = build(name, (3, 16, 16), 3, width=SMALL.get(name, 4)), torch.randn(2, 3, 16, 16)
    for network in variants(name):
        network.eval()
        gated = gates.install(network, (3, 16, 16))
        assert gates.total_units(gated) == gates.total_units(gates.install(plain, (3, 16, 16)))
        assert count_macs(network, (3, 16, 16)) == count_macs(plain, (3, 16, 16))
        assert masks_of(gated)[0].kept == gates.total_units(gated)
        switched = weights.install(gated)
        torch.testing.assert_close(switched(x), network(x), rtol=1e-4, atol=1e-4)
        together = Ensemble([network, network])(torch.stack([x, x]))
        torch.testing.assert_close(together[1], network(x), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(Ensemble([network]).member(0)(x), network(x))
        kinds = {one.kind for one in gates.nonlinearities(network, (3, 16, 16))}
        grouped = any(isinstance(one, nn.GroupNorm) for one in network.modules())
        assert kinds - {"MaxPool"} == ({"GroupNorm"} if grouped else set())


def test_standardised_weights_have_mean_0_and_length_1_for_each_output_channel() -> None:
    """In numpy Qiao et al.'s Eq. 5 over the root of n; weights that pruning made 0 stay 0 and do not count."""
    torch.manual_seed(0)
    layer = StandardisedConv2d(3, 4, 3, bias=False)
    with torch.no_grad():
        layer.weight[1, 0] = 0
        layer.weight[2] = 0
    seen = layer(torch.eye(27).view(27, 3, 3, 3)).view(27, 4).T.detach().numpy()  # each weight, alone
    for channel, raw in enumerate(layer.weight.detach().flatten(1).numpy()):
        kept = raw[raw != 0]
        wanted = np.zeros(27)
        if kept.size:
            wanted[raw != 0] = (kept - kept.mean()) / kept.std() / np.sqrt(kept.size)
        np.testing.assert_allclose(seen[channel], wanted, rtol=1e-4, atol=1e-5)


def test_a_pruned_standardised_network_is_the_same_with_switches_and_without() -> None:
    network = variants("resnet18")[2].eval()
    switched = weights.install(network)
    (mask,) = weights.masks_of(switched)
    torch.manual_seed(0)
    for unit in mask.units.values():
        unit &= torch.rand(unit.shape) < 0.5
    x = torch.randn(2, 3, 16, 16)
    weights.apply_mask(switched, mask)
    torch.testing.assert_close(weights.plain(switched)(x), switched(x))
    torch.testing.assert_close(weights.plain(network)(x), network(x))
    switched(x).sum().backward()
    gradients = [(one.original.grad, one[0].kept) for m in switched.modules() for one in _parametrized(m)]
    assert gradients
    assert all(not gradient[~kept].any() for gradient, kept in gradients)


def _parametrized(module: nn.Module) -> list[nn.Module]:
    return list(getattr(module, "parametrizations", {}).values()) if hasattr(module, "parametrizations") else []


def test_norms_that_make_no_network_are_refused() -> None:
    with pytest.raises(ValueError, match="no norm 'layer'; there are batch, group"):
        build("mlp", (2,), 2, norm="layer")
    with pytest.raises(ValueError, match="mlp of width 1 .* larger width"):
        build("mlp", (2,), 2, width=1, norm="group")
    with pytest.raises(ValueError, match="resnet50 of width 1 .* larger width"):
        build("resnet50", IMAGE, 2, width=1, standardised=True)
