"""Train stacked nets with different inits briefly in memory, and judge whether they learn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from initbench.config.schema import ExperimentConfig
from initbench.data.preprocessing import PreparedData, Split
from initbench.errors import UsageError
from initbench.runner.batching import MAX_STACKED
from initbench.runner.run_identity import training_mode
from initbench.train.events import Advanced, Ended, TrainingEvent
from initbench.train.loop import Training, TrainingSetup
from initbench.train.network_builder import build_networks
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
        """Return the threshold for the labels of this split; raise UsageError if it has other targets."""
        if split.y.dim() != 1 or split.y.is_floating_point():
            raise UsageError("a map with training needs a data set with one class label a sample")
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
    accuracies: list[float | None] = [None] * len(starts)
    updates = len(starts) * steps

    def receive(event: TrainingEvent) -> None:
        nonlocal updates
        match event:
            case Advanced(losses=losses):
                updates -= len(losses)
                advanced(len(losses))
            case Ended(run=run, final=final) if final is not None:
                accuracies[run] = final["val_accuracy"]

    setup = TrainingSetup(
        networks=[build_networks(variant, data, [seed])[0] for variant, seed in starts],
        seeds=[seed for _, seed in starts],
        config=config,
        mode=mode,
        data=data,
        device=device,
        threads=usable_threads() if mode == "vmap" else 1,
    )
    Training(setup, receive).run()
    advanced(updates)  # those that diverged nets did not make
    return accuracies
