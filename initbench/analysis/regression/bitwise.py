"""Bitwise comparison of the runs of one seed in two states.

On one machine and with one version of torch, a run is determined by its config and its seed. If the code
computes the same, every number is equal to the last digit, so any difference is real without a statistical
test.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from initbench.analysis.metrics import Metric
from initbench.analysis.operands import RunsOperand
from initbench.analysis.run_summary import RunSummary


@dataclass(frozen=True)
class ChangedValue:
    """A metric of one run that differs between two states."""

    metric: Metric
    unit: str
    """Unit of the run: its seed, and the keys that vary within its row."""
    earlier: float
    now: float

    @property
    def relative_size(self) -> float:
        """Difference relative to the larger absolute value; infinite if a value is not finite."""
        greater = max(abs(self.earlier), abs(self.now))
        both_finite = math.isfinite(self.earlier) and math.isfinite(self.now)
        return abs(self.now - self.earlier) / greater if both_finite else math.inf


@dataclass(frozen=True)
class BitwiseDiff:
    """The differences between the runs that are in both states."""

    shared: int
    """Number of runs in both states."""
    changed_units: list[str]
    """Units of the runs with a number that differs."""
    largest_changes: list[ChangedValue]
    """For each metric that differs, the run in which it differs most; largest relative size first."""
    environment_changes: list[str]
    """Differences of the environment that may change the last digits: the device, the machine, torch."""

    @property
    def identical(self) -> int:
        """Number of runs whose numbers are all equal to the last digit."""
        return self.shared - len(self.changed_units)


def bitwise_diff(now: RunsOperand, earlier: RunsOperand, metrics: Sequence[Metric]) -> BitwiseDiff:
    """Compare the complete runs of the same seed in two states of a row."""
    shared = [unit for unit in now.runs if unit in earlier.runs]
    changed = [unit for unit in shared if has_different_numbers(earlier.runs[unit], now.runs[unit])]
    pairs = [(earlier.runs[unit], now.runs[unit]) for unit in shared]
    return BitwiseDiff(
        len(shared),
        changed,
        _largest_changes(now, earlier, changed, metrics),
        list(_environment_changes(pairs)),
    )


def has_different_numbers(earlier: RunSummary, now: RunSummary) -> bool:
    """Return whether a number that both runs have differs; NaN equals NaN.

    A number that only one run has, since an older version did not measure it, is not a difference.
    """
    ends = [(run.status, run.diverged_step, len(run.evaluations)) for run in (earlier, now)]
    moments = earlier.layers.keys() & now.layers.keys()
    sizes = [[len(run.layers[moment]) for moment in moments] for run in (earlier, now)]
    if ends[0] != ends[1] or sizes[0] != sizes[1]:
        return True
    old = dict(_all_numbers(earlier))
    return any(not _is_same_number(old.get(position), value) for position, value in _all_numbers(now))


def _all_numbers(run: RunSummary) -> Iterator[tuple[tuple[str | int, ...], float | None]]:
    for name, number in run.final.items():
        yield ("final", name), number
    for i, row in enumerate(run.evaluations):
        for column, number in enumerate(row):
            yield ("evaluations", i, column), number
    for moment, layers in run.layers.items():
        for i, layer in enumerate(layers):
            for name, number in layer.items():
                yield (moment, i, name), number


def _is_same_number(earlier: float | None, now: float | None) -> bool:
    return earlier is None or now is None or earlier == now or (math.isnan(earlier) and math.isnan(now))


def _largest_changes(
    now: RunsOperand, earlier: RunsOperand, units: Sequence[str], metrics: Sequence[Metric]
) -> list[ChangedValue]:
    largest = []
    for metric in metrics:
        old, new = earlier.metric_values(metric.name), now.metric_values(metric.name)
        moved = [
            ChangedValue(metric, unit, old[unit], new[unit])
            for unit in units
            if unit in old and unit in new and not _is_same_number(old[unit], new[unit])
        ]
        if moved:
            largest.append(max(moved, key=lambda change: change.relative_size))
    return sorted(largest, key=lambda change: change.relative_size, reverse=True)


def _environment_changes(pairs: Sequence[tuple[RunSummary, RunSummary]]) -> Iterator[str]:
    for name in ("device", "torch", "mode"):
        yield from _describe_change(name, [[str(run.identity.get(name)) for run in pair] for pair in pairs])
    yield from _describe_change("machine", [[run.machine for run in pair] for pair in pairs])


def _describe_change(name: str, pairs: Sequence[Sequence[str]]) -> Iterator[str]:
    sides = [list(dict.fromkeys(side)) for side in zip(*pairs, strict=True)]
    if sides and sides[0] != sides[1]:
        yield f"{name} {' and '.join(sides[0])} → {' and '.join(sides[1])}"
