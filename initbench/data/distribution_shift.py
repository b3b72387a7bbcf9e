"""Distribution shift: deliberate changes of the evaluation data."""

from __future__ import annotations

import torch
from torch import Tensor

from initbench.data.dataset import ShiftOptions
from initbench.errors import DataError
from initbench.rng import stream_generator

_SEED = 0


def apply_shift(x: Tensor, options: ShiftOptions, part: str) -> Tensor:
    """Return the samples x (N, …), uint8 or float32 as loaded, with the shift applied: float32, scale of x.

    Images are moved, then `brightness` is added to every value, then noise. The noise is the same for every
    run, from one stream per `part` (`val`, `test`). Values are not clipped and may leave the range of the
    training data. Raises DataError if the images would be moved out of view completely.
    """
    unit = 255.0 if x.dtype == torch.uint8 else 1.0
    changed = _translate(x.to(torch.float32, copy=True), *options.down_right)
    changed += options.brightness * unit
    if options.noise:
        stream = stream_generator(_SEED, "data", "shift", part)
        changed += torch.randn(changed.shape, generator=stream) * (options.noise * unit)
    return changed


def _translate(x: Tensor, down: int, right: int) -> Tensor:
    """Return x (N, C, H, W) moved by whole pixels, with black in the uncovered pixels."""
    if not (down or right):
        return x
    height, width = x.shape[2:]
    if abs(down) >= height or abs(right) >= width:
        raise DataError(
            f"data.shift.translate={[down, right]} moves images of {height} × {width} pixels out of view"
        )
    moved = torch.zeros_like(x)
    target, source = _overlap(down, height), _overlap(-down, height)
    moved[:, :, target, _overlap(right, width)] = x[:, :, source, _overlap(-right, width)]
    return moved


def _overlap(by: int, size: int) -> slice:
    """Return the part of 0 … size−1 that an interval of that size covers after it was moved by `by`."""
    return slice(max(0, by), size + min(0, by))
