"""Description of an elementwise activation for the theory: φ, φ′ and where they are not smooth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]

_FAR, _GRID, _NEAR = 20.0, 4001, 1e-9


@dataclass(frozen=True)
class Nonlinearity:
    """φ and φ′ on float64 tensors, and the arguments where they are not smooth."""

    phi: Function
    derivative: Function
    kinks: tuple[float, ...] = ()
    """Arguments at which φ′ or φ″ jumps."""
    flat_below: float | None = None
    """Value of |φ′| below which the activation counts as saturated; None if it does not saturate."""

    def is_flat(self, h: Tensor) -> Tensor:
        """Return a boolean tensor: whether |φ′(h)| is below `flat_below`, for each entry of h."""
        limit = -1.0 if self.flat_below is None else self.flat_below
        return self.derivative(h).abs() < limit

    @cached_property
    def breaks(self) -> tuple[float, ...]:
        """Arguments at which to split quadrature: kinks, and borders of the regions where φ is flat or 0."""
        borders = self._borders(lambda h: self.phi(h) == 0)
        if self.flat_below is not None:
            borders += self._borders(self.is_flat)
        return (*self.kinks, *(b for b in borders if all(abs(b - k) > _NEAR for k in (0.0, *self.kinks))))

    def _borders(self, holds: Function) -> list[float]:
        """Return the arguments at which the predicate `holds` changes between true and false."""
        grid = torch.linspace(-_FAR, _FAR, _GRID, dtype=torch.float64)
        on = holds(grid)
        changes = torch.nonzero(on[1:] != on[:-1]).flatten().tolist()
        return [_border(holds, float(grid[i]), float(grid[i + 1])) for i in changes]


def _border(holds: Function, low: float, high: float) -> float:
    """Return the point between `low` and `high` at which `holds` changes, found by bisection."""
    ends = torch.tensor([low, high], dtype=torch.float64)
    begins = bool(holds(ends[:1]))
    for _ in range(50):
        middle = ends.mean()
        ends[0 if bool(holds(middle[None])) == begins else 1] = middle
    return float(ends.mean())
