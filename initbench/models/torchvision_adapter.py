"""torchvision's nets, rebuilt with initbench's norm layers and activations. Importing this takes a second.

The layers and their sizes come from torchvision, and every layer is created again: torchvision's activations
work in place and one module may be used at several positions, and norm layers have to be replaced.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torchvision import models
from torchvision.models.resnet import BasicBlock, Bottleneck

from initbench.components.norm import NORMS
from initbench.models.hidden_layer import HiddenLayer, activation_layer, has_bias, norm_layer
from initbench.models.linear import Linear
from initbench.models.network import FamilyOptions, LayerSite
from initbench.models.residual_blocks import Projection, ResidualBlock


def build_template(name: str, classes: int) -> nn.Module:
    """Return torchvision's net with norm layers, on the meta device: layers and sizes, without data."""
    with torch.device("meta"):
        net: nn.Module = models.get_model(_normed(name), weights=None, num_classes=classes)
    return net


def _normed(name: str) -> str:
    """Return the name of the variant of the net that has norm layers."""
    return f"{name}_bn" if name.startswith("vgg") else name


def normed_shapes(name: str, size: tuple[int, int]) -> list[tuple[int, int, int]]:
    """Return the input shape (C, H, W) of each norm layer of the net, in order, for images of `size`."""
    net, shapes = build_template(name, 2).eval(), []
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(
                lambda _module, _inputs, output: shapes.append(tuple(output.shape[1:]))
            )
    net(torch.empty(1, 3, *size, device="meta"))
    return shapes


def given_net(weights: str) -> str:
    """Return torchvision's name of the net for a class of weights, such as ResNet18_Weights."""
    names: list[str] = models.list_models(models)
    return next(name for name in names if models.get_model_weights(name).__name__ == weights)


def names_in_rebuilt_net(options: FamilyOptions, name: str, attribute: str) -> dict[str, str]:
    """Map names of modules in torchvision's net `attribute` to names of modules in the rebuilt net `name`.

    `attribute` is the net itself or its variant without norm layers.
    """
    plain_net = build_template(name, 2)
    names = {module: key for key, module in plain_net.named_modules()}
    with torch.device("meta"):
        rebuild = Rebuild(options, 3, plain_net)
        rebuilt = rebuild(plain_net)
        theirs: nn.Module = models.get_model(attribute, weights=None, num_classes=2)
    names_in_net = {module: f"net.{key}" for key, module in rebuilt.named_modules()}
    target = {
        names[module]: names_in_net[module_made]
        for module, module_made in rebuild.made
        if module_made in names_in_net
    }
    if attribute == _normed(name):
        return target
    weighted = [key for module, key in names.items() if isinstance(module, nn.Conv2d | nn.Linear)]
    given_names = [key for key, module in theirs.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    return {key: target[mine] for key, mine in zip(given_names, weighted, strict=True)}


class Rebuild:
    """Converts a template into a net on the CPU, layer by layer in the order of the forward pass.

    All of these nets define their layers in the order they compute them. `sites` lists the weight layers that
    have been rebuilt so far.
    """

    def __init__(self, options: FamilyOptions, channels: int, net: nn.Module) -> None:
        self._options = options
        self._head = [module for module in net.modules() if isinstance(module, nn.Linear)][-1]
        self._channels = channels  # of the images
        self._width = channels
        self.sites: list[LayerSite] = []
        self.made: list[tuple[nn.Module, nn.Module]] = []
        """Every weight and norm layer of the template with its replacement."""

    def __call__(self, module: nn.Module) -> nn.Module:
        """Return the replacement of a module of the template: containers are kept, with new children."""
        if isinstance(module, (BasicBlock, Bottleneck)):
            return self._block(module)
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            self._width = module.weight.shape[0]
            op = self._convolution(module) if isinstance(module, nn.Conv2d) else self._linear(module)
            self.sites.append(LayerSite(op, op, None))
            self.made.append((module, op))
            return op
        if isinstance(module, nn.BatchNorm2d):
            norm = norm_layer(self._options, self._width) or nn.Identity()
            self.sites[-1] = self.sites[-1]._replace(output=norm)
            self.made.append((module, norm))
            return norm
        if isinstance(module, (nn.ReLU, nn.ReLU6)):
            activation = activation_layer(self._options, self._width)
            self.sites[-1] = self.sites[-1]._replace(activation=activation)
            return activation
        if isinstance(module, nn.Dropout):
            return nn.Identity()
        for name, child in module.named_children():
            setattr(module, name, self(child))
        return module

    def _convolution(self, conv: nn.Conv2d) -> nn.Module:
        sizes: dict[str, Any] = {
            key: getattr(conv, key) for key in ("kernel_size", "stride", "padding", "dilation", "groups")
        }
        inputs = conv.in_channels if self.sites else self._channels
        bias = has_bias(self._options, conv.out_channels)
        return self._wrapped(nn.Conv2d(inputs, conv.out_channels, **sizes, bias=bias))

    def _linear(self, layer: nn.Linear) -> nn.Module:
        """Return the replacement of a linear layer; it keeps its bias, as no norm layer follows it."""
        op = Linear(layer.in_features, layer.out_features, bias=self._options.bias)
        return op if layer is self._head else self._wrapped(op)

    def _wrapped(self, op: nn.Module) -> nn.Module:
        return NORMS[self._options.norm.name].wrap(op, self._options.norm)

    def _block(self, block: BasicBlock | Bottleneck) -> ResidualBlock:
        convolutions = [module for module in block.children() if isinstance(module, nn.Conv2d)]
        widths = [conv.out_channels for conv in convolutions]
        shortcut = None
        if block.downsample is not None:
            projection = block.downsample[0]
            shortcut = Projection(self._options, self._convolution(projection), projection.out_channels)
        ops = [self._convolution(conv) for conv in convolutions]
        rebuilt = ResidualBlock(self._options, ops, widths, shortcut)
        self.sites += rebuilt.sites
        norms = [module for module in block.children() if isinstance(module, nn.BatchNorm2d)]
        layers = [layer for layer in rebuilt.layers if isinstance(layer, HiddenLayer)]
        self.made += zip(convolutions, ops, strict=True)
        self.made += zip(norms, [layer.norm for layer in layers], strict=True)
        if block.downsample is not None and shortcut is not None:
            self.made += zip(block.downsample, [shortcut.op, shortcut.norm], strict=True)
        self._width = widths[-1]
        return rebuilt
