"""Predictions for nets with norm layers or maps in the limit of infinite width, without bands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from initbench.models.init_weights import InitOptions
from initbench.models.network import Network, WeightLayer, has_maps
from initbench.theory.batchnorm_propagation import MIN_SAMPLES, NormedLayer, propagate_batch_norm
from initbench.theory.conv_propagation import Head, MapLayer, propagate_maps
from initbench.theory.types import LayerPrediction, TheoryLayer

# Nets and norms are distinguished by their structure and the name in the config: code that imported their
# classes would belong to the code fingerprint of every run.
_BATCH_NORMS = ("batch", "batch_renorm", "ghost_batch")
_SAMPLE_NORMS = ("layer", "rms")


def why_unpredictable(network: Network, init: InitOptions, norm: str, samples: int) -> str | None:
    """Return why theory does not predict a net of independent weights with maps or norms, or None."""
    if not network.stages():
        return "layers have other inputs than the activations of the previous one"
    if not network.plain:
        return "pooling mixes positions of a map, whose correlations are not modelled"
    return None if norm == "none" else _why_norm_unpredictable(network, init, norm, samples)


def _why_norm_unpredictable(network: Network, init: InitOptions, norm: str, samples: int) -> str | None:
    weighted = network.weight_layers()
    maps = has_maps(weighted)
    if norm not in (*_BATCH_NORMS, *_SAMPLE_NORMS):
        return f"no closed form is known for model.norm={norm}"
    if not _is_normed(weighted[0]):
        return f"model.norm={norm} after the activation changes the input of the next layer"
    if norm in _BATCH_NORMS and maps:
        return "batch norm on maps depends on correlations of positions, which are not modelled"
    if norm in _BATCH_NORMS and samples < MIN_SAMPLES:
        return f"batch norm over {samples} samples differs from that of large batches; try probe.batch=128"
    if norm == "rms" and init.bias and not maps:
        return "after rms norm, constant biases give every sample another distribution"
    return None


def why_no_bands(network: Network) -> str:
    """Return why the predicted values have no bands."""
    of = "maps" if has_maps(network.weight_layers()) else "norm layers"
    return f"the deviation of a net of finite width is not known for {of}"


def predict_wide_limit(
    network: Network, layers: Sequence[TheoryLayer], norm: str, x: Tensor
) -> list[LayerPrediction]:
    """Return the predictions for a net that `why_unpredictable` accepts, with the head last.

    Args:
        network: The net.
        layers: Its weight layers, with the head last.
        norm: Name of its norm.
        x: The batch (B, …).
    """
    weighted = network.weight_layers()
    x = x.detach().double().cpu()
    *hidden, head = layers
    if norm in _BATCH_NORMS:
        normed = [
            NormedLayer(layer, _eps(weight_layer))
            for layer, weight_layer in zip(hidden, weighted, strict=False)
        ]
        variance = float((x - x.mean(0)).square().mean())
        return propagate_batch_norm(normed, head, variance=variance, samples=len(x))
    map_layers = [
        MapLayer(
            layer,
            *_window(weight_layer.module),
            _eps(weight_layer) if norm in _SAMPLE_NORMS else None,
        )
        for layer, weight_layer in zip(hidden, weighted, strict=False)
    ]
    if has_maps(weighted):
        averaged = any(isinstance(module, nn.AdaptiveAvgPool2d) for module in network.children())
        return propagate_maps(map_layers, Head(head, averaged), x.square().mean(1))
    return propagate_maps(map_layers, Head(head), x.square().flatten(1).mean(1)[:, None, None])


def _is_normed(layer: WeightLayer) -> bool:
    """Whether a norm layer is between the weights and the activation."""
    return layer.output is not layer.module


def _eps(layer: WeightLayer) -> float:
    """Return ε of the norm layer between the weights and the activation."""
    return cast("float", layer.output.eps)


def _window(module: nn.Module) -> tuple[int, int]:
    """Return side and stride of a layer's kernel."""
    return (module.kernel_size[0], module.stride[0]) if isinstance(module, nn.Conv2d) else (1, 1)
