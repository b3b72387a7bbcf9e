"""Score how well a diagnosis before training predicts which configs learn: tables for docs/results.md."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sklearn.metrics import roc_auc_score

from benchmarks.results_page import written_by
from docs.generators.markdown import code, table

RESAMPLES = 2000
BARS = (0.2, 0.5, 0.8, 0.9)
"""Alternative thresholds of the validation accuracy."""


@dataclass(frozen=True)
class Case:
    """A config, the diagnosis of its untrained net, and its accuracy after training."""

    parts: dict[str, str]
    details: dict[str, Any]
    depth: int
    width: int
    codes: tuple[str, ...]
    severity: float
    """Largest ratio of a measure to its threshold; a finding starts at 1."""
    accuracy: float | None
    """Validation accuracy after training; None for a net that diverged."""

    @property
    def healthy(self) -> bool:
        """Whether the diagnosis has no findings."""
        return not self.codes

    def learns(self, bar: float) -> bool:
        """Whether the net exceeds this accuracy; False for a net that diverged."""
        return self.accuracy is not None and self.accuracy > bar


Score = Callable[[Case], float]
SCORES: dict[str, Score] = {
    "the verdict: healthy or not": lambda case: float(case.healthy),
    "graded: − the worst measure as a share of its threshold": lambda case: -case.severity,
    "for comparison: − depth": lambda case: -float(case.depth),
}


def auc(cases: Sequence[Case], score: Score, bar: float) -> float:
    """Return the area under the ROC curve of `score`: the chance that a net that learns scores higher."""
    return float(roc_auc_score([case.learns(bar) for case in cases], [score(case) for case in cases]))


def interval(cases: Sequence[Case], score: Score, bar: float) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the area, over configs."""
    stream, found = random.Random(0), []
    while len(found) < RESAMPLES:
        again = stream.choices(cases, k=len(cases))
        if len({case.learns(bar) for case in again}) == 2:
            found.append(auc(again, score, bar))
    found.sort()
    return found[round(0.025 * RESAMPLES)], found[round(0.975 * RESAMPLES) - 1]


def report(cases: Sequence[Case], bar: float, about: str) -> str:
    """Return the section of the page."""
    parts = [
        "## What the probe says before training, and which nets learn",
        written_by("probe_predicts_training"),
        about,
        _table_of_four(cases, bar),
        "ROC AUC for *learns*, with 95 % bootstrap intervals over configs. Nets whose units start"
        " identical, as with the schemes zeros, ones and constant, are easy to detect; the rows without such"
        " configs are a harder test.",
        _areas(cases, bar),
        "Results for other accuracy thresholds:",
        _sensitivity(cases, bar),
        "Configs with each code, and how many of them learn:",
        _by_code(cases, bar),
        "Parts of configs with at least two wrong verdicts, ordered by the share of wrong verdicts:",
        _by_part(cases, bar),
        "### Where the verdict was wrong",
        _failures([c for c in cases if c.healthy and not c.learns(bar)], "Healthy, but does not learn"),
        _failures([c for c in cases if not c.healthy and c.learns(bar)], "A finding, but learns"),
    ]
    return "\n\n".join(parts)


def _areas(cases: Sequence[Case], bar: float) -> str:
    subsets = {"all": cases, "without `symmetric`": [c for c in cases if "symmetric" not in c.codes]}
    rows = []
    for name, score in SCORES.items():
        for subset, own in subsets.items():
            low, high = interval(own, score, bar)
            rows.append([name, subset, len(own), f"{auc(own, score, bar):.3f}", f"{low:.3f} to {high:.3f}"])
    return table(["score", "configs", "n", "AUC", "95 %"], rows)


def _table_of_four(cases: Sequence[Case], bar: float) -> str:
    def count(*, healthy: bool, learns: bool) -> int:
        return sum(case.healthy == healthy and case.learns(bar) == learns for case in cases)

    rows = [
        [name, count(healthy=healthy, learns=True), count(healthy=healthy, learns=False)]
        for name, healthy in (("healthy", True), ("some finding", False))
    ]
    return table(["before training", "learns", "does not learn"], rows)


def _sensitivity(cases: Sequence[Case], bar: float) -> str:
    rows = []
    for other in sorted({*BARS, bar}):
        right = sum(case.healthy == case.learns(other) for case in cases)
        learns = sum(case.learns(other) for case in cases)
        areas = [f"{auc(cases, score, other):.3f}" for score in SCORES.values()]
        rows.append([f"{other:.3f}", learns, f"{right} of {len(cases)}", *areas])
    return table(
        ["bar", "learn", "verdict right", "AUC of the verdict", "AUC graded", "AUC of − depth"], rows
    )


def _by_code(cases: Sequence[Case], bar: float) -> str:
    codes = sorted({name for case in cases for name in case.codes})
    rows = []
    for name in codes:
        own = [case for case in cases if name in case.codes]
        rows.append([code(name), len(own), sum(case.learns(bar) for case in own)])
    return table(["code", "configs", "of which learn"], rows)


def _by_part(cases: Sequence[Case], bar: float) -> str:
    """Count the wrong verdicts by part of the config, for parts with at least two."""
    rows = []
    for kind in cases[0].parts:
        for name in sorted({case.parts[kind] for case in cases}):
            own = [case for case in cases if case.parts[kind] == name]
            missed = sum(case.healthy and not case.learns(bar) for case in own)
            alarms = sum(not case.healthy and case.learns(bar) for case in own)
            if missed + alarms > 1:
                rows.append([f"{kind} {code(name)}", len(own), missed, alarms])
    rows.sort(key=lambda row: -(int(row[2]) + int(row[3])) / int(row[1]))
    head = ["part of the config", "configs", "healthy, but does not learn", "a finding, but learns"]
    return table(head, rows)


def _failures(cases: Sequence[Case], title: str) -> str:
    rows = [
        [
            " · ".join(
                [f"{case.parts['family']} {case.depth} × {case.width}", *list(case.parts.values())[1:]]
            ),
            ", ".join(f"{key} {_value(value)}" for key, value in case.details.items() if value is not None),
            ", ".join(map(code, case.codes)),
            f"{case.severity:.2f}",
            "diverged" if case.accuracy is None else f"{case.accuracy:.2f}",
        ]
        for case in cases
    ]
    if not rows:
        return f"{title}: none."
    return f"{title}:\n\n" + table(["config", "options", "codes", "worst measure", "accuracy"], rows)


def _value(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
