"""Greedy layer-wise pre-training: what it is called with, and what the weights are before it.

The training itself is done by `initbench.pretrain`, which sees the data.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from initbench.components.activation import BoundActivation
from initbench.components.init_scheme import INITS, Scheme, SchemeContext, SchemeRequirement
from initbench.components.norm import NORMS
from initbench.registry import MAX_COUNT, Options


class AutoencoderOptions(Options):
    """Options of autoencoder."""

    kind: Literal["plain", "denoising", "contractive"] = "plain"
    """What keeps the code from being a mere copy: nothing, a corrupted input, or a penalty on the Jacobian.

    contractive is for mlp without a norm layer, under an elementwise activation without parameters. It is
    meant for `tied: true`: a decoder of its own lets the encoder shrink, and makes up for it."""
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
    steps: int = Field(default=500, ge=1, le=MAX_COUNT)
    """Updates of each layer, by Adam at its defaults, whose steps no scale of inputs changes."""
    lr: float = Field(default=0.003, gt=0.0, le=1e30)
    """Learning rate of these updates, constant."""
    batch_size: int | None = Field(default=None, ge=1, le=MAX_COUNT)
    """Samples of such an update; null for train.batch_size."""
    base: Literal["xavier_normal", "xavier_uniform", "kaiming_normal", "kaiming_uniform", "orthogonal"] = (
        "xavier_normal"
    )
    """Scheme that draws the weights first, the head's for good unless `init.head` names another.

    Its gain is init.gain; by default 1/|φ′(0)| under bounded activations, √(2/(1+a²)) under others."""


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
    options = scheme.options().model_dump(exclude={"name"})
    scheme.fill(weight, fan_in=fan_in, fan_out=fan_out, gain=gain, generator=generator, **options)


def _gain(activation: BoundActivation) -> float:
    """1/|φ′(0)| under a bounded activation (4 for sigmoid, 1 for tanh), √(2/(1+a²)) under any other.

    With a gain of 1 a deep sigmoid net hands on so little that each layer learns the mean of its input
    and no more (Glorot & Bengio 2010 give sigmoid the factor 4 for it).
    """
    if not (activation.entry.bounded and activation.entry.elementwise):
        return activation.kaiming_gain
    zero = torch.zeros(1, dtype=torch.float64, device="cpu")  # a net may be being built on "meta" just now
    slope = abs(float(activation.derivative(zero)))
    return 1.0 / slope if slope > 0.0 else 1.0


def _problem(key: str, setting: SchemeContext) -> str | None:
    options, activation = setting.options, setting.activation
    if not isinstance(options, AutoencoderOptions):
        return None
    setting_text = f"model.activation={activation.entry.name}"
    if setting.norm and NORMS[setting.norm].acts_on == "weights":
        return f"{key} trains weights, which model.norm={setting.norm} computes from other ones"
    if options.tied and activation.widening != 1.0:
        reason = "whose layers pass on a different number of units than they have"
        return f"{key} needs {key}.tied=false with {setting_text}, {reason}"
    if options.loss == "bce" and not _from_0_to_1(activation):
        return (
            f"{key}.loss=bce needs layers that put out 0 to 1, as sigmoid does, and {setting_text} does not"
        )
    if options.kind == "contractive":
        return _not_contractive(key, setting_text, setting)
    return None


def _from_0_to_1(activation: BoundActivation) -> bool:
    if not (activation.entry.bounded and activation.entry.elementwise):
        return False
    outputs = activation.phi(torch.linspace(-100.0, 100.0, 2_001, dtype=torch.float64, device="cpu"))
    return bool((outputs >= 0.0).all() and (outputs <= 1.0).all())


def _not_contractive(key: str, setting_text: str, setting: SchemeContext) -> str | None:
    """Why the Jacobian is not diag(φ′) W with a φ′ that stays what it is."""
    if setting.norm != "none":
        return f"{key}.kind=contractive knows the Jacobian of layers without model.norm={setting.norm} alone"
    entry = setting.activation.entry
    if not entry.elementwise or list(entry.build(setting.activation.options, 1).parameters()):
        needed = "an elementwise activation without parameters"
        return f"{key}.kind=contractive needs {needed}, unlike {setting_text}"
    return None


INITS.add(
    Scheme(
        name="autoencoder",
        summary="Each hidden layer is first trained, from the input on, to reconstruct what it is given.",
        formula="W_l, b_l = argmin E‖x_{l−1} − D(φ(W_l x_{l−1} + b_l))‖², l = 1 … L−1",
        source="Bengio et al. 2007; Vincent et al. 2010; Rifai et al. 2011",
        options=AutoencoderOptions,
        needs=SchemeRequirement.TRAINING,
        fill=_fill,
        default_gain=_gain,
        problem=_problem,
    )
)
