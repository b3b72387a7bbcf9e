"""Running statistics of norm layers: their distance from a batch's statistics, and ways to replace them.

The input of a norm is (B, C, …), and its statistics are (C,).
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
    """Return the norm layers of a net that use running statistics in evaluation mode."""
    return [module for module in network.modules() if isinstance(module, BatchNorm)]


def channel_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and unbiased variance (C,) over all axes of x (B, C, …) except the second."""
    axes = [axis for axis in range(x.ndim) if axis != 1]
    count = x.numel() // x.shape[1]
    mean = x.mean(axes)
    centred = x - mean.view(1, -1, *[1] * (x.ndim - 2))
    return mean, centred.square().sum(axes) / max(1, count - 1)


def running_stat_gap(norm: BatchNorm, x: Tensor) -> dict[str, float]:
    """Return the distance of the running statistics of `norm` from the statistics m and v of its input x.

    - running_mean_gap = √mean_c (m_run − m)²/(v + ε), in standard deviations of the batch; 0 if they agree.
    - running_var_ratio = exp(mean_c ln((v_run + ε)/(v + ε))), a geometric mean over channels; 1 if equal.

    ε is that of the norm. Ioffe & Szegedy (2015) use the one kind of statistics in training and the other in
    inference.
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
    """Collect the gaps of the first norm after each weight layer in a pass inside of the block, by index."""
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
    """Put the net into evaluation mode, except for norm layers, which use the statistics of the batch."""
    network.train()  # submodules that are fixed in evaluation mode stay in it
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
    """Put the net into evaluation mode, in which a pass sets each norm's running statistics to its input's.

    Each norm uses the new statistics immediately, so that one pass over the whole sample gives every norm the
    exact statistics of its input in evaluation mode.
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
