"""Statistics of every layer of a net in one forward and backward pass over a fixed batch.

Hooks reduce each tensor immediately, so no large tensor is kept, and an in-place activation cannot change
the statistics of its input. Another pass finds the first layer whose output is not finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from initbench.components.fans import shape_of
from initbench.components.parametrized_weight import parametrization_of
from initbench.models.custom_network import CustomNetwork
from initbench.models.network import Network, WeightLayer, has_maps
from initbench.probing import custom_probe, layer_record, tensor_statistics
from initbench.probing.initial_conditions import (
    SCALE_FREE_NORMS,
    Conditions,
    batch_conditions,
    broken_tensors,
)
from initbench.probing.jacobian import jacobian_statistics
from initbench.probing.layer_record import MeasuredLayer
from initbench.probing.running_statistics import capture_running_stat_gaps
from initbench.probing.tensor_statistics import ProbeDetail
from initbench.trace.torch_ops import norm_module

Tensors = Mapping[str, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]

_SCALE_FREE = SCALE_FREE_NORMS | {"FilterResponseNorm"}
MAP_SAMPLES = 64
"""Maximum number of samples for convolutional nets; a cnn of depth 10 × 32 takes 1.6 s with them."""


def probe(
    network: Network,
    parameters: Tensors,
    buffers: Tensors,
    *,
    x: Tensor,
    y: Tensor,
    loss: Loss,
    bins: int,
    detail: ProbeDetail,
) -> list[dict[str, Any]]:
    """Return the statistics of every weight layer, in order, as plain data.

    The pre-activation is the output of the layer (`WeightLayer.output`). `act` describes the output of the
    activation after the layer, and is None if there is none. Nets with maps are measured on the first
    MAP_SAMPLES samples only, since each position of a map is a further observation of its unit. The pass runs
    in training mode on copies of the buffers, so that batch norm uses the statistics of the batch. It does
    not change parameters, buffers, mode and hooks.

    Args:
        network: The net.
        parameters: The parameters of one run by name.
        buffers: The buffers of one run by name.
        x: The batch (B, …).
        y: The labels (B,).
        loss: A function of logits and labels that returns a mean over the batch.
        bins: The number of bins of histograms.
        detail: The statistics to compute.
    """
    if isinstance(network, CustomNetwork):
        return custom_probe.probe(network, {**parameters, **buffers}, x, y, loss, bins, detail)
    leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
    copies = {name: value.clone() for name, value in buffers.items()}
    layers = network.weight_layers()
    if has_maps(layers):
        x, y = x[:MAP_SAMPLES], y[:MAP_SAMPLES]
    records: dict[int, dict[str, Any]] = {}
    with _training_mode(network), _hooks(network, layers, records, bins, detail), torch.enable_grad():
        with _weights(layers, leaves) as weights, capture_running_stat_gaps(network, layers) as running:
            logits = network.logits({**leaves, **copies}, x)
        needed_weights = {index: weights[index] for index in _layers_with_gradient(records, detail)}
        gradients = torch.autograd.grad(loss(logits, y), list(needed_weights.values()), allow_unused=True)
    if detail >= ProbeDetail.EVALUATION:
        for index, gap in running.items():
            records[index]["batch_norm"] = gap
    if detail >= ProbeDetail.FULL:
        with _training_mode(network):
            for index, jacobian in jacobian_statistics(network, parameters, buffers, x).items():
                records[index]["jacobian"] = jacobian
    of_layer = dict(zip(needed_weights, gradients, strict=True))
    measured = [
        MeasuredLayer(
            records[layer.index],
            {"index": layer.index, "name": layer.name, "units": weights[layer.index].shape[0]},
            weights[layer.index],
            of_layer.get(layer.index),
        )
        for layer in layers
    ]
    return layer_record.finish_records(measured, detail)


def _layers_with_gradient(records: Mapping[int, dict[str, Any]], detail: ProbeDetail) -> list[int]:
    """Return the indices of the layers whose weight gradients are needed, after the forward pass.

    For a diagnosis, these are the layers with similar units, and the first layer, whose gradient passes
    through all others.
    """
    if detail >= ProbeDetail.EVALUATION:
        return list(records)
    first = min(records)
    return [
        i for i, record in records.items() if i == first or record["unit_spread"] <= tensor_statistics.ALIKE
    ]


@contextmanager
def _weights(layers: list[WeightLayer], parameters: Tensors) -> Iterator[dict[int, Tensor]]:
    """Collect the weights that a pass inside of the block multiplies by, by index of the layer.

    Weights that a parametrization computes are recorded by a hook.
    """
    weights: dict[int, Tensor] = {}

    def keep(index: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            """Keep the computed weight."""
            weights[index] = output

        return hook

    with ExitStack() as stack:
        for layer in layers:
            computed = parametrization_of(layer.module)
            if computed is None:
                weights[layer.index] = parameters[f"{layer.name}.weight"]
            else:
                stack.callback(computed.register_forward_hook(keep(layer.index)).remove)
        yield weights


@contextmanager
def _training_mode(network: Network) -> Iterator[None]:
    held = {network.get_submodule(name) for name in network.held}
    evaluating = [module for module in network.modules() if not module.training and module not in held]
    for module in evaluating:
        module.training = True
    try:
        yield
    finally:
        for module in evaluating:
            module.training = False


@contextmanager
def _hooks(
    network: Network,
    layers: list[WeightLayer],
    records: dict[int, dict[str, Any]],
    bins: int,
    detail: ProbeDetail,
) -> Iterator[None]:
    """Record the statistics of every layer of a pass inside of the block in `records`, by index."""
    layer_bins = bins if detail >= ProbeDetail.EVALUATION else None

    def pre(layer: WeightLayer) -> Callable[[nn.Module, object, Tensor], None]:
        """Return a hook that records the pre-activation of the layer."""

        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            """Record the pre-activation, and its gradient in the backward pass."""
            records[layer.index] = layer_record.start_record(
                output, output, detail, positions=output[0, 0].numel(), bins=layer_bins
            )

        return hook

    def act(layer: WeightLayer) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        """Return a hook that records the output of the activation after the layer."""

        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            """Record the output of the activation."""
            records[layer.index]["act"] = layer_record.activation_record(
                inputs[0], output, network.activation, detail, layer_bins
            )

        return hook

    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.output.register_forward_hook(pre(layer)).remove)
            if layer.activation is not None:
                stack.callback(layer.activation.register_forward_hook(act(layer)).remove)
        yield


def network_conditions(network: Network, x: Tensor, loss: float | None) -> Conditions:
    """Return the conditions of a built-in net and its batch x (B, …); `loss`: cross-entropy at init."""
    if isinstance(network, CustomNetwork):
        return custom_probe.conditions(network, x, loss)
    conditions = batch_conditions(x)
    head = network.weight_layers()[-1]
    return replace(
        conditions,
        broken=(*broken_tensors(network.named_parameters(), network.named_buffers()), *conditions.broken),
        first_input=None if _divides_scale_out(network) else conditions.batch,
        loss=loss,
        chance=math.log(shape_of(head.module)[0]),
        head=head.name,
    )


def _divides_scale_out(network: Network) -> bool:
    """Return whether a norm removes the input scale in the first layer or directly after it."""
    name = type(network.weight_layers()[0].output).__name__
    return norm_module(name) in _SCALE_FREE or name.startswith("Cosine")


@torch.no_grad()
def first_non_finite_layer(
    network: Network, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], x: Tensor
) -> int | None:
    """Return the index of the first weight layer whose output on x (B, …) is not finite, or None.

    The pass uses copies of the buffers and runs in the current mode of the net.
    """
    if isinstance(network, CustomNetwork):
        return custom_probe.first_non_finite_layer(network, {**parameters, **buffers}, x)
    lost: list[int] = []

    def watch(index: int) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            """Note the layer if its output is not finite."""
            if not bool(torch.isfinite(output).all()):
                lost.append(index)

        return hook

    with ExitStack() as stack:
        for layer in network.weight_layers():
            stack.callback(layer.module.register_forward_hook(watch(layer.index)).remove)
        copies = {name: buffer.clone() for name, buffer in buffers.items()}
        network.logits({**parameters, **copies}, x)
    return min(lost, default=None)
