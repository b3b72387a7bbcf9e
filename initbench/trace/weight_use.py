"""What a tracer finds in a pass: uses of weights, sums of residual branches, and what it could not see."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from initbench.trace.torch_ops import NamedActivation

if TYPE_CHECKING:
    from initbench.trace.contraction import Contraction
    from initbench.trace.recurrent import Step

UNUSED = "no function of this pass was given it"
"""Why a parameter is in no use of which nothing else is known."""


@dataclass(eq=False)
class WeightUse:
    """One multiplication by a weight, and what comes of it."""

    index: int
    """From 1, in the order of the pass."""
    name: str
    """Qualified name of the layer, or of the weight where it is not called `weight`."""
    operation: str
    """torch's function."""
    factor: Tensor
    """The weight as the pass multiplies by it, a node of the graph."""
    bias: Tensor | None
    fan_in: float
    fan_out: float
    units: int
    """Outputs that differ in their weights."""
    axis: int
    """Of the output, on which the units lie."""
    output_shape: tuple[int, ...]
    parts: tuple[str, ...]
    """Parameters that the weight is made of."""
    groups: int = 1
    transposed: bool = False
    """Whether `weight` is (in, out/groups, …)."""
    contraction: Contraction | None = None
    """How its axes and those of the output go together, where the function does not say it."""
    source: WeightUse | None = None
    """The use whose activation goes in and nothing else, or whose output does if it has no activation."""
    below: tuple[WeightUse, ...] = ()
    """The uses whose outputs reach its input without another weight between, in the order of the pass."""
    from_input: bool = False
    """Whether the net's input goes in as it is."""
    use_count: int = 1
    """1 for the first use of this weight, 2 for the second …"""
    norm: str | None = None
    """Kind of the norm layer right behind it."""
    activation: NamedActivation | None = None
    """The first activation that its output goes into."""
    looked_up: bool = False
    """Whether its weight is the table of an embedding as well."""
    joins_residual: bool = False
    """Whether its output is added to another before the activation."""
    feeds: bool = False
    """Whether another weight is given something that comes of its output; a head feeds none."""
    leads_on: bool = False
    """Whether another weight is given a function of its output and nothing else that comes from the input."""
    from_state: WeightUse | None = None
    """Of the input weight of a recurrent layer, the use of the weight of its state."""
    other_direction: WeightUse | None = None
    """Of a recurrent layer that goes both ways, the use of the same kind the other way."""
    was_constant: bool = False
    """Whether its input is the same for every sample, and so is all that it was made of."""

    @property
    def is_recurrent(self) -> bool:
        """Whether it is a weight of an LSTM, a GRU or an RNN, used again at every step."""
        return self.operation.removesuffix("_cell") in ("lstm", "gru", "rnn_tanh", "rnn_relu")

    @property
    def is_on_the_way(self) -> bool:
        """Whether all that comes of the net's input goes through it, on to another weight."""
        if self.from_state is not None:
            other = self.other_direction
            return self.from_state.leads_on and (other is None or self.index < other.index)
        return not self.is_recurrent and self.leads_on and not self.joins_residual

    @property
    def chain_length(self) -> int:
        """Uses in a row that end in this one, with nothing but activations between them."""
        return 1 if self.source is None else 1 + self.source.chain_length

    @property
    def weight(self) -> Tensor:
        """The weight as (out, in/groups, …)."""
        return self.factor if self.contraction is None else self.contraction.weight_rows(self.factor)

    def units_on_axis_1(self, x: Tensor) -> Tensor:
        """x as (B, units, …), as far as an axis of so many units can be told."""
        if self.contraction is not None and self.output_shape == x.shape:
            return self.contraction.units_second(x)
        axes = [axis for axis in (self.axis, -1, 1) if x.ndim > 1 and x.shape[axis] == self.units]
        return x.movedim(axes[0], 1) if axes else x

    @property
    def rows(self) -> Tensor:
        """The weights of each unit, (units, fan_in)."""
        if self.contraction is not None:
            return self.contraction.weight_rows(self.factor)
        return self._by_units(self.factor)

    def gradient_rows(self, gradient: Tensor) -> Tensor:
        """A gradient of the factor's shape by units, (units, fan_in)."""
        if self.contraction is not None:
            return self.contraction.gradient_rows(gradient)
        return self._by_units(gradient)

    def _by_units(self, tensor: Tensor) -> Tensor:
        if not self.transposed:
            return tensor.flatten(1)
        inputs, outputs = tensor.shape[:2]
        grouped = tensor.reshape(self.groups, inputs // self.groups, outputs, -1)
        return grouped.transpose(1, 2).reshape(self.units, -1)


@dataclass(frozen=True)
class RecurrentLayer:
    """The uses of the two weights of a recurrent layer in one direction."""

    from_input: WeightUse
    from_state: WeightUse


@dataclass(frozen=True)
class ResidualAddition:
    """A branch that is added to what goes past it."""

    use: WeightUse
    """The last weight of the branch."""
    branch: float
    """E[x²] of what the branch adds."""
    skip: float
    """E[x²] of what it is added to."""
    total: float
    """E[x²] of the sum."""
    first: int = 0
    """Index of the first use of the branch, `use.index` being its last; 0 where that is not known."""

    def holds(self, use: WeightUse) -> bool:
        """Whether the use is part of the branch."""
        return 0 < self.first <= use.index <= self.use.index


class TraceObserver(Protocol):
    """Who is told of the tensors while a pass runs; what is told again replaces what was told before."""

    def layer_input(self, use: WeightUse, x: Tensor) -> None:
        """What its weight is going to multiply."""

    def residual_sum(self, addition: ResidualAddition, output: Tensor) -> None:
        """A branch has been added to what goes past it."""

    def without_norm(self, use: WeightUse) -> None:
        """What was told of its norm was wrong: its output before that is its pre-activation."""

    def pre_activation(self, use: WeightUse, output: Tensor) -> None:
        """Output of the weight, then of the bias that is added to it, or of the norm layer behind it."""

    def step(self, layer: RecurrentLayer, step: Step) -> None:
        """One step of a recurrent layer, in the order of the pass."""

    def activation(self, use: WeightUse, activation_input: Tensor | None, activation_output: Tensor) -> None:
        """What its activation was given, None where that is gone, and what it gave."""


@dataclass
class TraceResult:
    """All that a pass has shown."""

    uses: list[WeightUse] = field(default_factory=list)
    additions: list[ResidualAddition] = field(default_factory=list)
    unseen: dict[str, str] = field(default_factory=dict)
    """By parameter, why it is in no use."""
    seen_parameters: list[str] = field(default_factory=list)
    """Parameters that weights in use are made of."""
    looked_up: list[str] = field(default_factory=list)
    """Parameters that are tables of embeddings."""
    reached: set[str] = field(default_factory=set)
    """Parameters that get a gradient."""
    heads: list[WeightUse] = field(default_factory=list)
    """Uses whose outputs reach one of the net's without another weight between, the main one's first."""
