"""Residual branches, and the edits that init schemes for residual nets make to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


class Scale(nn.Module):
    """y = s·x with one learned s of shape (1,)."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1,), value))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the scale."""
        return self.scale * x


class Shift(nn.Module):
    """y = x + b with one learned b of shape (1,), 0 at first."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the shift."""
        return x + self.shift


@dataclass(frozen=True)
class Slot:
    """A place in a net where nothing happens yet: the nn.Identity called `name` in `owner`."""

    owner: nn.Module
    name: str

    def fill(self, module: nn.Module) -> None:
        """Put `module` there. Its parameters are then called after the slot."""
        setattr(self.owner, self.name, module)


@dataclass(frozen=True)
class Branch:
    """F in y = φ(x + F(x)). The edits change the net itself, before its weights are drawn."""

    weights: Sequence[nn.Module]
    """The branch's weight modules in the order of the signal."""
    last_norm: nn.Module | None
    """The norm layer that closes the branch, if one does."""
    scale_slot: Slot
    """Behind all of it."""
    shift_slots: Sequence[Slot]
    """Before each weight module, and before each activation, that after the addition included."""

    def insert_scale(self, value: float) -> None:
        """Multiply what the branch adds by a learned scalar that starts at `value`."""
        self.scale_slot.fill(Scale(value))

    def insert_shifts(self) -> None:
        """Add a learned scalar, 0 at first, wherever Fixup has one (Zhang et al. 2019)."""
        for slot in self.shift_slots:
            slot.fill(Shift())
