"""The auto-encoder of one layer: the layer as it stands in its net, and a decoder.

B samples of a batch, D inputs of a layer, U units of it. Shapes are those of one run.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, conv_transpose2d, pad

from initbench.components.inits.autoencoder_scheme import AutoencoderOptions
from initbench.components.parametrized_weight import weight_of
from initbench.models.fans import fans_of
from initbench.models.init_weights import LayerRule
from initbench.models.network import Network

NETWORK, DECODER = "network.", "decoder."
"""What the names of an auto-encoder's tensors begin with."""
_ALIGNMENT = 256  # values, as in models.families.mlp


class Decoder(nn.Module):
    """A linear map back, x̂ = Wᵀc + b′, or the transposed convolution; W is the encoder's where it is tied.

    Code (B, U) or (B, U, H′, W′) → (B, D) or (B, C, H, W), logits of the inputs for cross-entropy.
    """

    def __init__(self, encoder: nn.Module, code_units: int, *, tied: bool) -> None:
        super().__init__()
        _, inputs, *kernel = weight_of(encoder).shape
        self.weight = None if tied else nn.Parameter(torch.zeros(code_units, inputs, *kernel))
        self.bias = nn.Parameter(torch.zeros(inputs))
        self._convolution = {name: getattr(encoder, name) for name in ("stride", "padding") if kernel}

    @torch.no_grad()
    def draw(self, rule: LayerRule, stream: Generator) -> None:
        """Draw the weights, if they are its own, by the encoder's scheme with a gain of 1."""
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
        """Reconstruct inputs of that size."""
        weight = encoder_weight if self.weight is None else self.weight
        if not self._convolution:
            return (weight.mT @ code.mT).mT + self.bias
        stride, padding = self._convolution["stride"], self._convolution["padding"]
        # Several sizes give one size of code where there is a stride; the rest picks the one that was.
        rest = [
            size[2 + i] - ((code.shape[2 + i] - 1) * stride[i] - 2 * padding[i] + weight.shape[2 + i])
            for i in range(2)
        ]
        return conv_transpose2d(code, weight, self.bias, stride, padding, rest)


class AutoEncoder(nn.Module):
    """One layer of `network` as an encoder of what the layers below it put out.

    Layers below are fixed and in evaluation mode; the layer itself is whole, norm layer included. `place`
    counts hidden layers from 0. The rest of the network takes no part.
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
        """Names of the parameters that pre-training changes: those of the layer and of the decoder."""
        parameter_ids = {id(p) for part in (self._own.layer, self.decoder) for p in part.parameters()}
        return [name for name, p in self.named_parameters() if id(p) in parameter_ids]

    def train(self, mode: bool = True) -> AutoEncoder:
        """Set the mode of the layer; those below stay in evaluation mode."""
        super().train(mode)
        for stage in self._below:
            stage.layer.eval()
        return self

    @torch.no_grad()
    def inputs(self, x: Tensor) -> Tensor:
        """What the layer is given for samples x (B, …) of the data."""
        for stage in self._below:
            x = stage.layer(stage.preceding(x))
        return cast("Tensor", self._own.preceding(x))

    def forward(self, x: Tensor, noise: Tensor | None = None, *, measured: bool = False) -> Tensor:
        """Loss () of a batch of samples x (B, …), with what a contractive one adds.

        `noise`, of the size of the layer's inputs, corrupts what is encoded, never what is to come out.
        `measured`: the reconstruction losses (B,) instead, as float64.
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
        # Whole vectors for every run of a stack: its exponentials round the same wherever they stand.
        entries, rest = target.numel(), -target.numel() % _ALIGNMENT
        logits, targets = (pad(tensor.flatten(), (0, rest)) for tensor in (decoded, target))
        losses = binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return losses[:entries].view(target.shape)

    def _penalty(self, inputs: Tensor) -> Tensor:
        """λ‖J‖²/D, mean over the samples, with J = diag(φ′(h)) W in closed form (Rifai et al. 2011)."""
        h = self._site[0].module(inputs)
        slopes = self.network.activation.derivative(h).square()  # (B, U)
        rows = self._weight.square().sum(1)  # (U,)
        factor = self._options.contraction / self._weight.shape[1]
        return factor * (slopes * rows).sum(1).mean()


def noise_for(options: AutoencoderOptions, size: tuple[int, ...], stream: Generator) -> Tensor | None:
    """What corrupts a batch of layer inputs of that size; None for auto-encoders that corrupt nothing."""
    if options.kind != "denoising":
        return None
    if options.corruption == "masking":
        return (torch.rand(size, generator=stream) >= options.corruption_level).float()
    return options.corruption_level * torch.randn(size, generator=stream)


def options_of(scheme_options: Any) -> AutoencoderOptions | None:
    """The options of the scheme where it is autoencoder; None for any other."""
    return scheme_options if isinstance(scheme_options, AutoencoderOptions) else None
