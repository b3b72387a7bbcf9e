"""Coverage of a probe: how many weights of a net were measured, and why others were not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from initbench.trace.weight_use import UNUSED, TraceResult

NO_GRADIENT = (
    "no gradient reaches them: the pass runs under torch.no_grad or torch.inference_mode, or its output is"
    " detached"
)

ONE_BY_ONE = "the pass multiplies by them one sample at a time; multiply all samples in one call"


@dataclass(frozen=True)
class Coverage:
    """Numbers of measured weights among all weights that the net multiplies by.

    Embedding tables, which are not multiplied by, and unused parameters are not counted.
    """

    weights: int
    measured: int
    """Number of weights whose output was measured."""
    with_gradient: int
    """Number of weights whose output and gradient were measured."""
    without_gradient: int
    """Number of measured weights without a gradient; other gradients bypass the traced operations."""
    unseen: tuple[tuple[str, tuple[str, ...]], ...]
    """Reasons why weights were not measured, with the names of the weights."""

    @property
    def is_complete(self) -> bool:
        """Whether every weight was measured in the forward and in the backward pass."""
        return self.measured == self.weights == self.with_gradient > 0

    @property
    def is_slight(self) -> bool:
        """Whether fewer than half of the weights were measured."""
        return 2 * self.measured < self.weights or self.measured == 0

    @property
    def gaps(self) -> str:
        """Weights that were not measured, with reasons, as text; empty if all were."""
        parts = [f"{_join_names(names)} {_was(names)} not ({why})" for why, names in self.unseen]
        if self.with_gradient < self.measured:
            share = f"{self.with_gradient} of {self.measured}" if self.with_gradient else "none"
            hidden = self.measured - self.with_gradient - self.without_gradient
            reasons = [f"no gradient reaches {self.without_gradient}"] if self.without_gradient else []
            reasons += [f"the gradient of {hidden} cannot be traced"] if hidden else []
            if self.without_gradient == self.measured:
                reasons = [NO_GRADIENT]
            parts.append(f"the backward pass was measured for {share} ({', '.join(reasons)})")
        return "; ".join(parts)

    @property
    def verdict(self) -> str:
        """Verdict on a net without findings; empty if all weights were measured."""
        if self.is_complete:
            return ""
        if self.measured == 0:
            return f"nothing was measured: {self.gaps or 'no weight layer was traced'}"
        where = (
            "on the way forward" if self.measured == self.weights else f"in the {self.share} that were seen"
        )
        return f"nothing found {where}; {self.gaps}"

    @property
    def share(self) -> str:
        """Measured weights out of all weights, as text."""
        return f"{self.measured} of {self.weights} weights"

    def as_data(self) -> dict[str, Any]:
        """Return the coverage as printed with --json."""
        return {
            "weights": self.weights,
            "seen": self.measured,
            "with_gradient": self.with_gradient,
            "complete": self.is_complete,
            "reasons": [{"why": why, "parameters": list(names)} for why, names in self.unseen],
        }


def coverage_of(trace: TraceResult, records: Sequence[dict[str, Any]]) -> Coverage:
    """Return the coverage of one pass, from the result of the tracer and the records of its uses."""
    by_reason: dict[str, list[str]] = {}
    for name, why in trace.unseen.items():
        if name not in trace.looked_up and why != UNUSED:
            by_reason.setdefault(why, []).append(name)
    single = _applied_one_by_one(trace, records)
    if single:
        by_reason[ONE_BY_ONE] = sorted(single)
    reached = {
        part
        for use, record in zip(trace.uses, records, strict=True)
        if record["grad"]["pre_q"] is not None
        for part in use.parts
    }
    measured_names = set(trace.seen_parameters) - single
    reached -= single
    measured = len(measured_names)
    return Coverage(
        weights=measured + sum(map(len, by_reason.values())),
        measured=measured,
        with_gradient=len(reached),
        without_gradient=len(measured_names - reached - trace.reached),
        unseen=tuple((why, tuple(names)) for why, names in by_reason.items()),
    )


def _applied_one_by_one(trace: TraceResult, records: Sequence[dict[str, Any]]) -> set[str]:
    """Return the parameters that a loop multiplies by one sample at a time.

    Each product is a use of its own, so that the statistics of two layers cannot be compared.
    """
    vectors: dict[str, list[bool]] = {}
    for use, record in zip(trace.uses, records, strict=True):
        of_one_sample = math.prod(use.output_shape) == use.units and record.get("positions", 1.0) < 1.0
        for part in use.parts:
            vectors.setdefault(part, []).append(of_one_sample)
    return {part for part, uses in vectors.items() if len(uses) > 1 and all(uses)}


def _join_names(names: Sequence[str]) -> str:
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(names[:2]) + more


def _was(names: Sequence[str]) -> str:
    return "was" if len(names) == 1 else "were"
