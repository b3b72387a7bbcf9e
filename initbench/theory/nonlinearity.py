"""What theory needs to know of an elementwise activation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]

_FAR, _GRID = 20.0, 4001


@dataclass(frozen=True)
class Nonlinearity:
    """φ and φ′ on float64 tensors, and where they are not smooth."""

    phi: Function
    derivative: Function
    kinks: tuple[float, ...] = ()
    """Arguments at which φ′ or φ″ jumps."""
    flat_below: float | None = None
    """|φ′| below which the activation counts as saturated; None for one that does not saturate."""

    def is_flat(self, h: Tensor) -> Tensor:
        """Where |φ′(h)| is below `flat_below`, as a tensor of booleans."""
        limit = -1.0 if self.flat_below is None else self.flat_below
        return self.derivative(h).abs() < limit

    @cached_property
    def breaks(self) -> tuple[float, ...]:
        """Where quadrature is to be split: the kinks, and the borders of the flat parts."""
        if self.flat_below is None:
            return self.kinks
        grid = torch.linspace(-_FAR, _FAR, _GRID, dtype=torch.float64)
        flat = self.is_flat(grid)
        changes = torch.nonzero(flat[1:] != flat[:-1]).flatten().tolist()
        return (*self.kinks, *(self._border(float(grid[i]), float(grid[i + 1])) for i in changes))

    def _border(self, low: float, high: float) -> float:
        """The point between two grid points where flatness changes, by bisection."""
        ends = torch.tensor([low, high], dtype=torch.float64)
        begins_flat = bool(self.is_flat(ends[:1]))
        for _ in range(50):
            middle = ends.mean()
            ends[0 if bool(self.is_flat(middle[None])) == begins_flat else 1] = middle
        return float(ends.mean())
