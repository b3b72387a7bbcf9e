"""torchvision's nets, rebuilt with initbench's norm layers and activations. Importing this takes a second.

torchvision says which layers there are. Each is made anew: an activation of torchvision's writes in place
and may stand in several places of a net at once, and a norm layer is to be exchanged.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torchvision import models
from torchvision.models.resnet import BasicBlock, Bottleneck

from initbench.components.norm import NORMS
from initbench.models.layer import activation_layer, biased, norm_layer
from initbench.models.linear import Linear
from initbench.models.network import FamilyOptions, Site
from initbench.models.residual_block import Projection, ResidualBlock


def template(name: str, classes: int) -> nn.Module:
    """torchvision's own net, on the meta device: its layers and their sizes, without any numbers."""
    with torch.device("meta"):
        known = f"{name}_bn" if name.startswith("vgg") else name  # the same net, with its norm layers
        net: nn.Module = models.get_model(known, weights=None, num_classes=classes)
    return net


def normed_shapes(name: str, size: tuple[int, int]) -> list[tuple[int, int, int]]:
    """(C, H, W) of what each norm layer of the net sees on images of `size`, in order."""
    net, shapes = template(name, 2).eval(), []
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(
                lambda _module, _inputs, output: shapes.append(tuple(output.shape[1:]))
            )
    net(torch.empty(1, 3, *size, device="meta"))
    return shapes


class Rebuild:
    """Turns a template into a net on the CPU, layer by layer in the order of the signal.

    All of these nets define their layers in the order they compute them. `sites` is where the weights
    of those rebuilt so far stand.
    """

    def __init__(self, options: FamilyOptions, channels: int, net: nn.Module) -> None:
        self._options = options
        self._head = [module for module in net.modules() if isinstance(module, nn.Linear)][-1]
        self._channels = channels  # of the images
        self._width = channels
        self.sites: list[Site] = []

    def __call__(self, module: nn.Module) -> nn.Module:
        """The module to use for one of the template: itself, with other children, when it holds layers."""
        if isinstance(module, (BasicBlock, Bottleneck)):
            return self._block(module)
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            self._width = module.weight.shape[0]
            op = self._convolution(module) if isinstance(module, nn.Conv2d) else self._linear(module)
            self.sites.append(Site(op, op, None))
            return op
        if isinstance(module, nn.BatchNorm2d):
            norm = norm_layer(self._options, self._width) or nn.Identity()
            self.sites[-1] = self.sites[-1]._replace(output=norm)
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
        bias = biased(self._options, conv.out_channels)
        return self._wrapped(nn.Conv2d(inputs, conv.out_channels, **sizes, bias=bias))

    def _linear(self, layer: nn.Linear) -> nn.Module:
        """No norm layer follows it, so it keeps its bias."""
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
        self._width = widths[-1]
        return rebuilt
