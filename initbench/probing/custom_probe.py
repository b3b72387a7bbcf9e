"""Measurements of a net of the user in training, by tracing passes through its module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from initbench.models.custom_network import CustomNetwork
from initbench.models.network import has_maps
from initbench.probing.initial_conditions import Conditions
from initbench.probing.jacobian import MAP_SAMPLES as MAP_JACOBIANS
from initbench.probing.jacobian import SAMPLES, jacobians_of
from initbench.probing.loss import Loss
from initbench.probing.module_probe import probe_module
from initbench.probing.tensor_statistics import ProbeDetail
from initbench.rng import global_stream
from initbench.trace.module_pass import SilentObserver, trace_pass
from initbench.trace.preserve_state import preserve_state
from initbench.trace.weight_use import WeightUse

MAP_SAMPLES = 64
"""Maximum number of samples for nets with convolutions, as for other nets with maps."""


def probe(
    network: CustomNetwork,
    tensors: Mapping[str, Tensor],
    x: Tensor,
    y: Tensor,
    loss: Loss,
    bins: int,
    detail: ProbeDetail,
) -> list[dict[str, Any]]:
    """Return the statistics of every use of a weight, in order; see `network_probe.probe`.

    The values of the module's parameters and buffers are replaced by `tensors`.
    """
    _load(network, tensors)
    if has_maps(network.weight_layers()):
        x, y = x[:MAP_SAMPLES], y[:MAP_SAMPLES]
    stores = detail >= ProbeDetail.EVALUATION
    probed = probe_module(network.module, x, y, loss, bins=bins if stores else None, detail=detail)
    records = probed.records
    if stores:
        for record in records:
            if record["act"] is not None and "histogram" not in record["act"]:
                record["act"] = None  # the gates of a recurrent layer, whose values are not kept
    if detail >= ProbeDetail.FULL:
        for index, jacobian in _jacobians(network, x).items():
            records[index - 1]["jacobian"] = jacobian
    return records


def conditions(network: CustomNetwork, x: Tensor, loss: float | None) -> Conditions:
    """Return the conditions of a net and its batch x (B, …); `loss`: cross-entropy at init."""
    layers = network.weight_layers()
    if has_maps(layers):
        x = x[:MAP_SAMPLES]
    measured = probe_module(network.module, x).conditions
    return replace(measured, loss=loss, head=network.head)


def first_non_finite_layer(network: CustomNetwork, tensors: Mapping[str, Tensor], x: Tensor) -> int | None:
    """Return the index of the first weight use whose output on x (B, …) is not finite, or None."""
    _load(network, tensors)
    observer = _FiniteObserver()
    with torch.no_grad():
        trace_pass(network.module, x, observer)
    return min(observer.lost, default=None)


class _FiniteObserver(SilentObserver):
    """Collects the indices of weight uses whose output is not finite."""

    def __init__(self) -> None:
        self.lost: list[int] = []

    def pre_activation(self, use: WeightUse, output: Tensor) -> None:
        if not bool(torch.isfinite(output).all()):
            self.lost.append(use.index)


class _OutputObserver(SilentObserver):
    """Collects the pre-activations of all weight uses."""

    def __init__(self) -> None:
        self.outputs: dict[int, Tensor] = {}

    def pre_activation(self, use: WeightUse, output: Tensor) -> None:
        self.outputs[use.index] = output


def _jacobians(network: CustomNetwork, x: Tensor) -> dict[int, dict[str, float]]:
    """Return the statistics of ∂logits/∂h by index of the use, for those that the logits depend on.

    Outputs for positions or pixels have none, because their Jacobian has a row for each of them.
    """
    observer = _OutputObserver()
    samples = MAP_JACOBIANS if has_maps(network.weight_layers()) else SAMPLES
    stream = global_stream(0, "jacobian", device=x.device)
    with preserve_state(network.module), torch.enable_grad(), stream:
        logits, trace = trace_pass(network.module.train(), x[:samples], observer)
        if logits.dim() != 2:
            return {}
        feeding = {use.index for use in trace.uses if use.feeds}
        hidden = {
            index: output
            for index, output in observer.outputs.items()
            if index in feeding and len(output) == len(logits)  # a layer may join the axis of the samples
        }
        try:
            return jacobians_of(logits, hidden)
        except RuntimeError:  # of an operation of the user without a rule for several gradients at once
            return {}


@torch.no_grad()
def _load(network: CustomNetwork, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in chain(network.named_parameters(), network.named_buffers()):
        tensor.copy_(tensors[name])
