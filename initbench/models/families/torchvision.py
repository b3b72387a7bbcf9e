"""Model family of torchvision's nets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError
from torch import Tensor

from initbench.components.activation import bind
from initbench.components.norm import NORMS
from initbench.models.network import FAMILIES, Family, FamilyOptions, Network, WeightLayer
from initbench.models.residual_blocks import Branch, ResidualBlock, refuse_other_units
from initbench.models.shape_checks import check_norm, image_shape, raise_config_error
from initbench.registry import Options
from initbench.registry_choice import Choice, default_choice

SMALLEST = 32
"""Smallest height or width of images: each net halves its maps five times, and they must not become empty."""


class TorchvisionOptions(FamilyOptions):
    """A net of torchvision, initialised by initbench and without dropout.

    A convolution that is followed by a norm layer has no bias, as the norm would cancel it; without norm
    layers, all convolutions have one. The first convolution has as many input channels as the images.
    """

    model: Literal["resnet18", "resnet34", "resnet50", "vgg11", "vgg13", "vgg16", "mobilenet_v2"] = "resnet18"
    """Name of the net in torchvision."""
    norm: Annotated[Options, Choice(NORMS)] = Field(default_factory=lambda: default_choice(NORMS, "batch"))
    """Norm layer in place of the net's batch norm: a name, or a mapping of name and options."""

    @model_validator(mode="after")
    def _fits_the_nets(self) -> TorchvisionOptions:
        refuse_other_units(self)
        if self.norm_placement != "before_activation":
            problem = "the nets of model.family=torchvision have their norm layers before the activations"
            raise PydanticCustomError("key_fault", "{problem}", {"problem": problem, "at": "norm_placement"})
        return self


class TorchvisionNet(Network):
    """A net of torchvision. (B, C, H, W) → (B, classes)."""

    plain = False

    def __init__(self, options: TorchvisionOptions, input_shape: tuple[int, ...], classes: int) -> None:
        from initbench.models.torchvision_adapter import Rebuild, build_template

        super().__init__()
        self.activation = bind(options.activation)
        drawn = build_template(options.model, classes)
        rebuild = Rebuild(options, input_shape[0], drawn)
        self.net = rebuild(drawn)
        self._sites = rebuild.sites

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of a batch."""
        return self.net(x)  # type: ignore[no-any-return]

    def weight_layers(self) -> list[WeightLayer]:
        """Return all convolutions and linear layers; a shortcut's precedes those of its block."""
        return self._numbered(self._sites)

    def branches(self) -> list[Branch]:
        """Return the branches of resnet blocks; mobilenet_v2's linear bottlenecks do not count."""
        return [module.branch for module in self.modules() if isinstance(module, ResidualBlock)]


def _check(options: TorchvisionOptions, input_shape: tuple[int, ...]) -> None:
    _, height, width = image_shape(options, input_shape)
    images = f"images of {height} × {width}"
    if min(height, width) < SMALLEST:
        raise_config_error(
            "model.model",
            f"{options.model} needs images of at least {SMALLEST} × {SMALLEST}, and these are {images}:"
            f" set data.resize={SMALLEST}, or choose model.family=resnet",
        )
    from initbench.models.torchvision_adapter import normed_shapes

    for number, shape in enumerate(normed_shapes(options.model, (height, width)), 1):
        check_norm(options, shape, f"as norm layer {number} of {options.model} on {images}")


FAMILIES.add(
    Family(
        name="torchvision",
        suggested_for=(
            "resnet_18",
            "resnet_34",
            "resnet_50",
            "vgg",
            "vgg_11",
            "vgg_13",
            "vgg_16",
            "mobilenet",
            "mobilenet_v2",
        ),
        summary="A net of torchvision by its name, under any init, norm and activation; singly on a CPU.",
        source="He et al. 2016; Simonyan & Zisserman 2015; Sandler et al. 2018",
        formula="as in the papers",
        options=TorchvisionOptions,
        build=lambda options, form: TorchvisionNet(options, form.shape, form.outputs),
        mode=lambda _options, *_sizes: "single",
        check=_check,
    )
)
