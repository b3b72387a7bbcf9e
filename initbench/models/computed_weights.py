"""Weights that are computed from other tensors, by parametrizations or torch's older forward pre-hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from initbench.components.parametrized_weight import parametrization_of
from initbench.errors import UsageError

Read = Callable[[], Tensor]
Write = Callable[[Tensor], None]

_SAME = 1e-3
"""Relative difference of two scales that counts as rounding, even in half precision."""


def hook_of(layer: nn.Module) -> Any:
    """Return the forward pre-hook that computes `weight` before each forward pass, or None."""
    for hook in layer._forward_pre_hooks.values():
        computes = isinstance(hook, WeightNorm) or "weight_orig" in layer._parameters
        if computes and getattr(hook, "name", getattr(hook, "_tensor_name", None)) == "weight":
            return hook
    return None


def weight_from_hook(layer: nn.Module, hook: Any) -> tuple[Read, Write]:
    """Return functions that read and write a weight computed by `hook`; both update `layer.weight`."""

    def refresh() -> Tensor:
        if isinstance(hook, SpectralNorm):
            layer.weight = hook.compute_weight(layer, do_power_iteration=False)
        else:
            hook(layer, ())
        return cast("Tensor", layer.weight)

    @torch.no_grad()
    def write(weight: Tensor) -> None:
        """Set the parameters that the weight is computed from."""
        if isinstance(hook, WeightNorm):
            v, g = layer.get_parameter("weight_v"), layer.get_parameter("weight_g")
            v.copy_(weight)
            g.copy_(torch.norm_except_dim(v, 2, hook.dim))
        else:
            layer.get_parameter("weight_orig").copy_(weight)
        if isinstance(hook, SpectralNorm):
            matrix = hook.reshape_weight_to_matrix(layer.get_parameter("weight_orig"))
            _point(matrix, layer.get_buffer("weight_u"), layer.get_buffer("weight_v"))
        refresh()

    return refresh, write


@torch.no_grad()
def settle(layer: nn.Module) -> None:
    """Update the singular vectors stored by spectral norm to the current weight.

    Spectral norm tracks them by one power iteration per training step. After the weight is replaced, it would
    divide by a wrong number for many steps, and forever in evaluation mode.
    """
    parametrization = parametrization_of(layer)
    if parametrization is None:
        return
    with _evaluating(parametrization):
        steps = list(parametrization.children())
        weight: Any = None
        for position, step in enumerate(steps):
            if isinstance(step, _SpectralNorm) and hasattr(step, "_u"):
                tensor = weight if position else parametrization.original
                matrix = step._reshape_weight_to_matrix(cast("Tensor", tensor))
                _point(matrix, step.get_buffer("_u"), step.get_buffer("_v"))
            if position:
                weight = step(weight)
            elif parametrization.is_tensor:
                weight = step(parametrization.original)
            else:
                originals = [
                    getattr(parametrization, f"original{i}") for i in range(parametrization.ntensors)
                ]
                weight = step(*originals)


def _point(matrix: Tensor, u: Tensor, v: Tensor) -> None:
    """Set u and v to the left and right singular vectors of the largest singular value of `matrix`."""
    left, _, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    u.copy_(left[:, 0])
    v.copy_(right[0])


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@torch.no_grad()
def is_scale_taken(layer: nn.Module, name: str, read: Read, write: Write) -> bool:
    """Return whether the weight that is read is independent of the scale of the weight that is written.

    Writes two test weights and restores the original values.

    Raises:
        UsageError: If the weight cannot be computed or set.
    """
    tensors = [*layer.parameters(), *layer.buffers()]
    values = [tensor.detach().clone() for tensor in tensors]
    buffers = [(part, dict(part._buffers)) for part in layer.modules()]  # some are replaced, not written
    try:
        weight = read().detach().clone()
        probe = torch.randn(
            weight.shape, dtype=torch.float32, generator=torch.Generator("cpu").manual_seed(0)
        )
        scales = []
        for factor in (1.0, 2.0):
            write((factor * probe).to(weight))
            scales.append(float(read().double().square().mean().sqrt()))
    except Exception as error:
        problem = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UsageError(
            f"apply_init: {name} is computed by its parametrization and cannot be set ({problem});"
            " apply the init before the parametrization"
        ) from error
    finally:
        for part, buffer_names in buffers:
            part._buffers.update(buffer_names)
        for tensor, value in zip(tensors, values, strict=True):
            tensor.copy_(value)
    return not abs(scales[1] / scales[0] - 2.0) < 2.0 * _SAME if scales[0] > 0.0 else True
