"""Evaluation data that differ from the training data on purpose."""

from __future__ import annotations

import torch
from torch import Tensor

from initbench.data.dataset import ShiftOptions
from initbench.errors import DataError
from initbench.rng import stream_generator

_SEED = 0


def apply_shift(x: Tensor, options: ShiftOptions, part: str) -> Tensor:
    """The samples x (N, …) as loaded, uint8 or float32, changed: float32 on the scale of x.

    Images are moved, then every value is raised by `brightness`, then noise is added: the same for every
    run, from a stream for each `part` (`val`, `test`). Nothing is clipped, so a value may leave the range
    of the training data. Raises DataError where the images would be moved out of sight.
    """
    unit = 255.0 if x.dtype == torch.uint8 else 1.0
    changed = _translate(x.to(torch.float32, copy=True), *options.down_right)
    changed += options.brightness * unit
    if options.noise:
        stream = stream_generator(_SEED, "data", "shift", part)
        changed += torch.randn(changed.shape, generator=stream) * (options.noise * unit)
    return changed


def _translate(x: Tensor, down: int, right: int) -> Tensor:
    """x (N, C, H, W) moved by whole pixels, with black ones in the places that are left."""
    if not (down or right):
        return x
    height, width = x.shape[2:]
    if abs(down) >= height or abs(right) >= width:
        raise DataError(
            f"data.shift.translate={[down, right]} moves images of {height} × {width} pixels out of sight"
        )
    moved = torch.zeros_like(x)
    target, source = _overlap(down, height), _overlap(-down, height)
    moved[:, :, target, _overlap(right, width)] = x[:, :, source, _overlap(-right, width)]
    return moved


def _overlap(by: int, size: int) -> slice:
    """Where in 0 … size−1 a thing of that size stands after it was moved by `by`."""
    return slice(max(0, by), size + min(0, by))
