"""Choose the value of one key for an arm, by runs under seeds that it is not compared on afterwards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from initbench.analysis.metrics import METRICS, Metric
from initbench.analysis.run_summary import RunSummary
from initbench.analysis.stats.summary import summarise
from initbench.study.results import ExperimentRuns

TOLERANCE = 0.05
"""A value is good if its score is within this share of the best one's size.

Scores are flat if they all lie within this share of it, and shares of 1 within as many hundredths."""


@dataclass(frozen=True)
class TuningTrial:
    """One value, and what came of it."""

    value: float
    score: float | None
    """Mean of the metric over the tuning seeds; None where a run has none, because it diverged or failed."""
    runs: int
    lost: int
    """Runs without a score."""
    seconds: float
    """Of training, all runs together."""


@dataclass(frozen=True)
class Tuning:
    """All values of one arm, rising, and which is best."""

    key: str
    metric: Metric
    tried: tuple[TuningTrial, ...]
    best: int
    """Position of the chosen value."""
    good: tuple[int, int]
    """First and last position of the run of good values around it."""

    @property
    def chosen(self) -> TuningTrial:
        """The value that was chosen."""
        return self.tried[self.best]

    @property
    def is_flat(self) -> bool:
        """Whether the values that have a score share it: as where an arm learns nothing under any of them."""
        scores = [trial.score for trial in self.tried if trial.score is not None]
        if not scores:
            return False
        scale = 1.0 if self.metric.form == "percent" else max(map(abs, scores))
        return max(scores) - min(scores) <= TOLERANCE * scale

    @property
    def range_edge(self) -> str | None:
        """Which end of the range the best value lies at, if it does: beyond it may be a better one.

        None also where the scores are flat: the best of them is then one of many, wherever it lies.
        """
        return None if self.is_flat else {0: "low", len(self.tried) - 1: "high"}.get(self.best)

    @property
    def good_values(self) -> tuple[float, float]:
        """The least and the greatest good value."""
        return self.tried[self.good[0]].value, self.tried[self.good[1]].value

    @property
    def decades(self) -> float | None:
        """Width of the good range in factors of ten; None where values are not positive."""
        low, high = self.good_values
        return math.log10(high / low) if low > 0.0 else None

    @property
    def runs(self) -> int:
        """What the tuning cost."""
        return sum(trial.runs for trial in self.tried)

    @property
    def seconds(self) -> float:
        """What the tuning cost, in seconds of training."""
        return sum(trial.seconds for trial in self.tried)

    def as_data(self) -> dict[str, Any]:
        """The tuning as plain data, for documents and the store."""
        return {
            "key": self.key,
            "metric": self.metric.name,
            "best": self.chosen.value,
            "good": list(self.good_values),
            "decades": self.decades,
            "edge": self.range_edge,
            "runs": self.runs,
            "seconds": self.seconds,
            "tried": [
                {"value": trial.value, "score": trial.score, "runs": trial.runs, "lost": trial.lost}
                for trial in self.tried
            ],
        }


def evaluate_tuning(
    experiments: Sequence[ExperimentRuns], values: Sequence[float], key: str, metric: str
) -> Tuning:
    """Choose from the runs of candidates, one for each value of `key`.

    `metric` is one of METRICS that says which way is better.
    """
    scored = METRICS[metric]
    trials = [
        score_trial(value, experiment.facts, scored)
        for value, experiment in zip(values, experiments, strict=True)
    ]
    return choose_best(key, scored, trials)


def score_trial(value: float, runs: Sequence[RunSummary], metric: Metric) -> TuningTrial:
    """The score of one value from its runs."""
    scores = [metric.value(run, None) for run in runs]
    lost = sum(score is None or not math.isfinite(score) for score in scores)
    mean = summarise(scores).mean if runs and not lost else None
    return TuningTrial(value, mean, len(runs), lost, math.fsum(run.seconds or 0.0 for run in runs))


def choose_best(key: str, metric: Metric, trials: Sequence[TuningTrial]) -> Tuning:
    """The value with the best score; the least of those that share it.

    A value with a run that has no score is worse than any without; among such, fewer are better.
    """
    sign = -1.0 if metric.better == "lower" else 1.0

    def rank(position: int) -> tuple[float, int]:
        trial = trials[position]
        return (-math.inf, -trial.lost) if trial.score is None else (sign * trial.score, 0)

    best = max(range(len(trials)), key=rank)
    return Tuning(key, metric, tuple(trials), best, _good_range(trials, best, sign))


def _good_range(trials: Sequence[TuningTrial], best: int, sign: float) -> tuple[int, int]:
    """The unbroken run of good values around the best."""
    top = trials[best].score
    if top is None:
        return best, best
    least = sign * top - TOLERANCE * abs(top)

    def is_good(position: int) -> bool:
        inside = 0 <= position < len(trials)
        score = trials[position].score if inside else None
        return score is not None and sign * score >= least

    low = high = best
    while is_good(low - 1):
        low -= 1
    while is_good(high + 1):
        high += 1
    return low, high
