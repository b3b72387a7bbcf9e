"""One side of a comparison: a row with all its runs, or what a summary that was kept says of it."""

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
    """A row of which every run is known."""

    label: str
    runs: Mapping[str, RunSummary]
    """The complete runs, by what each shares with its partners in other rows."""
    unfinished: int
    target: float | None
    """Validation accuracy of `steps_to_target`."""

    @property
    def n(self) -> int:
        """Complete runs."""
        return len(self.runs)

    @cached_property
    def divergences(self) -> dict[str, bool]:
        """Whether each complete run diverged."""
        return {unit: not run.is_finished for unit, run in self.runs.items()}

    def cached_numbers(
        self, key: Hashable, read: Callable[[RunSummary], float | None]
    ) -> dict[str, float | None]:
        """What `of` gives for each run, worked out once for each `key`."""
        if key not in self._number_cache:
            self._number_cache[key] = {unit: read(run) for unit, run in self.runs.items()}
        return self._number_cache[key]

    @cached_property
    def _number_cache(self) -> dict[Hashable, dict[str, float | None]]:
        return {}

    def metric_values(self, metric: str) -> dict[str, float]:
        """The numbers of the runs that have one; none at all where a run without stands for "never"."""
        entry = METRICS[metric]
        values = {unit: entry.value(run, self.target) for unit, run in self.runs.items()}
        numbers = {unit: number for unit, number in values.items() if number is not None}
        return {} if entry.censored and len(numbers) < len(values) else numbers


@dataclass(frozen=True)
class SummaryOperand:
    """A row of which only means, standard deviations and counts are known."""

    label: str
    metrics: Mapping[str, Summary]
    n: int
    diverged: int

    @property
    def divergences(self) -> dict[str, bool]:
        """As many divergences as there were, of runs that nobody can name."""
        return {f"unknown {i}": i < self.diverged for i in range(self.n)}


Operand = RunsOperand | SummaryOperand


def keys_varying_in_rows(*tables: Table) -> tuple[str, ...]:
    """The keys that differ within rows of tables: runs are partners only if they agree in them."""
    return tuple(sorted({key for table in tables for row in table.rows for key in row.group.varies}))


def runs_operand(row: Row, target: float | None, varying_keys: Sequence[str]) -> RunsOperand:
    """A row with its runs; `varying_keys`: `varying` of all tables that it is going to be paired in."""
    complete = [run for run in row.group.runs if run.is_complete]
    units = pairing_keys(complete, varying_keys)
    return RunsOperand(row.label, dict(zip(units, complete, strict=True)), row.unfinished, target)
