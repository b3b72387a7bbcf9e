"""What the tensors of a pass stand for, by their identity.

Every tensor that is written down is kept alive, so that no identity is used twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from initbench.trace.weight_use import WeightUse

_MAX_STEPS = 10_000
"""Nodes of the graph that are looked at on the way back from a tensor of unknown origin."""


@dataclass(frozen=True)
class TensorOrigin:
    """What a tensor that comes from the net's input stands for."""

    use: WeightUse | None = None
    """The use whose output it is, or whose activation; None for the input, and where several meet."""
    activated: bool = False
    straight: bool = True
    """Whether nothing but its shape has changed since then."""
    scale: float = 1.0
    """Constant that the use's output, or its activation, was multiplied by since then."""
    activation_input: Tensor | None = None
    """The use's output that went into its activation, without a factor in between."""
    frontier: frozenset[WeightUse] = frozenset()
    """The uses whose outputs reach it without another weight between."""
    functions: tuple[str, ...] = ()
    """Functions on the way from the frontier that are no known activation and not linear."""
    is_mixed: bool = False
    """Whether tensors that come from the input were multiplied on the way, as in attention."""
    has_varied: bool = False
    """Whether anything that a weight was given on the way differed from sample to sample."""

    @property
    def only_use(self) -> WeightUse | None:
        """The one use that it is a function of, sample by sample; None where several meet."""
        return next(iter(self.frontier)) if len(self.frontier) == 1 and not self.is_mixed else None


INPUT = TensorOrigin()


def merge_origins(
    origins: Iterable[TensorOrigin], function: str | None = None, *, mixes: bool = False
) -> TensorOrigin:
    """What comes of several, in a function that is no weight: `function` where it is not linear."""
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
    """A product of x and a weight entry by entry, with a letter for each axis of the result."""

    x: Tensor
    weight: Tensor
    x_axes: str
    weight_axes: str
    output: str


class Provenance:
    """Tensors that come from the input, those that are made of parameters alone, and constants."""

    def __init__(self, names: dict[int, str]) -> None:
        self._origins: dict[int, TensorOrigin] = {}
        self._parts: dict[int, tuple[str, ...]] = {key: (name,) for key, name in names.items()}
        self._constants: set[int] = set()
        self._nodes: dict[tuple[Any, int], TensorOrigin] = {}
        self._pending: dict[int, Pending] = {}
        self._tensors: list[Tensor] = []

    def origin(self, x: object) -> TensorOrigin | None:
        """What x stands for; None for what does not come from the input."""
        return self._origins.get(id(x))

    def record(self, x: Tensor, origin: TensorOrigin) -> None:
        """Write down what x stands for."""
        self._tensors.append(x)
        self._origins[id(x)] = origin
        self._pending.pop(id(x), None)
        if x.grad_fn is not None:
            self._nodes[x.grad_fn, x.output_nr] = origin

    def parameters_of(self, x: object) -> tuple[str, ...]:
        """The parameters that x is made of, and nothing else."""
        return self._parts.get(id(x), ())

    def await_sum(self, x: Tensor, pending: Pending) -> None:
        """Write down of which product entry by entry x is the result."""
        self._pending[id(x)] = pending

    def pending(self, x: object) -> Pending | None:
        """The product entry by entry that x is the result of."""
        return self._pending.get(id(x))

    def record_constants(self, tensors: Iterable[Tensor]) -> None:
        """Tensors that neither the input nor a parameter has a part in."""
        for tensor in tensors:
            if id(tensor) not in self._parts:
                self._tensors.append(tensor)
                self._constants.add(id(tensor))
                self._origins.pop(id(tensor), None)

    def propagate(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """A function that was given nothing of the input: its outputs are made of what its inputs are."""
        parts = tuple(dict.fromkeys(part for x in inputs for part in self.parameters_of(x)))
        if not parts:
            self.record_constants(outputs)
            return
        for output in outputs:
            self._tensors.append(output)
            self._parts[id(output)] = parts

    def is_known(self, x: Tensor) -> bool:
        """Whether x was put out by a function that was seen, or was there before the pass."""
        return id(x) in self._origins or id(x) in self._parts or id(x) in self._constants

    def recover(self, x: Tensor, samples: int) -> None:
        """Find out by its graph what x stands for, which came out of something that was not seen.

        That is a scripted function, a `torch.func` transform, or an autograd function of the user's own.
        Where no graph leads to the input, a tensor of as many rows as the batch is taken to come from it.
        """
        origins, leaves = self._trace_back(x)
        if origins and x.grad_fn is not None:
            self.record(
                x, merge_origins(origins, x.grad_fn.name().removesuffix("Backward0").removesuffix("Backward"))
            )
        elif x.is_floating_point() and x.ndim > 1 and x.shape[0] == samples:
            self.record(x, merge_origins([INPUT]))
        elif leaves:
            self._tensors.append(x)
            self._parts[id(x)] = tuple(dict.fromkeys(leaves))

    def _trace_back(self, x: Tensor) -> tuple[list[TensorOrigin], list[str]]:
        """Going back from x: what is met first that is known, and parameters that are met without that."""
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
