"""Residual blocks and branches, and the edits that init schemes for residual nets make to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic_core import PydanticCustomError
from torch import Tensor, nn
from torch.nn.functional import pad

from initbench.models.hidden_layer import (
    HiddenLayer,
    activation_layer,
    channels_after_activation,
    channels_before_activation,
    norm_first,
    norm_layer,
)
from initbench.models.network import FamilyOptions, LayerSite


class Scale(nn.Module):
    """Scale y = s·x with one learned s of shape (1,)."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1,), value))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the scale."""
        return self.scale * x


class Shift(nn.Module):
    """Shift y = x + b with one learned b of shape (1,), initially 0."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the shift."""
        return x + self.shift


@dataclass(frozen=True)
class Slot:
    """A position in a net where a module can be inserted: the nn.Identity called `name` in `owner`."""

    owner: nn.Module
    name: str

    def fill(self, module: nn.Module) -> None:
        """Insert `module`. The names of its parameters start with the name of the slot."""
        setattr(self.owner, self.name, module)


@dataclass(frozen=True)
class Branch:
    """The branch F in y = φ(x + F(x)). The edits change the net itself, before its weights are drawn."""

    weights: Sequence[nn.Module]
    """The branch's weight modules in the order of the forward pass."""
    last_norm: nn.Module | None
    """The norm layer at the end of the branch, if there is one."""
    scale_slot: Slot
    """Slot at the end of the branch."""
    shift_slots: Sequence[Slot]
    """Slots before each weight module and before each activation, including the one after the addition."""

    def insert_scale(self, value: float) -> None:
        """Multiply the output of the branch by a learned scalar with the initial value `value`."""
        self.scale_slot.fill(Scale(value))

    def insert_shifts(self) -> None:
        """Add a learned scalar, initially 0, at the positions that Fixup defines (Zhang et al. 2019)."""
        for slot in self.shift_slots:
            slot.fill(Shift())


class PadShortcut(nn.Module):
    """Shortcut without weights: every stride-th pixel, with channels of zeros appended.

    (B, C, H, W) → (B, C + extra, ⌈H/stride⌉, ⌈W/stride⌉). Option A of He et al. 2016.
    """

    def __init__(self, extra: int, stride: int) -> None:
        super().__init__()
        self._extra, self._stride = extra, stride

    def forward(self, x: Tensor) -> Tensor:
        """Apply the shortcut."""
        return pad(x[:, :, :: self._stride, :: self._stride], (0, 0, 0, 0, 0, self._extra))


class Projection(nn.Module):
    """Shortcut with a 1 × 1 convolution `op` to `width` channels, then norm. Option B of He et al. 2016."""

    def __init__(self, options: FamilyOptions, op: nn.Module, width: int) -> None:
        super().__init__()
        self.op = op
        self.norm = (norm_layer(options, width) if norm_first(options) else None) or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the shortcut."""
        return self.norm(self.op(x))  # type: ignore[no-any-return]


class ResidualBlock(nn.Module):
    """Residual block y = φ(shortcut(x) + branch(x)); the shortcut is computed first (He et al. 2016).

    `ops` are the branch's weight modules, and `widths` their units. If norm layers follow the activations,
    the last one follows the activation after the addition.
    """

    def __init__(
        self,
        options: FamilyOptions,
        ops: Sequence[nn.Module],
        widths: Sequence[int],
        shortcut: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.shortcut = shortcut or nn.Identity()
        last = len(ops) - 1
        self.layers = nn.ModuleList(
            HiddenLayer(options, op, width, closing=i == last)
            for i, (op, width) in enumerate(zip(ops, widths, strict=True))
        )
        self.scale: nn.Module = nn.Identity()
        self.before_activation: nn.Module = nn.Identity()
        self.activation = activation_layer(options, widths[-1])
        self._norm_first = norm_first(options)
        self.norm = (None if self._norm_first else norm_layer(options, widths[-1])) or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        skipped = self.shortcut(x)
        h = x
        for layer in self.layers:
            h = layer(h)
        return self.norm(self.activation(self.before_activation(skipped + self.scale(h))))  # type: ignore[no-any-return]

    @property
    def sites(self) -> list[LayerSite]:
        """Sites of the block's weights, in the order they are computed."""
        layers = self._layers
        inner = [layer.site(layer.activation) for layer in layers[:-1]]
        sites = [*inner, layers[-1].site(self.activation)]
        if isinstance(self.shortcut, Projection):
            sites.insert(0, LayerSite(self.shortcut.op, self.shortcut.norm, None))
        return sites

    @property
    def branch(self) -> Branch:
        """The block's branch, for schemes that edit it."""
        layers = self._layers
        closed = self._norm_first and not isinstance(layers[-1].norm, nn.Identity)
        shifts = [Slot(layer, name) for layer in layers for name in ("before_op", "before_activation")]
        shifts[-1] = Slot(self, "before_activation")
        return Branch(
            weights=[layer.op for layer in layers],
            last_norm=layers[-1].norm if closed else None,
            scale_slot=Slot(self, "scale"),
            shift_slots=shifts,
        )

    @property
    def _layers(self) -> list[HiddenLayer]:
        return [layer for layer in self.layers if isinstance(layer, HiddenLayer)]


def refuse_other_units(options: FamilyOptions) -> None:
    """Raise a validation error if the activation changes the number of channels."""
    if channels_before_activation(options, 1) == channels_after_activation(options, 1) == 1:
        return
    problem = (
        f"model.family={options.family} adds a block's input to its output, and"
        f" {options.activation.name} puts out another number of channels than it takes in"
    )
    raise PydanticCustomError("key_fault", "{problem}", {"problem": problem, "at": "activation"})
