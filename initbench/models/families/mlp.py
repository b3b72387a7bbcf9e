"""The plain multi-layer perceptron, the net that mean-field theory describes."""

from __future__ import annotations

import math
from itertools import pairwise

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError
from torch import Tensor, nn

from initbench.components.activation import ACTIVATIONS, bind
from initbench.components.norm import NORMS
from initbench.models.hidden_layer import (
    activation_layer,
    channels_after_activation,
    channels_before_activation,
    norm_first,
    norm_layer,
    normed_units,
)
from initbench.models.linear import Linear
from initbench.models.network import (
    FAMILIES,
    Family,
    FamilyOptions,
    HiddenStage,
    LayerSite,
    Mode,
    Network,
    WeightLayer,
)

ALIGNMENT = 256
"""A multiple of the 32 floats that torch handles at a time, with room for `train.threads.MOST_THREADS`."""
TINY = 16**3
"""Number of multiplications, over the whole stack, up to which torch does not use oneDNN for a product.

The rounding of such a small product would depend on the number of stacked runs."""


class MlpOptions(FamilyOptions):
    """A multi-layer perceptron of equal hidden widths."""

    depth: int = Field(default=20, ge=1, le=10_000)
    """Number of weight layers, including the head."""
    width: int = Field(default=128, ge=1, le=65_536)
    """Units of each hidden layer."""

    @model_validator(mode="after")
    def _norm_fits_width(self) -> MlpOptions:
        problem = NORMS[self.norm.name].problem((normed_units(self, self.width),), self.norm)
        if problem is not None:
            option, sentence = problem
            text = f"{sentence} (model.width={self.width})"
            raise PydanticCustomError(
                "key_fault", "{problem}", {"problem": text, "at": f"norm.{option}".rstrip(".")}
            )
        return self


class DenseBlock(nn.Module):
    """Linear layer, norm and activation, in the order of the options. (B, in) → (B, out)."""

    def __init__(self, inputs: int, options: MlpOptions) -> None:
        super().__init__()
        linear = Linear(inputs, channels_before_activation(options, options.width), bias=options.bias)
        self.linear = NORMS[options.norm.name].wrap(linear, options.norm)
        self.norm = norm_layer(options, options.width) or nn.Identity()
        self.activation = activation_layer(options, options.width)
        self._norm_first = norm_first(options)

    @property
    def site(self) -> LayerSite:
        """Site of the block's weights."""
        return LayerSite(self.linear, self.norm if self._norm_first else self.linear, self.activation)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        h = self.linear(x)
        if self._norm_first:
            return self.activation(self.norm(h))  # type: ignore[no-any-return]
        return self.norm(self.activation(h))  # type: ignore[no-any-return]


class Mlp(Network):
    """depth − 1 blocks and a linear head. (B, …) → (B, classes)."""

    def __init__(self, options: MlpOptions, input_shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.activation = bind(options.activation)
        features = math.prod(input_shape)
        hidden = options.depth - 1
        out = channels_after_activation(options, options.width)
        self.blocks = nn.ModuleList(DenseBlock(features if i == 0 else out, options) for i in range(hidden))
        self.head = Linear(out if hidden else features, classes, bias=options.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of a batch."""
        h = x.flatten(1)
        for block in self.blocks:
            h = block(h)
        return self.head(h)  # type: ignore[no-any-return]

    def weight_layers(self) -> list[WeightLayer]:
        """Return the linear layers of the blocks, then the head."""
        hidden = [block.site for block in self.blocks if isinstance(block, DenseBlock)]
        return self._numbered([*hidden, LayerSite(self.head, self.head, None)])

    def stages(self) -> list[HiddenStage]:
        """Return the blocks; the input of the first one is flattened."""
        return [
            HiddenStage(nn.Identity() if i else nn.Flatten(), block) for i, block in enumerate(self.blocks)
        ]


def stacking(options: MlpOptions, batch_size: int, inputs: int, classes: int) -> Mode:
    """Return `vmap` if stacking does not change the rounding, else `single`.

    Stacking requires that no matrix product is tiny, and that each run's part of an activation fills whole
    vectors of the CPU or all entries are rounded alike.
    """
    widths = (inputs, *[options.width] * min(options.depth - 1, 2), classes)
    if batch_size * min(a * b for a, b in pairwise(widths)) <= TINY:
        return "single"
    aligned = options.width * batch_size % ALIGNMENT == 0
    alike = ACTIVATIONS[options.activation.name].rounds_alike and NORMS[options.norm.name].rounds_alike
    return "vmap" if aligned or alike else "single"


FAMILIES.add(
    Family(
        name="mlp",
        aliases=("fc", "fully_connected", "dense", "feed_forward", "multilayer_perceptron"),
        summary="Equal-width fully connected layers: the net that mean-field theory describes.",
        source="Rumelhart et al. 1986",
        formula="h_l = W_l φ(h_{l−1}) + b_l",
        options=MlpOptions,
        build=lambda options, form: Mlp(options, form.shape, form.outputs),
        mode=stacking,
    )
)
