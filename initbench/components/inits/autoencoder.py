"""Greedy layer-wise pre-training: what it is called with, and what the weights are before it.

The training itself is done by `initbench.pretrain`, which sees the data.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from torch import Generator, Tensor

from initbench.components.activation import BoundActivation
from initbench.components.scheme import INITS, Needs, Scheme
from initbench.registry import Options


class AutoencoderOptions(Options):
    """Options of autoencoder."""

    kind: Literal["plain", "denoising", "contractive"] = "plain"
    """What keeps the code from being a mere copy: nothing, a corrupted input, or a penalty on the Jacobian.

    contractive is for mlp without a norm layer, under an elementwise activation without parameters."""
    corruption: Literal["masking", "gaussian"] = "masking"
    """For denoising: inputs that are set to 0, or noise that is added to all."""
    corruption_level: float = Field(default=0.3, gt=0.0, lt=1.0)
    """For denoising: the share of inputs that is masked, or the standard deviation of the noise."""
    contraction: float = Field(default=0.1, gt=0.0)
    """For contractive: the weight λ of ‖∂code/∂input‖² beside the squared error summed over the inputs."""
    tied: bool = True
    """Whether the decoder is the encoder's transpose; else it has weights of its own."""
    loss: Literal["mse", "bce"] = "mse"
    """Mean squared error, or cross-entropy, for which every layer's input has to lie between 0 and 1."""
    steps: int = Field(default=500, ge=1)
    """Updates of each layer, by Adam at its defaults: what it does, no layer's scale of input changes."""
    lr: float = Field(default=0.001, gt=0.0)
    """Learning rate of these updates, constant."""
    batch_size: int | None = Field(default=None, ge=1)
    """Samples of such an update; null for train.batch_size."""
    base: Literal["xavier_normal", "xavier_uniform", "kaiming_normal", "kaiming_uniform", "orthogonal"] = (
        "xavier_normal"
    )
    """Scheme that draws the weights first, the head's for good."""


def _fill(
    weight: Tensor,
    *,
    fan_in: float,
    fan_out: float,
    gain: float,
    generator: Generator,
    base: str = "xavier_normal",
    **_options: Any,
) -> None:
    """As `base` with its own options at their defaults."""
    scheme = INITS[base]
    own = scheme.options().model_dump(exclude={"name"})
    scheme.fill(weight, fan_in=fan_in, fan_out=fan_out, gain=gain, generator=generator, **own)


def _gain(activation: BoundActivation) -> float:
    """1 under a bounded activation, √(2/(1+a²)) under any other."""
    return 1.0 if activation.entry.bounded else activation.kaiming_gain


INITS.add(
    Scheme(
        name="autoencoder",
        summary="Each hidden layer is first trained, from the input on, to reconstruct what it is given.",
        formula="W_l, b_l = argmin E‖x_{l−1} − D(φ(W_l x_{l−1} + b_l))‖², l = 1 … L−1",
        source="Bengio et al. 2007; Vincent et al. 2010; Rifai et al. 2011",
        options=AutoencoderOptions,
        needs=Needs.TRAINING,
        fill=_fill,
        default_gain=_gain,
    )
)
