"""Record where each tensor of a pass comes from, by its `id`.

Every recorded tensor is kept alive, so that no `id` is reused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from initbench.trace.torch_ops import NamedActivation
from initbench.trace.weight_use import RecurrentLayer, WeightUse, in_order

_MAX_STEPS = 10_000
"""Maximum number of graph nodes to visit when searching for the origin of a tensor."""


@dataclass(frozen=True)
class TensorOrigin:
    """Origin of a tensor that depends on the net's input."""

    use: WeightUse | None = None
    """Weight use whose output or activation the tensor is; None for the input and for a mix of several."""
    activated: bool = False
    straight: bool = True
    """Whether only its shape has changed since then."""
    scale: float = 1.0
    """Constant factor that the output or activation was multiplied by since then."""
    shift: float = 0.0
    """Constant that was added to the activation after the factor."""
    activation: NamedActivation | None = None
    """The activation, without the factor and the constant; None before one."""
    activation_input: Tensor | None = None
    """Output of the use that went into its activation, without any constant factor."""
    frontier: frozenset[WeightUse] = frozenset()
    """Weight uses whose outputs reach the tensor without another weight in between."""
    functions: tuple[str, ...] = ()
    """Names of nonlinear functions on the way from the frontier that are not known activations."""
    is_mixed: bool = False
    """Whether input-dependent tensors were multiplied with each other on the way, as in attention."""
    has_varied: bool = False
    """Whether the input of any weight on the way differed between samples."""

    @property
    def only_use(self) -> WeightUse | None:
        """Only weight use that the tensor depends on, sample by sample; None if there are several."""
        return next(iter(self.frontier)) if len(self.frontier) == 1 and not self.is_mixed else None

    @property
    def both_directions(self) -> WeightUse | None:
        """The first of two uses if they are the two directions of one recurrent layer, else None."""
        first, *others = in_order(self.frontier) or (None,)
        is_whole = first is not None and others == [first.other_direction] and not self.is_mixed
        return first if is_whole else None

    def scaled(self, factor: float) -> TensorOrigin:
        """Return the origin of the tensor times a constant."""
        return replace(self, scale=factor * self.scale, shift=factor * self.shift)


INPUT = TensorOrigin()


def merge_origins(
    origins: Iterable[TensorOrigin], function: str | None = None, *, mixes: bool = False
) -> TensorOrigin:
    """Return the origin of a tensor that is computed from several others without a weight.

    Args:
        origins: The origins of the arguments.
        function: The name of the function if it is not linear.
        mixes: Whether the function multiplies its arguments with each other.
    """
    several = list(origins)
    functions = dict.fromkeys(name for origin in several for name in origin.functions)
    if function is not None:
        functions[function] = None
    return TensorOrigin(
        straight=False,
        frontier=frozenset().union(*(origin.frontier for origin in several)),
        functions=tuple(functions),
        is_mixed=mixes or any(origin.is_mixed for origin in several),
        has_varied=any(origin.has_varied for origin in several),
    )


@dataclass(frozen=True)
class Pending:
    """An elementwise product of x and a weight, with a letter for each axis of the result."""

    x: Tensor
    weight: Tensor
    x_axes: str
    weight_axes: str
    output: str


class Provenance:
    """Origins of tensors: those that depend on the input, those computed from parameters, and constants."""

    def __init__(self, names: dict[int, str]) -> None:
        self._origins: dict[int, TensorOrigin] = {}
        self._parts: dict[int, tuple[str, ...]] = {key: (name,) for key, name in names.items()}
        self._constants: set[int] = set()
        self._nodes: dict[tuple[Any, int], TensorOrigin] = {}
        self._pending: dict[int, Pending] = {}
        self._tensors: list[Tensor] = []

    def origin(self, x: object) -> TensorOrigin | None:
        """Return the origin of x, or None if x does not depend on the input."""
        return self._origins.get(id(x))

    def record(self, x: Tensor, origin: TensorOrigin) -> None:
        """Record the origin of x."""
        self._tensors.append(x)
        self._origins[id(x)] = origin
        self._pending.pop(id(x), None)
        if x.grad_fn is not None:
            self._nodes[x.grad_fn, x.output_nr] = origin

    def parameters_of(self, x: object) -> tuple[str, ...]:
        """Return the names of the parameters that x is computed from; empty if not from parameters alone."""
        return self._parts.get(id(x), ())

    def await_sum(self, x: Tensor, pending: Pending) -> None:
        """Record the elementwise product that x is the result of."""
        self._pending[id(x)] = pending

    def pending(self, x: object) -> Pending | None:
        """Return the elementwise product that x is the result of, or None."""
        return self._pending.get(id(x))

    def record_constants(self, tensors: Iterable[Tensor]) -> None:
        """Record tensors that depend on neither the input nor a parameter."""
        for tensor in tensors:
            if id(tensor) not in self._parts:
                self._tensors.append(tensor)
                self._constants.add(id(tensor))
                self._origins.pop(id(tensor), None)

    def propagate(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Record the outputs of a function whose arguments do not depend on the input."""
        parts = tuple(dict.fromkeys(part for x in inputs for part in self.parameters_of(x)))
        if not parts:
            self.record_constants(outputs)
            return
        for output in outputs:
            self._tensors.append(output)
            self._parts[id(output)] = parts

    def is_known(self, x: Tensor) -> bool:
        """Whether x is the result of a traced function, or existed before the pass."""
        return id(x) in self._origins or id(x) in self._parts or id(x) in self._constants

    def recover(self, x: Tensor, samples: int) -> None:
        """Find the origin of x in the autograd graph, for a result of a function that was not traced.

        Such functions are scripted functions, `torch.func` transforms and custom autograd functions. If no
        path of the graph leads to the input, a tensor with as many rows as the batch is assumed to come
        from it.
        """
        origins, leaves = self._trace_back(x)
        if origins and x.grad_fn is not None:
            self.record(x, merge_origins(origins, _function_name(x.grad_fn.name())))
        elif x.is_floating_point() and x.ndim > 1 and x.shape[0] == samples:
            self.record(x, merge_origins([INPUT]))
        elif leaves:
            self._tensors.append(x)
            self._parts[id(x)] = tuple(dict.fromkeys(leaves))

    def _trace_back(self, x: Tensor) -> tuple[list[TensorOrigin], list[str]]:
        """Return the first known origins on the graph's paths back from x, and parameters on other paths."""
        waiting: list[tuple[Any, int]] = [(x.grad_fn, x.output_nr)]
        visited: set[tuple[Any, int]] = set()
        origins: list[TensorOrigin] = []
        leaves: list[str] = []
        while waiting and len(visited) < _MAX_STEPS:
            node = waiting.pop()
            if node[0] is None or node in visited:
                continue
            visited.add(node)
            if node in self._nodes:
                origins.append(self._nodes[node])
                continue
            leaves += self._parts.get(id(getattr(node[0], "variable", None)), ())
            waiting += node[0].next_functions
        return origins, leaves


def _function_name(node: str) -> str:
    """Return the name of the function that a node of the autograd graph differentiates."""
    is_scripted = "::jit::" in node  # the whole scripted function is one node
    return "TorchScript" if is_scripted else node.removesuffix("Backward0").removesuffix("Backward")


def state_origin(layers: Iterable[RecurrentLayer]) -> TensorOrigin:
    """Return the origin of the output of recurrent layers, one for each direction."""
    uses = [layer.from_state for layer in layers]
    return TensorOrigin(
        use=uses[0] if len(uses) == 1 else None,
        activated=len(uses) == 1,
        straight=len(uses) == 1,
        frontier=frozenset(uses),
        has_varied=True,
    )
