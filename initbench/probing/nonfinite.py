"""Find the layer of a net whose output is not finite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.func import functional_call

from initbench.models.network import Network


@torch.no_grad()
def first_non_finite_layer(
    network: Network, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], x: Tensor
) -> int | None:
    """Return the index of the first weight layer whose output on x (B, …) is not finite, or None.

    The pass uses copies of the buffers and runs in the current mode of the net.
    """
    lost: list[int] = []

    def watch(index: int) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            if not bool(torch.isfinite(output).all()):
                lost.append(index)

        return hook

    with ExitStack() as stack:
        for layer in network.weight_layers():
            stack.callback(layer.module.register_forward_hook(watch(layer.index)).remove)
        copies = {name: buffer.clone() for name, buffer in buffers.items()}
        functional_call(network, {**parameters, **copies}, (x,))
    return min(lost, default=None)
