"""Predictions for nets with norm layers or maps in the limit of infinite width, without bands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from initbench.components.norms.standard import BatchNorm, LayerNorm, RmsNorm
from initbench.models.families.cnn import Cnn
from initbench.models.families.mlp import Mlp
from initbench.models.init_weights import InitOptions
from initbench.models.network import Network
from initbench.theory.batchnorm_propagation import MIN_SAMPLES, NormedLayer, propagate_batch_norm
from initbench.theory.conv_propagation import Head, MapLayer, propagate_maps
from initbench.theory.types import LayerPrediction, TheoryLayer


def why_unpredictable(network: Network, init: InitOptions, norm: str, samples: int) -> str | None:
    """Return why theory does not predict a net of independent weights with maps or norms, or None."""
    if not isinstance(network, Cnn | Mlp):
        return "layers have other inputs than the activations of the previous one"
    if not network.plain:
        return "pooling mixes positions of a map, whose correlations are not modelled"
    return None if norm == "none" else _why_norm_unpredictable(network, init, norm, samples)


def _why_norm_unpredictable(network: Network, init: InitOptions, norm: str, samples: int) -> str | None:
    norm_layer = network.weight_layers()[0].output  # the norm layer, if it is before the activation
    maps = isinstance(network, Cnn)
    match norm_layer:
        case BatchNorm() if maps:
            return "batch norm on maps depends on correlations of positions, which are not modelled"
        case BatchNorm() if samples < MIN_SAMPLES:
            return (
                f"batch norm over {samples} samples differs from that of large batches; try probe.batch=128"
            )
        case RmsNorm() if init.bias and not maps:
            return "after rms norm, constant biases give every sample another distribution"
        case BatchNorm() | LayerNorm() | RmsNorm():
            return None
    if norm in ("batch", "layer", "rms"):
        return f"model.norm={norm} after the activation changes the input of the next layer"
    return f"no closed form is known for model.norm={norm}"


def why_no_bands(network: Network) -> str:
    """Return why the predicted values have no bands."""
    of = "maps" if isinstance(network, Cnn) else "norm layers"
    return f"the deviation of a net of finite width is not known for {of}"


def predict_wide_limit(network: Network, layers: Sequence[TheoryLayer], x: Tensor) -> list[LayerPrediction]:
    """Return the predictions for a net that `why_unpredictable` accepts, with the head last.

    Args:
        network: The net.
        layers: Its weight layers, with the head last.
        x: The batch (B, …).
    """
    weighted = network.weight_layers()
    x = x.detach().double().cpu()
    *hidden, head = layers
    if isinstance(weighted[0].output, BatchNorm):
        normed = [
            NormedLayer(layer, cast("BatchNorm", weight_layer.output).eps)
            for layer, weight_layer in zip(hidden, weighted, strict=False)
        ]
        variance = float((x - x.mean(0)).square().mean())
        return propagate_batch_norm(normed, head, variance=variance, samples=len(x))
    map_layers = [
        MapLayer(layer, *_window(weight_layer.module), _sample_eps(weight_layer.output))
        for layer, weight_layer in zip(hidden, weighted, strict=False)
    ]
    if isinstance(network, Cnn):
        averaged = isinstance(network.pool, nn.AdaptiveAvgPool2d)
        return propagate_maps(map_layers, Head(head, averaged), x.square().mean(1))
    return propagate_maps(map_layers, Head(head), x.square().flatten(1).mean(1)[:, None, None])


def _window(module: nn.Module) -> tuple[int, int]:
    """Return side and stride of a layer's kernel."""
    return (module.kernel_size[0], module.stride[0]) if isinstance(module, nn.Conv2d) else (1, 1)


def _sample_eps(output: nn.Module) -> float | None:
    return output.eps if isinstance(output, LayerNorm | RmsNorm) else None
