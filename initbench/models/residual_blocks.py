"""Residual branches, and the edits that init schemes for residual nets make to them."""

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


class PadShortcut(nn.Module):
    """Every stride-th pixel, and channels of zeros for those that are missing: no weights.

    (B, C, H, W) → (B, C + extra, ⌈H/stride⌉, ⌈W/stride⌉). Option A of He et al. 2016.
    """

    def __init__(self, extra: int, stride: int) -> None:
        super().__init__()
        self._extra, self._stride = extra, stride

    def forward(self, x: Tensor) -> Tensor:
        """Apply the shortcut."""
        return pad(x[:, :, :: self._stride, :: self._stride], (0, 0, 0, 0, 0, self._extra))


class Projection(nn.Module):
    """A convolution `op` of 1 × 1 to `width` channels, then norm. Option B of He et al. 2016."""

    def __init__(self, options: FamilyOptions, op: nn.Module, width: int) -> None:
        super().__init__()
        self.op = op
        self.norm = (norm_layer(options, width) if norm_first(options) else None) or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the shortcut."""
        return self.norm(self.op(x))  # type: ignore[no-any-return]


class ResidualBlock(nn.Module):
    """y = φ(shortcut(x) + branch(x)), with the shortcut computed first (He et al. 2016).

    ops: the branch's weight modules, widths: their units. With the norm layers after the activations, the
    last of them stands behind the addition's activation.
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
        """Where its weights stand, in the order they are computed."""
        layers = self._layers
        inner = [layer.site(layer.activation) for layer in layers[:-1]]
        sites = [*inner, layers[-1].site(self.activation)]
        if isinstance(self.shortcut, Projection):
            sites.insert(0, LayerSite(self.shortcut.op, self.shortcut.norm, None))
        return sites

    @property
    def branch(self) -> Branch:
        """Its branch, for schemes that edit it."""
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
    """For a validator: a shortcut adds what the layers put out to what they took in, channel by channel."""
    if channels_before_activation(options, 1) == channels_after_activation(options, 1) == 1:
        return
    problem = (
        f"model.family={options.family} adds a block's input to its output, and"
        f" {options.activation.name} puts out another number of channels than it takes in"
    )
    raise PydanticCustomError("key_fault", "{problem}", {"problem": problem, "at": "activation"})
