"""How much of a net a probe has looked at, and why not at the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from initbench.trace.weight_use import UNUSED, TraceResult

NO_GRADIENT = (
    "no gradient reaches them: the pass runs under torch.no_grad or torch.inference_mode, or its output is"
    " detached"
)


@dataclass(frozen=True)
class Coverage:
    """Weights that were looked at, of all that the net multiplies by.

    Embeddings, which sum nothing, and what no part of the pass uses do not count.
    """

    weights: int
    measured: int
    """Of which the output was measured."""
    with_gradient: int
    """Of which the gradient was measured, too."""
    without_gradient: int
    """Which none reaches; the rest of those seen get one by a way that cannot be looked into."""
    unseen: tuple[tuple[str, tuple[str, ...]], ...]
    """Why weights were not seen, and which."""

    @property
    def is_complete(self) -> bool:
        """Whether every weight was seen, forward and backward."""
        return self.measured == self.weights == self.with_gradient > 0

    @property
    def is_slight(self) -> bool:
        """Whether fewer than half of the weights were seen."""
        return 2 * self.measured < self.weights or self.measured == 0

    @property
    def gaps(self) -> str:
        """What was not looked at, and why; empty where all was."""
        parts = [f"{_join_names(names)} {_was(names)} not ({why})" for why, names in self.unseen]
        if self.with_gradient < self.measured:
            share = f"{self.with_gradient} of {self.measured}" if self.with_gradient else "none"
            hidden = self.measured - self.with_gradient - self.without_gradient
            reasons = [f"no gradient reaches {self.without_gradient}"] if self.without_gradient else []
            reasons += [f"that of {hidden} goes where it cannot be looked at"] if hidden else []
            if self.without_gradient == self.measured:
                reasons = [NO_GRADIENT]
            parts.append(f"the way back was seen of {share} ({', '.join(reasons)})")
        return "; ".join(parts)

    @property
    def verdict(self) -> str:
        """What to say where nothing is wrong in what was seen; empty where all was."""
        if self.is_complete:
            return ""
        if self.measured == 0:
            return f"nothing was looked at: {self.gaps or 'no weight layer was seen'}"
        where = (
            "on the way forward" if self.measured == self.weights else f"in the {self.share} that were seen"
        )
        return f"nothing found {where}; {self.gaps}"

    @property
    def share(self) -> str:
        """How many of how many."""
        return f"{self.measured} of {self.weights} weights"

    def as_data(self) -> dict[str, Any]:
        """The coverage as printed with --json."""
        return {
            "weights": self.weights,
            "seen": self.measured,
            "with_gradient": self.with_gradient,
            "complete": self.is_complete,
            "reasons": [{"why": why, "parameters": list(names)} for why, names in self.unseen],
        }


def coverage_of(trace: TraceResult, records: Sequence[dict[str, Any]]) -> Coverage:
    """Of one pass, from what the tracer saw and the records of its uses."""
    by_reason: dict[str, list[str]] = {}
    for name, why in trace.unseen.items():
        if name not in trace.looked_up and why != UNUSED:
            by_reason.setdefault(why, []).append(name)
    reached = {
        part
        for use, record in zip(trace.uses, records, strict=True)
        if record["grad"]["pre_q"] is not None
        for part in use.parts
    }
    measured = len(trace.seen_parameters)
    return Coverage(
        weights=measured + sum(map(len, by_reason.values())),
        measured=measured,
        with_gradient=len(reached),
        without_gradient=len(set(trace.seen_parameters) - reached - trace.reached),
        unseen=tuple((why, tuple(names)) for why, names in by_reason.items()),
    )


def _join_names(names: Sequence[str]) -> str:
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(names[:2]) + more


def _was(names: Sequence[str]) -> str:
    return "was" if len(names) == 1 else "were"
