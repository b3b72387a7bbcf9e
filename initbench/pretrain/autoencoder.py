"""Auto-encoder of one layer: the layer, as part of its net, and a decoder.

B: samples of a batch, D: inputs of a layer, U: its units. Shapes are those of one run.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, conv_transpose2d, pad

from initbench.components.fans import fans_of
from initbench.components.inits.autoencoder_scheme import AutoencoderOptions
from initbench.components.parametrized_weight import weight_of
from initbench.models.init_weights import LayerRule
from initbench.models.network import Network

NETWORK, DECODER = "network.", "decoder."
"""Prefixes of the names of an auto-encoder's tensors."""
_ALIGNMENT = 256  # values, as in models.families.mlp


class Decoder(nn.Module):
    """Linear map x̂ = Wᵀc + b′ from code to inputs, or a transposed convolution; W is the encoder's if tied.

    Code (B, U) or (B, U, H′, W′) → (B, D) or (B, C, H, W); logits of the inputs if the loss is cross-entropy.
    """

    def __init__(self, encoder: nn.Module, code_units: int, *, tied: bool) -> None:
        super().__init__()
        _, inputs, *kernel = weight_of(encoder).shape
        self.weight = None if tied else nn.Parameter(torch.zeros(code_units, inputs, *kernel))
        self.bias = nn.Parameter(torch.zeros(inputs))
        self._convolution = {name: getattr(encoder, name) for name in ("stride", "padding") if kernel}

    @torch.no_grad()
    def draw(self, rule: LayerRule, stream: Generator) -> None:
        """Draw the decoder's own weights, if it is not tied, by the encoder's scheme with a gain of 1."""
        if self.weight is None:
            return
        stride = self._convolution.get("stride", (1, 1))
        fan_in, fan_out = fans_of(tuple(self.weight.shape), stride=stride[0] * stride[1], transposed=True)
        rule.scheme.fill(
            self.weight.transpose(0, 1),
            fan_in=fan_in,
            fan_out=fan_out,
            gain=1.0,
            generator=stream,
            **rule.arguments,
        )

    def forward(self, code: Tensor, encoder_weight: Tensor, size: torch.Size) -> Tensor:
        """Reconstruct inputs of this size."""
        weight = encoder_weight if self.weight is None else self.weight
        if not self._convolution:
            return (weight.mT @ code.mT).mT + self.bias
        stride, padding = self._convolution["stride"], self._convolution["padding"]
        # With a stride, several input sizes give the same code size; output padding selects the right one.
        rest = [
            size[2 + i] - ((code.shape[2 + i] - 1) * stride[i] - 2 * padding[i] + weight.shape[2 + i])
            for i in range(2)
        ]
        return conv_transpose2d(code, weight, self.bias, stride, padding, rest)


class AutoEncoder(nn.Module):
    """Auto-encoder of one layer of `network`, which encodes the outputs of the layers below it.

    Layers below are fixed and in evaluation mode; the layer includes its norm layer. `index` counts hidden
    layers from 0. The rest of the network is not used.
    """

    def __init__(self, network: Network, index: int, decoder: Decoder, options: AutoencoderOptions) -> None:
        super().__init__()
        self.network = network
        self.decoder = decoder
        self._options = options
        self._place = index
        stages = network.stages()
        # In tuples, so that no module is registered under a second name.
        self._below, self._own = tuple(stages[:index]), stages[index]
        self._site = (network.weight_layers()[index],)

    @property
    def trained(self) -> list[str]:
        """Names of the parameters that pre-training changes, in the layer and in the decoder."""
        parameter_ids = {id(p) for part in (self._own.layer, self.decoder) for p in part.parameters()}
        return [name for name, p in self.named_parameters() if id(p) in parameter_ids]

    def train(self, mode: bool = True) -> AutoEncoder:
        """Set the mode of the layer; layers below stay in evaluation mode."""
        super().train(mode)
        for stage in self._below:
            stage.layer.eval()
        return self

    @torch.no_grad()
    def inputs(self, x: Tensor) -> Tensor:
        """Return the inputs of the layer for samples x (B, …) of the data."""
        for stage in self._below:
            x = stage.layer(stage.preceding(x))
        return cast("Tensor", self._own.preceding(x))

    def forward(self, x: Tensor, noise: Tensor | None = None, *, measured: bool = False) -> Tensor:
        """Return the loss () of a batch, with the penalty of a contractive auto-encoder.

        Args:
            x: Samples (B, …).
            noise: Noise of the size of the layer's inputs; it corrupts the encoded inputs, not the target.
            measured: Whether to return the reconstruction losses (B,) in float64 instead.
        """
        target = self.inputs(x)
        inputs = target if noise is None else self._corrupted(target, noise)
        code = self._own.layer(inputs)
        decoded = self.decoder(code, self._weight, target.shape)
        if measured:
            return self._differences(decoded.double(), target.double()).flatten(1).mean(1)
        loss = self._differences(decoded, target).mean()
        return loss + self._penalty(inputs) if self._options.kind == "contractive" else loss

    @property
    def _weight(self) -> Tensor:
        return cast("Tensor", self._site[0].module.weight)

    def _corrupted(self, x: Tensor, noise: Tensor) -> Tensor:
        return x * noise if self._options.corruption == "masking" else x + noise

    def _differences(self, decoded: Tensor, target: Tensor) -> Tensor:
        if self._options.loss == "mse":
            return (decoded - target).square()
        # Padded to whole vectors for every run of a stack: the rounding of exponentials depends on positions.
        entries, rest = target.numel(), -target.numel() % _ALIGNMENT
        logits, targets = (pad(tensor.flatten(), (0, rest)) for tensor in (decoded, target))
        losses = binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return losses[:entries].view(target.shape)

    def _penalty(self, inputs: Tensor) -> Tensor:
        """Return λ‖J‖²/D, mean over samples, with J = diag(φ′(h)) W in closed form (Rifai et al. 2011)."""
        h = self._site[0].module(inputs)
        slopes = self.network.activation.derivative(h).square()  # (B, U)
        rows = self._weight.square().sum(1)  # (U,)
        factor = self._options.contraction / self._weight.shape[1]
        return factor * (slopes * rows).sum(1).mean()


def noise_for(options: AutoencoderOptions, size: tuple[int, ...], stream: Generator) -> Tensor | None:
    """Return noise for layer inputs of this size; None for auto-encoders without corruption."""
    if options.kind != "denoising":
        return None
    if options.corruption == "masking":
        return (torch.rand(size, generator=stream) >= options.corruption_level).float()
    return options.corruption_level * torch.randn(size, generator=stream)


def options_of(scheme_options: Any) -> AutoencoderOptions | None:
    """Return the options of the scheme `autoencoder`; None for any other scheme."""
    return scheme_options if isinstance(scheme_options, AutoencoderOptions) else None
