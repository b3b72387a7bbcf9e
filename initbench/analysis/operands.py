"""Operands of a comparison: a row with all its runs, or the summary of a row in a reference document."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from initbench.analysis.grouping import pairing_keys
from initbench.analysis.metrics import METRICS
from initbench.analysis.run_summary import RunSummary
from initbench.analysis.stats.summary import Summary
from initbench.analysis.tables import Row, Table


@dataclass(frozen=True)
class RunsOperand:
    """A row whose single runs are known."""

    label: str
    runs: Mapping[str, RunSummary]
    """Complete runs by unit, which a run shares with its partners in other rows (see `pairing_keys`)."""
    unfinished: int
    """Number of runs that are not complete."""
    target: float | None
    """Target validation accuracy of `steps_to_target`."""

    @property
    def n(self) -> int:
        """Number of complete runs."""
        return len(self.runs)

    @cached_property
    def divergences(self) -> dict[str, bool]:
        """Whether each complete run diverged, by unit."""
        return {unit: not run.is_finished for unit, run in self.runs.items()}

    def cached_numbers(
        self, key: Hashable, read: Callable[[RunSummary], float | None]
    ) -> dict[str, float | None]:
        """Return `read(run)` for each run, by unit; the result is computed once for each `key`."""
        if key not in self._number_cache:
            self._number_cache[key] = {unit: read(run) for unit, run in self.runs.items()}
        return self._number_cache[key]

    @cached_property
    def _number_cache(self) -> dict[Hashable, dict[str, float | None]]:
        return {}

    def metric_values(self, metric: str) -> dict[str, float]:
        """Return the values of a metric by unit, for the runs that have one.

        The result is empty if the metric is censored and a run has no value (it never reached the target).
        """
        entry = METRICS[metric]
        values = {unit: entry.value(run, self.target) for unit, run in self.runs.items()}
        numbers = {unit: number for unit, number in values.items() if number is not None}
        return {} if entry.censored and len(numbers) < len(values) else numbers


@dataclass(frozen=True)
class SummaryOperand:
    """A row whose means, standard deviations and counts are known, but not its single runs."""

    label: str
    metrics: Mapping[str, Summary]
    n: int
    diverged: int

    @property
    def divergences(self) -> dict[str, bool]:
        """One entry per run with placeholder units; the first `diverged` entries are True."""
        return {f"unknown {i}": i < self.diverged for i in range(self.n)}


Operand = RunsOperand | SummaryOperand


def keys_varying_in_rows(*tables: Table) -> tuple[str, ...]:
    """Return the keys that differ within rows of the tables; runs are paired only if they agree in them."""
    return tuple(sorted({key for table in tables for row in table.rows for key in row.group.varies}))


def runs_operand(row: Row, target: float | None, varying_keys: Sequence[str]) -> RunsOperand:
    """Return a row as an operand.

    Args:
        row: The row.
        target: Target validation accuracy of its table.
        varying_keys: `keys_varying_in_rows` of all tables whose rows it is compared with.
    """
    complete = [run for run in row.group.runs if run.is_complete]
    units = pairing_keys(complete, varying_keys)
    return RunsOperand(row.label, dict(zip(units, complete, strict=True)), row.unfinished, target)
