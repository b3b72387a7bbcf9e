"""Singular values of the Jacobians ∂logits/∂h_l of the logits by each layer's pre-activation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from initbench.models.network import Network, has_maps

SAMPLES = 32
MAP_SAMPLES = 8
"""Number of samples for convolutional nets, whose Jacobians have a column for every pixel of every map."""
LOGITS = 10
"""Maximum number of logits, each of which needs a backward pass."""


def jacobian_statistics(
    network: Network, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], x: Tensor
) -> dict[int, dict[str, float]]:
    """Return the mean σ² and the condition of the Jacobian of each hidden layer, by index of the layer.

    J_l = ∂logits/∂h_l, (logits, C) or (logits, C·H·W) for one sample; `mean_sigma2` averages the squared
    singular values over samples of x (B, …), `condition` is the median over samples of σ_max/σ_min. A
    constant σ² over the layers is dynamical isometry in the mean (Saxe et al. 2014, Pennington et al. 2017).
    With batch norm, J is the Jacobian of the sum of each logit over the samples, since the normalisation of
    a sample depends on the others.
    """
    outputs_by_layer: dict[int, Tensor] = {}
    layers = network.weight_layers()
    samples = MAP_SAMPLES if has_maps(layers) else SAMPLES
    with ExitStack() as stack, torch.enable_grad():
        for layer in layers:
            if not layer.is_head:
                stack.callback(
                    layer.output.register_forward_hook(_keep(outputs_by_layer, layer.index)).remove
                )
        copies = {name: buffer.clone() for name, buffer in buffers.items()}
        leaves = {name: p.detach().requires_grad_() for name, p in parameters.items()}
        return jacobians_of(network.logits({**leaves, **copies}, x[:samples]), outputs_by_layer)


def jacobians_of(logits: Tensor, outputs_by_layer: Mapping[int, Tensor]) -> dict[int, dict[str, float]]:
    """Return the statistics of ∂logits/∂h for logits (B, classes) and pre-activations h (B, …), by layer.

    Layers that the logits do not depend on have none.
    """
    if not outputs_by_layer:
        return {}
    by_layer = _all_gradients(logits[:, :LOGITS].sum(0), list(outputs_by_layer.values()))
    return {
        index: _summary(jacobian)
        for index, jacobian in zip(outputs_by_layer, by_layer, strict=True)
        if jacobian is not None
    }


def _all_gradients(values: Tensor, inputs: list[Tensor]) -> list[Tensor | None]:
    """Return the gradients of all values (logits,) by each input (B, …), as (B, logits, …).

    They are None for inputs that the values do not depend on. One backward pass for all values would need a
    batching rule of each operation, and torch imports a computer algebra system for it.
    """
    by_value = [torch.autograd.grad(value, inputs, retain_graph=True, allow_unused=True) for value in values]
    return [
        None if None in gradients else torch.stack([g for g in gradients if g is not None], dim=1)
        for gradients in zip(*by_value, strict=True)
    ]


def _keep(outputs_by_layer: dict[int, Tensor], index: int) -> Callable[[nn.Module, object, Tensor], None]:
    def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        """Keep the output in the autograd graph."""
        outputs_by_layer[index] = output

    return hook


def _summary(jacobian: Tensor) -> dict[str, float]:
    """Return the statistics of a Jacobian (B, logits, …)."""
    rows = jacobian.double().flatten(2)
    if not bool(rows.isfinite().all()):
        return {"mean_sigma2": math.nan, "condition": math.nan}
    smaller = rows if rows.shape[1] <= rows.shape[2] else rows.mT
    squares = torch.linalg.eigvalsh(smaller @ smaller.mT)
    ratio = squares[:, -1] / squares[:, 0].clamp(min=0)
    return {"mean_sigma2": float(squares.mean()), "condition": float(ratio.sqrt().median())}
