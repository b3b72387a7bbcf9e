"""Greedy layer-wise pre-training: options, and the init of the weights before it.

The training itself is in `initbench.pretrain`, which has access to the data.
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
    """Method that keeps the code from copying the input: none, a corrupted input, or a Jacobian penalty.

    contractive requires mlp without a norm layer, with an elementwise activation without parameters. Use it
    with `tied: true`: with separate decoder weights, the encoder can shrink and the decoder compensate."""
    corruption: Literal["masking", "gaussian"] = "masking"
    """For denoising: set some inputs to 0, or add noise to all."""
    corruption_level: float = Field(default=0.3, gt=0.0, lt=1.0)
    """For denoising: the fraction of inputs that is masked, or the standard deviation of the noise."""
    contraction: float = Field(default=0.1, gt=0.0)
    """For contractive: the weight λ of ‖∂code/∂input‖², added to the squared error summed over the inputs."""
    tied: bool = True
    """Whether the decoder is the encoder's transpose; otherwise it has separate weights."""
    loss: Literal["mse", "bce"] = "mse"
    """Mean squared error, or cross-entropy, which requires inputs between 0 and 1 in every layer."""
    steps: int = Field(default=500, ge=1, le=MAX_COUNT)
    """Updates of each layer, by Adam with default options, whose steps do not depend on the inputs' scale."""
    lr: float = Field(default=0.003, gt=0.0, le=1e30)
    """Constant learning rate of these updates."""
    batch_size: int | None = Field(default=None, ge=1, le=MAX_COUNT)
    """Batch size of these updates; null for train.batch_size."""
    base: Literal["xavier_normal", "xavier_uniform", "kaiming_normal", "kaiming_uniform", "orthogonal"] = (
        "xavier_normal"
    )
    """Scheme of the weights before pre-training, and of the head unless `init.head` is set.

    Its gain is init.gain; by default 1/|φ′(0)| for bounded activations, √(2/(1+a²)) for others."""


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
    """Fill the weight by the scheme `base` with its default options."""
    scheme = INITS[base]
    options = scheme.options().model_dump(exclude={"name"})
    scheme.fill(weight, fan_in=fan_in, fan_out=fan_out, gain=gain, generator=generator, **options)


def _gain(activation: BoundActivation) -> float:
    """Return 1/|φ′(0)| for bounded activations (4 for sigmoid, 1 for tanh), √(2/(1+a²)) for others.

    With a gain of 1, a deep sigmoid net passes on so little signal that each layer learns only the mean of
    its input (for this reason, Glorot & Bengio 2010 use a factor of 4 for sigmoid).
    """
    if not (activation.entry.bounded and activation.entry.elementwise):
        return activation.kaiming_gain
    zero = torch.zeros(1, dtype=torch.float64, device="cpu")  # the default device may be "meta"
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
    """Return why the Jacobian is not diag(φ′) W with a fixed φ′, or None if it is."""
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
        summary="Each hidden layer, in order from the input, is first trained to reconstruct its own input.",
        formula="W_l, b_l = argmin E‖x_{l−1} − D(φ(W_l x_{l−1} + b_l))‖², l = 1 … L−1",
        source="Bengio et al. 2007; Vincent et al. 2010; Rifai et al. 2011",
        options=AutoencoderOptions,
        needs=SchemeRequirement.TRAINING,
        fill=_fill,
        default_gain=_gain,
        problem=_problem,
    )
)
