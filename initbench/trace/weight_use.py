"""Results of a tracer: uses of weights, sums of residual branches, and weights that it could not follow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from initbench.trace.torch_ops import NamedActivation

if TYPE_CHECKING:
    from initbench.trace.contraction import Contraction
    from initbench.trace.recurrent import Step

UNUSED = "no function of this pass was given it"
"""Reason for a parameter without a use if no other reason is known."""


@dataclass(eq=False)
class WeightUse:
    """One multiplication by a weight, with its position in the net."""

    index: int
    """Index from 1, in the order of the pass."""
    name: str
    """Qualified name of the layer, or of the weight if it is not called `weight`."""
    operation: str
    """Name of torch's function."""
    factor: Tensor
    """Weight tensor in the autograd graph of the pass."""
    bias: Tensor | None
    fan_in: float
    fan_out: float
    units: int
    """Number of outputs with weights of their own."""
    axis: int
    """Axis of the output that the units lie on."""
    output_shape: tuple[int, ...]
    parts: tuple[str, ...]
    """Names of the parameters that the weight is computed from."""
    groups: int = 1
    transposed: bool = False
    """Whether `weight` is (in, out/groups, …)."""
    contraction: Contraction | None = None
    """Roles of the axes, for functions that do not imply them."""
    source: WeightUse | None = None
    """Use whose activation (or output, if it has no activation) is the only input."""
    below: tuple[WeightUse, ...] = ()
    """Uses whose outputs reach the input without another weight in between, in the order of the pass."""
    from_input: bool = False
    """Whether the unchanged input of the net is its input."""
    use_count: int = 1
    """Number of the use of this weight: 1 for the first, 2 for the second, and so on."""
    norm: str | None = None
    """Kind of the norm layer directly after it."""
    activation: NamedActivation | None = None
    """First activation that is applied to its output."""
    looked_up: bool = False
    """Whether its weight is also the table of an embedding."""
    joins_residual: bool = False
    """Whether its output is added to another before the activation."""
    feeds: bool = False
    """Whether the input of another weight depends on its output; False for a head."""
    leads_on: bool = False
    """Whether it is the only source of another weight's input, apart from constants."""
    from_state: WeightUse | None = None
    """Use of the state weight, for the input weight of a recurrent layer."""
    other_direction: WeightUse | None = None
    """Corresponding use in the other direction, for a bidirectional recurrent layer."""
    was_constant: bool = False
    """Whether its input, and everything that the input is computed from, is the same for every sample."""

    @property
    def is_recurrent(self) -> bool:
        """Whether the weight belongs to an LSTM, a GRU or an RNN, which uses it at every step."""
        return self.operation.removesuffix("_cell") in ("lstm", "gru", "rnn_tanh", "rnn_relu")

    @property
    def is_on_the_way(self) -> bool:
        """Whether the whole signal passes through it on the way to another weight."""
        if self.from_state is not None:
            other = self.other_direction
            return self.from_state.leads_on and (other is None or self.index < other.index)
        return not self.is_recurrent and self.leads_on and not self.joins_residual

    @property
    def chain_length(self) -> int:
        """Number of consecutive uses that end in this one, with only activations between them."""
        return 1 if self.source is None else 1 + self.source.chain_length

    @property
    def weight(self) -> Tensor:
        """Weight as (out, in/groups, …)."""
        return self.factor if self.contraction is None else self.contraction.weight_rows(self.factor)

    def units_on_axis_1(self, x: Tensor) -> Tensor:
        """Return x as (B, units, …) if an axis with that many units can be identified, else x.

        A vector counts as one sample.
        """
        if self.contraction is not None and self.output_shape == x.shape:
            return self.contraction.units_second(x)
        if x.ndim == 1:
            return x[None]
        axes = [axis for axis in (self.axis, -1, 1) if x.ndim > 1 and x.shape[axis] == self.units]
        return x.movedim(axes[0], 1) if axes else x

    def transpose_output(self, x: Tensor) -> None:
        """Exchange the axes of the output if x is the transposed output matrix."""
        if self.contraction is not None and x.ndim == 2 and self.output_shape[::-1] == x.shape:
            self.contraction = replace(self.contraction, output=self.contraction.output[::-1])
            self.axis, self.output_shape = (-1 if self.axis == 0 else 0), tuple(x.shape)

    @property
    def rows(self) -> Tensor:
        """Weights of each unit, (units, fan_in)."""
        if self.contraction is not None:
            return self.contraction.weight_rows(self.factor)
        return self._by_units(self.factor)

    def gradient_rows(self, gradient: Tensor) -> Tensor:
        """Return a gradient of the factor's shape by unit, (units, fan_in)."""
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
    """Uses of the two weights of a recurrent layer in one direction."""

    from_input: WeightUse
    from_state: WeightUse


@dataclass(frozen=True)
class ResidualAddition:
    """A sum of a residual branch and its skip connection."""

    use: WeightUse
    """Last weight use of the branch."""
    branch: float
    """E[x²] of the output of the branch."""
    skip: float
    """E[x²] of the skip connection."""
    total: float
    """E[x²] of the sum."""
    first: int = 0
    """Index of the first use of the branch, which ends with `use.index`; 0 if unknown."""

    def holds(self, use: WeightUse) -> bool:
        """Whether the use is part of the branch."""
        return 0 < self.first <= use.index <= self.use.index


class TraceObserver(Protocol):
    """Receiver of the tensors of a running pass. A later call for the same use replaces an earlier one."""

    def layer_input(self, use: WeightUse, x: Tensor) -> None:
        """Receive the input of a weight."""

    def residual_sum(self, addition: ResidualAddition, output: Tensor) -> None:
        """Receive the sum of a residual branch and its skip connection."""

    def without_norm(self, use: WeightUse) -> None:
        """Withdraw the norm of a use: the pre-activation is its output before the norm."""

    def pre_activation(self, use: WeightUse, output: Tensor) -> None:
        """Receive the output of the weight, and again after an added bias or after a norm layer."""

    def step(self, layer: RecurrentLayer, step: Step) -> None:
        """Receive one step of a recurrent layer, in the order of the pass."""

    def activation(self, use: WeightUse, activation_input: Tensor | None, activation_output: Tensor) -> None:
        """Receive the input of an activation, or None if it was overwritten, and its output."""


@dataclass
class TraceResult:
    """Everything that was traced in a pass."""

    uses: list[WeightUse] = field(default_factory=list)
    additions: list[ResidualAddition] = field(default_factory=list)
    unseen: dict[str, str] = field(default_factory=dict)
    """Reasons why parameters have no traced use, by parameter."""
    seen_parameters: list[str] = field(default_factory=list)
    """Names of the parameters that used weights are computed from."""
    looked_up: list[str] = field(default_factory=list)
    """Names of the parameters that are tables of embeddings."""
    reached: set[str] = field(default_factory=set)
    """Names of the parameters that get a gradient."""
    heads: list[WeightUse] = field(default_factory=list)
    """Uses whose outputs reach an output of the net without another weight in between, main output first."""


def pair_directions(forward: RecurrentLayer, backward: RecurrentLayer) -> None:
    """Link two recurrent layers as the two directions of one layer."""
    for use, reverse in (
        (forward.from_input, backward.from_input),
        (forward.from_state, backward.from_state),
    ):
        use.other_direction, reverse.other_direction = reverse, use


def in_order(uses: Iterable[WeightUse]) -> tuple[WeightUse, ...]:
    """Return the uses in the order of the pass."""
    return tuple(sorted(uses, key=lambda use: use.index))


def common_label(uses: Iterable[WeightUse]) -> str | None:
    """Return the label of the most frequent activation; None without activations."""
    labels = Counter(use.activation.label for use in uses if use.activation is not None)
    return labels.most_common(1)[0][0] if labels else None


def path_length(use: WeightUse | None) -> tuple[int, int]:
    """Return a sort key for uses: the length of the chain of weights, then the position in the pass."""
    return (0, 0) if use is None else (use.chain_length, use.index)


def mean_squares(branch: Tensor, skip: Tensor, total: Tensor) -> tuple[float, float, float]:
    """Return E[x²] of branch, skip and sum; the sum may have overwritten the branch or the skip."""
    parts = [
        total.detach() - skip_size.detach() if part is total else part.detach()
        for part, skip_size in ((branch, skip), (skip, branch))
    ]
    branch_size, skip_size, total_size = (
        float(part.double().square().mean()) for part in (*parts, total.detach())
    )
    return branch_size, skip_size, total_size
