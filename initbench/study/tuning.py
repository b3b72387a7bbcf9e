"""Tuning of one key for each variant: the experiments that try its values, and the choice among them.

The tuning runs have seeds that later comparisons do not use.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from initbench.analysis.metrics import METRICS, Metric
from initbench.analysis.run_summary import RunSummary
from initbench.analysis.stats.summary import summarise
from initbench.config.loading import validate_data
from initbench.config.overrides import Override, apply_overrides
from initbench.config.schema import ExperimentConfig
from initbench.config.study import Tune
from initbench.config.validation_errors import dotted_key
from initbench.errors import ConfigError, ConfigIssue

TOLERANCE = 0.05
"""A value is good if its score differs from the best score by at most this share of it.

Scores are flat if they all lie within this share of the largest; percentages, within this share of 1."""


@dataclass(frozen=True)
class TuningTrial:
    """One value and the result of its runs."""

    value: float
    score: float | None
    """Mean of the metric over the tuning seeds; None if a run has no score because it diverged or failed."""
    runs: int
    lost: int
    """Number of runs without a score."""
    seconds: float
    """Total training time of the runs."""


@dataclass(frozen=True)
class Tuning:
    """All values of one arm in rising order, and the best of them."""

    key: str
    metric: Metric
    tried: tuple[TuningTrial, ...]
    best: int
    """Position of the chosen value."""
    good: tuple[int, int]
    """First and last position of the contiguous good values around it."""

    @property
    def chosen(self) -> TuningTrial:
        """Trial of the chosen value."""
        return self.tried[self.best]

    @property
    def is_flat(self) -> bool:
        """Whether all scores are about equal, e.g. because the arm learns nothing under any value."""
        scores = [trial.score for trial in self.tried if trial.score is not None]
        if not scores:
            return False
        scale = 1.0 if self.metric.form == "percent" else max(map(abs, scores))
        return max(scores) - min(scores) <= TOLERANCE * scale

    @property
    def range_edge(self) -> str | None:
        """End of the range at which the best value lies (`low` or `high`): a better one may lie beyond.

        None if the best value lies inside the range, or if the scores are flat.
        """
        return None if self.is_flat else {0: "low", len(self.tried) - 1: "high"}.get(self.best)

    @property
    def good_values(self) -> tuple[float, float]:
        """Smallest and largest good value."""
        return self.tried[self.good[0]].value, self.tried[self.good[1]].value

    @property
    def decades(self) -> float | None:
        """Width of the good range in factors of ten; None if it includes values ≤ 0."""
        low, high = self.good_values
        return math.log10(high / low) if low > 0.0 else None

    @property
    def runs(self) -> int:
        """Number of tuning runs."""
        return sum(trial.runs for trial in self.tried)

    @property
    def seconds(self) -> float:
        """Training time of the tuning runs, in seconds."""
        return sum(trial.seconds for trial in self.tried)

    def as_data(self) -> dict[str, Any]:
        """Return the tuning as plain data, for documents and the store."""
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


def tuning_candidates(
    tune: Tune, config: ExperimentConfig, data: Mapping[str, Any], position: str
) -> tuple[list[ExperimentConfig], list[ConfigIssue]]:
    """Return the experiment with each value of the tuned key, and the faults of all of them.

    The experiment is `config`, which was built from `data`. The candidates' seeds follow those of the
    experiment; they are not probed.
    """
    candidates: list[ExperimentConfig] = []
    faults: list[ConfigIssue] = []
    for value in tune.values:
        candidate, issues = _candidate(tune, config, data, value, position)
        candidates += [candidate] if candidate else []
        faults += issues
    return candidates, faults


def _candidate(
    tune: Tune, config: ExperimentConfig, data: Mapping[str, Any], value: float, position: str
) -> tuple[ExperimentConfig | None, list[ConfigIssue]]:
    key = dotted_key(("tune", tune.key))
    whole = int(value) if value.is_integer() and _is_whole(config, tune.key) else value
    try:
        tuned = apply_overrides(dict(data), [Override(tuple(tune.key.split(".")), whole, tune.key, position)])
    except ConfigError as error:
        return None, [replace(fault, where=position, key=key) for fault in error.issues]
    first = max(config.seed_list) + 1
    candidate_keys = {
        "name": f"{config.name}.tune",
        "seeds": list(range(first, first + tune.seeds)),
        "probe": {**config.probe.model_dump(mode="json"), "when": []},
    }
    candidate, faults = validate_data(
        ExperimentConfig, {**tuned, **candidate_keys}, lambda _path, _of_key: position
    )
    return candidate, [ConfigIssue(position, key, fault.problem) for fault in faults]


def _is_whole(config: ExperimentConfig, key: str) -> bool:
    """Return whether the config has a whole number at `key`."""
    value: Any = config.resolved()
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return isinstance(value, int) and not isinstance(value, bool)


def apply_choice(variant: ExperimentConfig, candidate: ExperimentConfig) -> ExperimentConfig:
    """Return the experiment with the tuned value of `candidate`, its own name, seeds and probes."""
    return candidate.model_copy(update={name: getattr(variant, name) for name in ("name", "seeds", "probe")})


def evaluate_tuning(tune: Tune, runs: Sequence[Sequence[RunSummary]]) -> Tuning:
    """Choose the best value of the tuned key from the runs of its candidates, one group per value."""
    metric = METRICS[tune.select]
    trials = [score_trial(value, group, metric) for value, group in zip(tune.values, runs, strict=True)]
    return choose_best(tune.key, metric, trials)


def score_trial(value: float, runs: Sequence[RunSummary], metric: Metric) -> TuningTrial:
    """Compute the score of one value from its runs."""
    scores = [metric.value(run, None) for run in runs]
    lost = sum(score is None or not math.isfinite(score) for score in scores)
    mean = summarise(scores).mean if runs and not lost else None
    return TuningTrial(value, mean, len(runs), lost, math.fsum(run.seconds or 0.0 for run in runs))


def choose_best(key: str, metric: Metric, trials: Sequence[TuningTrial]) -> Tuning:
    """Choose the value with the best score, the smallest one in case of a tie.

    A value with lost runs is worse than any value without; of two such values, fewer lost runs are better.
    """
    sign = -1.0 if metric.better == "lower" else 1.0

    def rank(position: int) -> tuple[float, int]:
        trial = trials[position]
        return (-math.inf, -trial.lost) if trial.score is None else (sign * trial.score, 0)

    best = max(range(len(trials)), key=rank)
    return Tuning(key, metric, tuple(trials), best, _good_range(trials, best, sign))


def _good_range(trials: Sequence[TuningTrial], best: int, sign: float) -> tuple[int, int]:
    """Return the first and last position of the contiguous good values around the best."""
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
