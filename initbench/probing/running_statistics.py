"""Norm layers that keep running statistics: how far these are from a batch's, and nets that use others.

A norm's input is (B, C, …), and its statistics are (C,).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from initbench.components.norms.standard import BatchNorm
from initbench.models.network import WeightLayer

_PreHook = Callable[[nn.Module, tuple[Tensor, ...]], None]


def running_norms(network: nn.Module) -> list[BatchNorm]:
    """The net's norm layers that standardise by running statistics in evaluation."""
    return [module for module in network.modules() if isinstance(module, BatchNorm)]


def channel_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance (C,) over all axes of x (B, C, …) but the second."""
    axes = [axis for axis in range(x.ndim) if axis != 1]
    count = x.numel() // x.shape[1]
    mean = x.mean(axes)
    centred = x - mean.view(1, -1, *[1] * (x.ndim - 2))
    return mean, centred.square().sum(axes) / max(1, count - 1)


def running_stat_gap(norm: BatchNorm, x: Tensor) -> dict[str, float]:
    """How far the running statistics of `norm` are from those of its input x, the batch's m and v.

    running_mean_gap = √mean_c (m_run − m)²/(v + ε): in standard deviations of the batch, 0 where they agree;
    running_var_ratio = exp(mean_c ln((v_run + ε)/(v + ε))): a geometric mean over channels, 1 there.
    Both are what Ioffe & Szegedy (2015) replace between training and inference, ε being the norm's own.
    """
    mean, var = channel_statistics(x.detach().double())
    running_mean, running_var = norm.running_mean.detach().double(), norm.running_var.detach().double()
    var, running_var = var + norm.eps, running_var + norm.eps
    return {
        "running_mean_gap": math.sqrt(float(((running_mean - mean).square() / var).mean())),
        "running_var_ratio": float((running_var / var).log().mean().exp()),
    }


@contextmanager
def capture_running_stat_gaps(
    network: nn.Module, layers: Sequence[WeightLayer]
) -> Iterator[dict[int, dict[str, float]]]:
    """By index of a weight layer, the `gap` of the first such norm behind it, once a pass has run inside."""
    gaps: dict[int, dict[str, float]] = {}
    latest = [0]

    def weighed(index: int) -> Callable[[nn.Module, object, object], None]:
        def hook(_module: nn.Module, _inputs: object, _output: object) -> None:
            latest[0] = index

        return hook

    def normed(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, BatchNorm)
        if latest[0] and latest[0] not in gaps:
            gaps[latest[0]] = running_stat_gap(module, inputs[0])

    norms = running_norms(network)
    with ExitStack() as stack:
        for layer in layers if norms else ():
            stack.callback(layer.module.register_forward_hook(weighed(layer.index)).remove)
        stack.enter_context(_pre_hooks(norms, normed))
        yield gaps


@contextmanager
def batch_statistics_mode(network: nn.Module) -> Iterator[None]:
    """The net in evaluation mode, but for its norm layers, which use the batch's own statistics."""
    network.train()  # what is held in evaluation mode while the net trains stays in it
    norms = [norm for norm in running_norms(network) if norm.training]
    network.eval()
    for norm in norms:
        norm.training = True
    try:
        yield
    finally:
        for norm in norms:
            norm.training = False


@contextmanager
def recompute_running_stats(network: nn.Module) -> Iterator[None]:
    """The net in evaluation mode; a pass sets each norm's running statistics to those of its own input.

    Each norm then standardises by what was just computed, so that one pass over the whole sample
    gives every layer the exact statistics of the signal that the layers below hand on in evaluation mode.
    """

    def recompute(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, BatchNorm)
        mean, var = channel_statistics(inputs[0].float())
        module.running_mean.copy_(mean)
        module.running_var.copy_(var)

    network.eval()
    with _pre_hooks(running_norms(network), recompute), torch.no_grad():
        yield


@contextmanager
def _pre_hooks(norms: Sequence[nn.Module], hook: _PreHook) -> Iterator[None]:
    with ExitStack() as stack:
        for norm in norms:
            handle: Any = norm.register_forward_pre_hook(hook)
            stack.callback(handle.remove)
        yield
