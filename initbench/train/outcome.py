"""Events of a training, and its outcome."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from initbench.train.checkpoint import Checkpoint
from initbench.train.timings import Timings


class TrainingListener(Protocol):
    """Receives what happens to each run; `run` is its position at the start of the training."""

    def evaluated(self, run: int, entry: dict[str, Any]) -> None:
        """An evaluation: {"step", "epoch", "train_loss", "val_loss", "val_accuracy"}.

        At both ends, nets with batch norm have what `train.norms.evaluate_norms` adds.
        """

    def probed(self, run: int, snapshot: dict[str, Any]) -> None:
        """A probe: {"when", "step", "layers"}."""

    def shifted(self, run: int, entry: dict[str, Any]) -> None:
        """A measured update: {"step", "layers"}, as `train.shift` has them."""

    def ended(self, run: int, outcome: Outcome) -> None:
        """The run is over; nothing more is reported of it."""

    def checkpointed(self, run: int, checkpoint: Checkpoint) -> None:
        """The run can go on from here."""

    def advanced(self, step: int, losses: Tensor) -> None:
        """Update number `step` was made; `losses` (K,) are those of its batch."""


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """Step and layer at which the loss of a run stopped being finite."""

    step: int
    """Number of updates made before."""
    layer: int | None
    """Index of the first weight layer whose pre-activation is not finite; None if only the loss is not."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cost of the whole cohort until the end of a run."""

    steps: int
    """Number of updates of the whole budget."""
    timings: Timings
    steps_with_threads: dict[int, int]
    """Number of threads → number of training steps."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Outcome of one run."""

    final: dict[str, float] | None
    """{"train_loss", "val_loss", "val_accuracy", "test_accuracy"} and the results of `evaluate_norms`; None
    for a diverged run."""
    diverged: Divergence | None
    cost: Cost
    parameters: dict[str, Tensor] = field(repr=False)
    buffers: dict[str, Tensor] = field(repr=False)
