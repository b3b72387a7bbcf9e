"""The plain convolutional net."""

from __future__ import annotations

from typing import Literal, cast

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError
from torch import Tensor, nn

from initbench.components.activation import bind
from initbench.models.hidden_layer import HiddenLayer, channels_after_activation, convolution
from initbench.models.linear import Linear
from initbench.models.network import (
    FAMILIES,
    Family,
    FamilyOptions,
    HiddenStage,
    LayerSite,
    Network,
    WeightLayer,
)
from initbench.models.shape_checks import ConvSpec, check_stack

POOLS = {"max_pool": nn.MaxPool2d, "avg_pool": nn.AvgPool2d}


class CnnOptions(FamilyOptions):
    """A plain convolutional net: stages of equal convolutions, then a linear head.

    A convolution that is directly followed by a norm layer has no bias, as the norm would cancel it.
    """

    depth: int = Field(default=10, ge=2, le=10_000)
    """Number of weight layers, including the head; the convolutions are divided evenly among the stages."""
    width: int = Field(default=32, ge=1, le=65_536)
    """Channels of the first stage."""
    stages: int = Field(default=3, ge=1, le=10)
    """Number of stages; the maps are halved between them."""
    double: bool = True
    """Double the channels from stage to stage."""
    downsample: Literal["stride", "max_pool", "avg_pool"] = "stride"
    """Method of halving the maps: the first convolution of a stage, or a 2 × 2 pooling before it."""
    kernel: int = Field(default=3, ge=1, le=1023)
    """Size of the convolutions' kernels, an odd number; maps are padded with zeros and keep their size."""
    head: Literal["global_average", "flatten"] = "global_average"
    """Input of the head: the mean of each channel, or all pixels."""

    @field_validator("kernel")
    @classmethod
    def _kernel_is_odd(cls, kernel: int) -> int:
        if kernel % 2 == 0:
            problem = f"a kernel that keeps the size of the maps has an odd side, not {kernel}"
            raise PydanticCustomError("key_fault", "{problem}", {"problem": problem})
        return kernel

    @model_validator(mode="after")
    def _every_stage_has_a_layer(self) -> CnnOptions:
        if self.depth - 1 < self.stages:
            problem = (
                f"model.depth={self.depth} leaves {self.depth - 1} convolutions besides the head, too few for"
                f" {self.stages} stages"
            )
            raise PydanticCustomError("key_fault", "{problem}", {"problem": problem, "at": "stages"})
        return self

    @property
    def plans(self) -> list[ConvSpec]:
        """The convolutions; the first stages get one more if they cannot be divided evenly."""
        each, over = divmod(self.depth - 1, self.stages)
        plans = []
        for stage in range(self.stages):
            width = self.width * 2**stage if self.double else self.width
            halved, strided = stage > 0, self.downsample == "stride"
            plans.append(ConvSpec(width, 2 if halved and strided else 1, pooled=halved and not strided))
            plans += [ConvSpec(width)] * (each - 1 + (stage < over))
        return plans


class Cnn(Network):
    """Convolutions and a linear head. (B, C, H, W) → (B, classes)."""

    def __init__(self, options: CnnOptions, input_shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.activation = bind(options.activation)
        # Pooling changes the moments between two layers, which the recursion does not model.
        self.plain = options.stages == 1 or options.downsample == "stride"
        channels, *size = input_shape
        maps = (size[0], size[1])
        self.body = nn.Sequential()
        for i, plan in enumerate(options.plans, 1):
            if plan.pooled:
                self.body.add_module(f"pool{i}", POOLS[options.downsample](2))
            op = convolution(options, channels, plan.width, options.kernel, plan.stride)
            self.body.add_module(f"layer{i}", HiddenLayer(options, op, plan.width))
            channels, maps = channels_after_activation(options, plan.width), plan.size(maps)
        averaged = options.head == "global_average"
        self.pool = nn.AdaptiveAvgPool2d(1) if averaged else nn.Identity()
        features = channels if averaged else channels * maps[0] * maps[1]
        self.head = Linear(features, classes, bias=options.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of a batch."""
        return self.head(self.pool(self.body(x)).flatten(1))  # type: ignore[no-any-return]

    def weight_layers(self) -> list[WeightLayer]:
        """Return the convolutions, then the head."""
        hidden = [layer.site(layer.activation) for layer in self.body if isinstance(layer, HiddenLayer)]
        return self._numbered([*hidden, LayerSite(self.head, self.head, None)])

    def stages(self) -> list[HiddenStage]:
        """Return the convolutions, each with the pooling before it."""
        stages, preceding = [], cast("nn.Module", nn.Identity())
        for module in self.body:
            if isinstance(module, HiddenLayer):
                stages.append(HiddenStage(preceding, module))
                preceding = nn.Identity()
            else:
                preceding = module
        return stages


def _check(options: CnnOptions, input_shape: tuple[int, ...]) -> None:
    key = "model.kernel" if options.stages == 1 else "model.stages"
    remedy = "choose fewer model.stages, a smaller model.kernel, or larger images with data.resize"
    check_stack(options, options.plans, input_shape, kernel=options.kernel, key=key, remedy=remedy)


FAMILIES.add(
    Family(
        name="cnn",
        aliases=("convnet", "conv", "convolutional"),
        summary="Stages of equal convolutions without shortcuts; on a CPU its runs train one by one.",
        source="LeCun et al. 1989; Springenberg et al. 2015",
        formula="h_l = W_l ∗ φ(h_{l−1}) + b_l",
        options=CnnOptions,
        build=lambda options, form: Cnn(options, form.shape, form.outputs),
        # Stacked convolutions become grouped ones, which are slower on a CPU than one run after the other.
        mode=lambda _options, *_sizes: "single",
        check=_check,
    )
)
