"""Short trainings in memory: nets that differ in how they start, stacked, and whether they learn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from initbench.config.schema import ExperimentConfig
from initbench.data.preprocessing import PreparedData, Split
from initbench.runner.batching import MAX_STACKED
from initbench.runner.run_identity import training_mode
from initbench.train.checkpoint import Checkpoint
from initbench.train.loop import Training
from initbench.train.network_builder import build_networks
from initbench.train.outcome import Outcome
from initbench.train.thread_tuner import usable_threads

CHANCE_QUANTILE = 3.09
"""Standard deviations that a net which guesses exceeds once in a thousand."""
MIN_GAIN = 0.25
"""Share of the way from the majority class's share to 1 that a net has to make at least."""

VariantStart = tuple[ExperimentConfig, int]
"""A config and a seed."""


@dataclass(frozen=True)
class LearningThreshold:
    """What a net has to reach to have learned."""

    steps: int
    majority: float
    """Share of the most frequent class in the validation split."""
    samples: int
    """Of the validation split."""

    @classmethod
    def for_split(cls, split: Split, steps: int) -> LearningThreshold:
        """For the labels of that split."""
        return cls(steps, float(split.y.bincount().max()) / len(split), len(split))

    @property
    def accuracy(self) -> float:
        """The validation accuracy that has to be exceeded.

        The lower end of a Wilson interval lies above the majority's share p exactly where the accuracy
        exceeds p + z·√(p(1 − p)/N); a quarter of the way from p to 1 has to be made in any case.
        """
        p = self.majority
        return p + max(CHANCE_QUANTILE * math.sqrt(p * (1.0 - p) / self.samples), MIN_GAIN * (1.0 - p))

    def reached_by(self, accuracy: float | None) -> bool:
        """Whether a net with that accuracy, None for one that diverged, has learned."""
        return accuracy is not None and accuracy > self.accuracy


def train_variants(
    starts: Sequence[VariantStart], data: PreparedData, steps: int, advanced: Callable[[int], None]
) -> list[float | None]:
    """Validation accuracies after `steps` updates, in order; None for a net that diverged.

    The nets have the same shapes and are stacked where the config's may be. `advanced(nets)` hears
    of every update, and at its end of those that a diverged net did not make.
    """
    device = data.train.x.device
    stacked = training_mode(starts[0][0], device) == "vmap"
    size = MAX_STACKED[device.type] if stacked else 1
    cohorts = -(-len(starts) // size)
    share = -(-len(starts) // cohorts)  # as equal as may be
    accuracies: list[float | None] = []
    for i in range(0, len(starts), share):
        accuracies += _train(starts[i : i + share], data, steps, advanced)
    return accuracies


def _train(
    starts: Sequence[VariantStart], data: PreparedData, steps: int, advanced: Callable[[int], None]
) -> list[float | None]:
    config = starts[0][0]
    budget = config.train.model_copy(update={"steps": steps, "epochs": None, "eval_every": steps})
    unseen = config.probe.model_copy(update={"when": [], "covariate_shift": None})
    config = config.model_copy(update={"train": budget, "probe": unseen})
    device = data.train.x.device
    mode = training_mode(config, device)
    listener = _ShortTrainingListener(len(starts), steps, advanced)
    Training(
        [build_networks(variant, data, [seed])[0] for variant, seed in starts],
        [seed for _, seed in starts],
        config,
        mode,
        data=data,
        device=device,
        listener=listener,
        threads=usable_threads() if mode == "vmap" else 1,
    ).run()
    listener.close()
    return listener.accuracies


class _ShortTrainingListener:
    """Keeps the accuracies that the nets end with."""

    def __init__(self, nets: int, steps: int, advanced: Callable[[int], None]) -> None:
        self.accuracies: list[float | None] = [None] * nets
        self._left = nets * steps
        self._advanced = advanced

    def advanced(self, step: int, losses: Tensor) -> None:
        """Hand on the progress."""
        del step
        self._left -= len(losses)
        self._advanced(len(losses))

    def evaluated(self, run: int, entry: dict[str, Any]) -> None:
        """Only the end counts."""

    def probed(self, run: int, snapshot: dict[str, Any]) -> None:
        """Nothing is probed."""

    def shifted(self, run: int, entry: dict[str, Any]) -> None:
        """Nothing is measured."""

    def checkpointed(self, run: int, checkpoint: Checkpoint) -> None:
        """Nothing is kept."""

    def ended(self, run: int, outcome: Outcome) -> None:
        """Keep the accuracy of a net that did not diverge."""
        if outcome.final is not None:
            self.accuracies[run] = outcome.final["val_accuracy"]

    def close(self) -> None:
        """Count what diverged nets left undone."""
        self._advanced(self._left)
