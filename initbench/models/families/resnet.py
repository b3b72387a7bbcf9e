"""Residual nets: the convolutional one for CIFAR, and one of fully connected layers."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError
from torch import Tensor, nn

from initbench.components.activation import bind
from initbench.models.families.mlp import MlpOptions, stacking
from initbench.models.hidden_layer import HiddenLayer, convolution, linear
from initbench.models.linear import Linear
from initbench.models.network import FAMILIES, Family, FamilyOptions, LayerSite, Network, WeightLayer
from initbench.models.residual_blocks import (
    Branch,
    PadShortcut,
    Projection,
    ResidualBlock,
    refuse_other_units,
)
from initbench.models.shape_checks import ConvSpec, check_stack

STAGES, KERNEL = 3, 3


class ResnetOptions(FamilyOptions):
    """A residual net for small images: a convolution, three stages of two-layer blocks, a linear head.

    A convolution that is directly followed by a norm layer has no bias, as the norm would cancel it.
    """

    depth: int = Field(default=20, ge=8, le=10_000)
    """Number of weight layers, 6k + 2, including the head; projections in shortcuts are not counted."""
    width: int = Field(default=16, ge=1, le=65_536)
    """Channels of the first stage; they are doubled in each of the next two."""
    shortcut: Literal["pad", "projection"] = "pad"
    """Shortcut at the start of a stage: every other pixel with channels of zeros appended (option A), or a
    1 × 1 convolution with norm (option B)."""

    @model_validator(mode="after")
    def _is_a_resnet(self) -> ResnetOptions:
        refuse_other_units(self)
        if (self.depth - 2) % (2 * STAGES):
            below = self.depth - (self.depth - 2) % (2 * STAGES)
            problem = f"the depth of a resnet is 6k + 2, such as {below} or {below + 6}, not {self.depth}"
            raise PydanticCustomError("key_fault", "{problem}", {"problem": problem, "at": "depth"})
        return self

    @property
    def plans(self) -> list[ConvSpec]:
        """The first convolution, then the convolutions of the blocks, two for each."""
        plans = [ConvSpec(self.width)]
        for stage in range(STAGES):
            width = self.width * 2**stage
            plans.append(ConvSpec(width, 2 if stage else 1))
            plans += [ConvSpec(width)] * ((self.depth - 2) // STAGES - 1)
        return plans


class ResnetMlpOptions(MlpOptions):
    """A residual net of fully connected layers: one layer to the hidden width, blocks, a linear head.

    A layer that is directly followed by a norm layer has no bias, as the norm would cancel it.
    """

    block_depth: int = Field(default=2, ge=1, le=100)
    """Number of weight layers in a block."""

    @model_validator(mode="after")
    def _has_whole_blocks(self) -> ResnetMlpOptions:
        refuse_other_units(self)
        if self.depth < 2 + self.block_depth or (self.depth - 2) % self.block_depth:
            problem = (
                f"model.depth is 2 + k·model.block_depth with k ≥ 1: the first layer, whole blocks of"
                f" {self.block_depth}, and the head; {self.depth} is not"
            )
            raise PydanticCustomError("key_fault", "{problem}", {"problem": problem, "at": "depth"})
        return self


class ResidualNetwork(Network):
    """A net of a first layer `stem`, residual `blocks`, and a linear `head`."""

    plain = False
    stem: HiddenLayer
    blocks: nn.Sequential
    head: Linear

    def weight_layers(self) -> list[WeightLayer]:
        """Return the first layer, each block's shortcut and branch, and the head."""
        sites = [site for block in self._blocks for site in block.sites]
        stem = self.stem.site(self.stem.activation)
        return self._numbered([stem, *sites, LayerSite(self.head, self.head, None)])

    def branches(self) -> list[Branch]:
        """Return the branch of each block."""
        return [block.branch for block in self._blocks]

    @property
    def _blocks(self) -> list[ResidualBlock]:
        return [block for block in self.blocks if isinstance(block, ResidualBlock)]


class Resnet(ResidualNetwork):
    """He et al.'s net for CIFAR. (B, C, H, W) → (B, classes)."""

    def __init__(self, options: ResnetOptions, input_shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.activation = bind(options.activation)
        first, *rest = options.plans
        self.stem = HiddenLayer(
            options, convolution(options, input_shape[0], first.width, KERNEL), first.width
        )
        self.blocks = nn.Sequential()
        width = first.width
        for conv_a, conv_b in zip(rest[::2], rest[1::2], strict=True):
            ops = [
                convolution(options, width, conv_a.width, KERNEL, conv_a.stride),
                convolution(options, conv_a.width, conv_b.width, KERNEL),
            ]
            shortcut = (
                None if (conv_a.stride, conv_a.width) == (1, width) else _shortcut(options, width, conv_a)
            )
            self.blocks.append(ResidualBlock(options, ops, [conv_a.width, conv_b.width], shortcut))
            width = conv_b.width
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = Linear(width, classes, bias=options.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of a batch."""
        return self.head(self.pool(self.blocks(self.stem(x))).flatten(1))  # type: ignore[no-any-return]


def _shortcut(options: ResnetOptions, inputs: int, plan: ConvSpec) -> nn.Module:
    if options.shortcut == "projection":
        op = convolution(options, inputs, plan.width, 1, plan.stride)
        return Projection(options, op, plan.width)
    return PadShortcut(plan.width - inputs, plan.stride)


class ResnetMlp(ResidualNetwork):
    """Fully connected blocks with identity shortcuts. (B, …) → (B, classes)."""

    def __init__(self, options: ResnetMlpOptions, input_shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.activation = bind(options.activation)
        width, deep = options.width, options.block_depth
        self.stem = HiddenLayer(options, linear(options, math.prod(input_shape), width), width)
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(options, [linear(options, width, width) for _ in range(deep)], [width] * deep)
                for _ in range((options.depth - 2) // deep)
            )
        )
        self.head = Linear(width, classes, bias=options.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of a batch."""
        return self.head(self.blocks(self.stem(x.flatten(1))))  # type: ignore[no-any-return]


def _check(options: ResnetOptions, input_shape: tuple[int, ...]) -> None:
    remedy = "make them larger with data.resize"
    plans = options.plans
    check_stack(options, plans, input_shape, kernel=KERNEL, key="model.family", remedy=remedy)


FAMILIES.add(
    Family(
        name="resnet",
        suggested_for=("resnet_20", "resnet_32", "resnet_44", "resnet_56", "resnet_110"),
        summary="He et al.'s residual net for CIFAR, of basic blocks; on a CPU its runs train one by one.",
        source="He et al. 2016",
        formula="x_{k+1} = φ(x_k + W₂ ∗ φ(W₁ ∗ x_k))",
        options=ResnetOptions,
        build=lambda options, form: Resnet(options, form.shape, form.outputs),
        mode=lambda _options, *_sizes: "single",
        check=_check,
    )
)
FAMILIES.add(
    Family(
        name="resnet_mlp",
        aliases=("mlp_resnet", "residual_mlp"),
        summary="Fully connected layers in blocks with identity shortcuts.",
        source="He et al. 2016",
        formula="x_{k+1} = φ(x_k + W₂ φ(W₁ x_k))",
        options=ResnetMlpOptions,
        build=lambda options, form: ResnetMlp(options, form.shape, form.outputs),
        mode=stacking,
    )
)
