"""The nets against other implementations: written out by hand, and torchvision's own. All in float64."""

import itertools
import math

import pytest
import torch
from family_nets import CIFAR, MNIST, images, net, options_of, parameters
from torch import nn
from torch.nn import functional as F
from torchvision import models

from initbench.models.residual_blocks import ResidualBlock

ROUNDING = {"rtol": 1e-9, "atol": 1e-12}


@pytest.mark.parametrize("downsample", ["stride", "max_pool", "avg_pool"])
@pytest.mark.parametrize("head", ["global_average", "flatten"])
def test_cnn_is_the_formula(downsample, head):
    """Depth 6 over three stages: two, two and one convolution, of 8, 16 and 32 channels."""
    init = {"bias": 0.25}
    network = net("cnn", MNIST, depth=6, downsample=downsample, head=head, activation="tanh", init=init)
    *convolutions, last = [layer.module for layer in network.double().weight_layers()]
    h = x = images(MNIST).double()
    for i, conv in enumerate(convolutions):
        begins = i in (2, 4)
        if begins and downsample != "stride":
            h = (F.max_pool2d if downsample == "max_pool" else F.avg_pool2d)(h, 2)
        stride = 2 if begins and downsample == "stride" else 1
        h = torch.tanh(F.conv2d(h, conv.weight, torch.full_like(conv.bias, 0.25), stride, padding=1))
    assert [conv.weight.shape[0] for conv in convolutions] == [8, 8, 16, 16, 32]
    assert h.shape == (8, 32, 7, 7)
    h = h.mean((2, 3)) if head == "global_average" else h.flatten(1)
    assert torch.allclose(network(x), h @ last.weight.T + 0.25, **ROUNDING)


@pytest.mark.parametrize("kernel", [1, 5])
def test_cnn_counts(kernel):
    network = net("cnn", CIFAR, depth=10, width=8, kernel=kernel, norm="batch")
    maps = [3, 8, 8, 8, 16, 16, 16, 32, 32, 32]
    weights = sum(a * b * kernel**2 for a, b in itertools.pairwise(maps))
    assert len(network.weight_layers()) == 10
    assert parameters(network) == weights + 2 * sum(maps[1:]) + 32 * 10 + 10


def test_cnn_layers_that_cannot_be_shared_out_evenly_go_to_the_first_stages():
    widths = [plan.width for plan in options_of("cnn", depth=9, width=4).plans]
    assert widths == [4, 4, 4, 8, 8, 8, 16, 16]


def test_convolutions_lose_their_bias_to_the_norm_layer_behind_them():
    for options, biased in (
        ({}, True),
        ({"norm": "batch"}, False),
        ({"norm": "batch", "norm_placement": "after_activation"}, True),
        ({"bias": False}, False),
    ):
        *convolutions, head = net("cnn", **options).weight_layers()
        assert all((layer.module.bias is not None) == biased for layer in convolutions), options
        assert (head.module.bias is not None) == options.get("bias", True)


@pytest.mark.parametrize("shortcut", ["pad", "projection"])
def test_resnet_is_he_2016(shortcut):
    network = net("resnet", CIFAR, shortcut=shortcut, depth=14, norm="none", bias=False).double()
    modules = [layer.module for layer in network.weight_layers()]
    h = x = images(CIFAR).double()
    h = F.relu(F.conv2d(h, modules.pop(0).weight, padding=1))
    for block in range(6):
        stride = 2 if block in (2, 4) else 1
        skipped = h
        if stride == 2 and shortcut == "projection":
            skipped = F.conv2d(h, modules.pop(0).weight, stride=2)
        elif stride == 2:
            skipped = torch.cat([h[:, :, ::2, ::2], torch.zeros_like(h[:, :, ::2, ::2])], 1)
        branch = F.relu(F.conv2d(h, modules.pop(0).weight, stride=stride, padding=1))
        h = F.relu(skipped + F.conv2d(branch, modules.pop(0).weight, padding=1))
    (head,) = modules
    assert torch.allclose(network(x), h.mean((2, 3)) @ head.weight.T, **ROUNDING)


@pytest.mark.parametrize("deep", [1, 3])
def test_resnet_mlp_is_the_formula(deep):
    network = net("resnet_mlp", CIFAR, depth=2 + 2 * deep, block_depth=deep, activation="tanh").double()
    first, *inner, head = [layer.module.weight for layer in network.weight_layers()]
    x = images(CIFAR).double()
    h = torch.tanh(x.flatten(1) @ first.T)
    for begin in (0, deep):
        branch = h
        for weight in inner[begin : begin + deep - 1]:
            branch = torch.tanh(branch @ weight.T)
        h = torch.tanh(h + branch @ inner[begin + deep - 1].T)
    assert torch.allclose(network(x), h @ head.T, **ROUNDING)


def pairs(ours, theirs):
    """(our module, torchvision's) for every module with parameters."""
    for (_, one), (_, two) in zip(ours.named_children(), theirs.named_children(), strict=True):
        if isinstance(one, ResidualBlock):
            yield from block_pairs(one, two)
        elif next(one.children(), None) is not None:
            yield from pairs(one, two)
        elif next(two.parameters(), None) is not None:
            yield one, two


def block_pairs(ours, theirs):
    for i, layer in enumerate(ours.layers, 1):
        yield layer.op, getattr(theirs, f"conv{i}")
        yield layer.norm, getattr(theirs, f"bn{i}")
    if theirs.downsample is not None:
        yield from zip((ours.shortcut.op, ours.shortcut.norm), theirs.downsample, strict=True)


@pytest.mark.parametrize(
    ("name", "activation"),
    [
        ("resnet18", "relu"),
        ("resnet34", "relu"),
        ("resnet50", "relu"),
        pytest.param("vgg11", "relu", marks=pytest.mark.slow),  # 500 MB of weights
        ("mobilenet_v2", "relu6"),
    ],
)
def test_torchvisions_own_nets_compute_the_same(name, activation):
    """With our numbers put into theirs, in evaluation mode, where dropout does nothing."""
    ours = net("torchvision", model=name, activation=activation).eval()
    theirs = models.get_model(f"{name}_bn" if name.startswith("vgg") else name, num_classes=10).eval()
    surplus = 0
    with torch.no_grad():
        for one, two in pairs(ours.net, theirs):
            for key, value in two.named_parameters():
                own = getattr(one, key)
                surplus += value.numel() if own is None else 0
                value.copy_(torch.zeros_like(value) if own is None else own)
    assert parameters(theirs) - parameters(ours) == surplus
    assert (surplus > 0) == name.startswith("vgg"), "biases in front of batch norm, which only vgg has"
    x = images(CIFAR, 2).double()
    assert torch.allclose(ours.double()(x), theirs.double()(x), **ROUNDING)


def test_torchvisions_nets_have_no_module_of_theirs_left_that_acts():
    network = net("torchvision", model="mobilenet_v2", norm="none", activation="tanh")
    kinds = (nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.Dropout)
    assert not any(isinstance(module, kinds) for module in network.modules())
    assert all(p.device.type == "cpu" for p in network.parameters())
    assert all(layer.module.bias is not None for layer in network.weight_layers())


def test_the_first_convolution_takes_the_channels_of_the_images():
    assert net("torchvision", (2, 32, 40)).weight_layers()[0].module.weight.shape == (64, 2, 7, 7)


def test_kernels_of_the_cnn_have_the_size_that_the_config_says():
    for layer in net("cnn", kernel=5, stages=1).weight_layers()[:-1]:
        assert math.prod(layer.module.weight.shape[2:]) == 25
