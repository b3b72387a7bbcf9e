"""What the tensors of a pass stand for, by their identity.

Every tensor that is written down is kept alive, so that no identity is used twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from initbench.trace.use import Use


@dataclass(frozen=True)
class Origin:
    """What a tensor that comes from the net's input stands for."""

    use: Use | None = None
    """The use whose output it is, or whose activation; None for the input, and where several meet."""
    activated: bool = False
    straight: bool = True
    """Whether nothing but its shape has changed since then."""
    before: Tensor | None = None
    """What the activation was given that made it."""


INPUT = Origin()
MIXED = Origin(straight=False)


class Ledger:
    """Tensors that come from the input, and those that are made of parameters alone."""

    def __init__(self, names: dict[int, str]) -> None:
        self._origins: dict[int, Origin] = {}
        self._parts: dict[int, tuple[str, ...]] = {key: (name,) for key, name in names.items()}
        self._kept: list[Tensor] = []

    def origin(self, x: object) -> Origin | None:
        """What x stands for; None for what does not come from the input."""
        return self._origins.get(id(x))

    def put(self, x: Tensor, origin: Origin) -> None:
        """Write down what x stands for."""
        self._kept.append(x)
        self._origins[id(x)] = origin

    def parts(self, x: object) -> tuple[str, ...]:
        """The parameters that x is made of, and nothing else."""
        return self._parts.get(id(x), ())

    def combine(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """A function that was given nothing of the input: its outputs are made of what its inputs are."""
        parts = tuple(dict.fromkeys(part for x in inputs for part in self.parts(x)))
        if not parts:
            return
        for output in outputs:
            self._kept.append(output)
            self._parts[id(output)] = parts
