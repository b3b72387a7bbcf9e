"""Train stacked nets with different inits briefly in memory, and judge whether they learn."""

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
"""Standard deviations that a guessing net exceeds with probability 1/1000."""
MIN_GAIN = 0.25
"""Minimum share of the distance from the majority share to accuracy 1 that a net has to cover."""

VariantStart = tuple[ExperimentConfig, int]
"""A config and a seed."""


@dataclass(frozen=True)
class LearningThreshold:
    """The validation accuracy above which a net counts as having learned."""

    steps: int
    majority: float
    """Share of the most frequent class in the validation split."""
    samples: int
    """Size of the validation split."""

    @classmethod
    def for_split(cls, split: Split, steps: int) -> LearningThreshold:
        """Return the threshold for the labels of this split."""
        return cls(steps, float(split.y.bincount().max()) / len(split), len(split))

    @property
    def accuracy(self) -> float:
        """The validation accuracy that a net has to exceed.

        The lower end of a Wilson interval is above the majority share p exactly if the accuracy exceeds
        p + z·√(p(1 − p)/N). In any case a net has to cover a quarter of the distance from p to 1.
        """
        p = self.majority
        return p + max(CHANCE_QUANTILE * math.sqrt(p * (1.0 - p) / self.samples), MIN_GAIN * (1.0 - p))

    def reached_by(self, accuracy: float | None) -> bool:
        """Return whether a net with this accuracy has learned; None stands for a diverged net."""
        return accuracy is not None and accuracy > self.accuracy


def train_variants(
    starts: Sequence[VariantStart], data: PreparedData, steps: int, advanced: Callable[[int], None]
) -> list[float | None]:
    """Return the validation accuracies after `steps` updates, in order; None for a net that diverged.

    The nets must have the same shapes; they are stacked if the config allows it. `advanced(nets)` is called
    after every update, and at the end with the number of updates that diverged nets did not make.
    """
    device = data.train.x.device
    stacked = training_mode(starts[0][0], device) == "vmap"
    size = MAX_STACKED[device.type] if stacked else 1
    cohorts = -(-len(starts) // size)
    share = -(-len(starts) // cohorts)  # cohorts of nearly equal size
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
    """A training listener that keeps the final accuracies of the nets."""

    def __init__(self, nets: int, steps: int, advanced: Callable[[int], None]) -> None:
        self.accuracies: list[float | None] = [None] * nets
        self._left = nets * steps
        self._advanced = advanced

    def advanced(self, step: int, losses: Tensor) -> None:
        """Pass on the progress."""
        del step
        self._left -= len(losses)
        self._advanced(len(losses))

    def evaluated(self, run: int, entry: dict[str, Any]) -> None:
        """Ignore evaluations; only the final accuracy counts."""

    def probed(self, run: int, snapshot: dict[str, Any]) -> None:
        """Ignore probes; the config disables them."""

    def shifted(self, run: int, entry: dict[str, Any]) -> None:
        """Ignore covariate shifts; the config disables them."""

    def checkpointed(self, run: int, checkpoint: Checkpoint) -> None:
        """Ignore checkpoints."""

    def ended(self, run: int, outcome: Outcome) -> None:
        """Keep the accuracy of a net that did not diverge."""
        if outcome.final is not None:
            self.accuracies[run] = outcome.final["val_accuracy"]

    def close(self) -> None:
        """Report the updates that diverged nets did not make."""
        self._advanced(self._left)
