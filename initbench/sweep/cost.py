"""What a run costs, from its config alone: to share work out alike on every machine."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from initbench.config.schema import ExperimentConfig
from initbench.data.dataset import Form, form_of
from initbench.errors import ConfigError
from initbench.models.network import FAMILIES

PASSES = 3
"""Matrix products of an update for each of the forward pass."""
LAYER_WORK = 2_000_000
"""Multiplications in the time that a layer takes of an update whatever its size, about 100 µs."""
SAMPLES = 50_000
"""Of a training split, where a budget is given in epochs: the data are not looked at."""
_UNKNOWN = Form((784,), 10)


def cost(config: ExperimentConfig) -> float:
    """About how many multiplications one run takes: updates · (3 · batch · products + layers · 2·10⁶)."""
    products, layers = _work(config)
    return updates(config) * float(PASSES * config.train.batch_size * products + layers * LAYER_WORK)


def updates(config: ExperimentConfig) -> int:
    """Updates of one run; an estimate where the budget is in epochs."""
    if config.train.steps is not None:
        return config.train.steps
    return max(1, round((config.train.epochs or 1.0) * (SAMPLES // config.train.batch_size)))


def parameters(config: ExperimentConfig) -> int:
    """Numbers that one net learns."""
    network = _network(config)
    return 0 if network is None else sum(p.numel() for p in network.parameters())


def _work(config: ExperimentConfig) -> tuple[int, int]:
    """Multiplications of one sample's forward pass in weight layers, and how many layers there are."""
    network, form = _network(config), form_of(config.data) or _UNKNOWN
    if network is None:
        return 0, 1
    layers = [layer.module for layer in network.weight_layers()]
    counted: list[int] = []

    def count(module: nn.Module, _inputs: Any, output: Tensor) -> None:
        weights = sum(p.numel() for name, p in module.named_parameters() if "bias" not in name)
        positions = output[0].numel() // output.shape[1]
        counted.append(weights * positions)

    for module in layers:
        module.register_forward_hook(count)
    try:
        network.eval()(torch.empty(2, *form.shape, device="meta"))
    except (RuntimeError, NotImplementedError):  # an operation without a meta kernel: dense layers, at least
        counted = [sum(p.numel() for p in network.parameters())]
    return sum(counted), len(layers)


def _network(config: ExperimentConfig) -> Any:
    form = form_of(config.data) or _UNKNOWN
    try:
        with torch.device("meta"):
            return FAMILIES[config.model.family].build(config.model, form.shape, form.classes)
    except ConfigError:  # only its data tell what net it is
        return None
