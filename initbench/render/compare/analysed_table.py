"""A table with the results of its statistics: order of the rows, significance letters, and baseline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from initbench.analysis.baseline import (
    BaselineComparison,
    compare_divergence,
    compare_to_baseline,
    find_baselines,
    letter_display,
    mean_interval_of,
)
from initbench.analysis.metrics import METRICS
from initbench.analysis.stats.confidence_intervals import Interval
from initbench.analysis.stats.fisher import RateDifference
from initbench.analysis.tables import Row, Table
from initbench.render.compare.display_options import LABEL, View
from initbench.render.compare.titles import distinguishing_terms
from initbench.render.text import one_line

MAX_LETTERED = 30
"""Largest number of rows for which all pairs are compared; larger tables have no letters."""


@dataclass
class AnalysedTable:
    """A table with baseline, confidence level and order of rows; statistics are computed on demand."""

    table: Table
    baseline: Row | None
    confidence: float
    rows: list[Row]
    _letters: dict[str, dict[str, str]] = field(default_factory=dict)
    _versus: dict[str, dict[str, BaselineComparison]] = field(default_factory=dict)

    def letters(self, metric: str) -> dict[str, str]:
        """Return the letters of a metric by row label: rows that share one do not differ significantly.

        Empty if fewer than two rows can be tested or the table has more than MAX_LETTERED rows.
        """
        if metric not in self._letters:
            testable = sum(self.is_testable(row, metric) for row in self.rows)
            has_letters = testable > 1 and len(self.rows) <= MAX_LETTERED
            self._letters[metric] = letter_display(self.table, metric, self.confidence) if has_letters else {}
        return self._letters[metric]

    def shown_letters(self, metric: str) -> dict[str, str]:
        """Return the letters to display; empty if there is a baseline.

        Verdicts about a baseline belong to a smaller family of tests than the letters of all pairs. If both
        were displayed, rows that share a letter could be called worse.
        """
        return {} if self.baseline is not None else self.letters(metric)

    def is_testable(self, row: Row, metric: str) -> bool:
        """Return whether the mean of a row can be tested, which requires a spread.

        Seconds cannot be tested: the runs of a cohort share one clock, so their spread says nothing.
        """
        return row.metrics[metric].std is not None and not METRICS[metric].has_shared_measurement

    def interval(self, row: Row, metric: str) -> Interval | None:
        """Return the confidence interval of the mean of a row; None if there is none."""
        return mean_interval_of(row, metric, self.confidence)

    def versus(self, metric: str) -> dict[str, BaselineComparison]:
        """Return the comparison of each row with the baseline, by label; empty without a baseline."""
        if self.baseline is None:
            return {}
        if metric not in self._versus:
            self._versus[metric] = compare_to_baseline(self.table, self.baseline, metric, self.confidence)
        return self._versus[metric]

    @cached_property
    def divergence(self) -> dict[str, tuple[RateDifference, float | None]]:
        """Differences of the divergence rates from the baseline, each with its adjusted p, by row label."""
        return {} if self.baseline is None else compare_divergence(self.table, self.baseline)


def analyse(tables: Sequence[Table], view: View) -> list[AnalysedTable]:
    """Return each table with its baseline, and with its rows in the requested order."""
    baselines = [None] * len(tables) if view.baseline is None else find_baselines(tables, view.baseline)
    return [
        AnalysedTable(table, baseline, view.confidence, _sorted(table.rows, view.sort))
        for table, baseline in zip(tables, baselines, strict=True)
    ]


def without_comparison(tables: Sequence[Table], view: View) -> list[str]:
    """Return sentences about the rows that could not be compared with the baseline, and the reason."""
    analysed_tables = analyse(tables, view) if view.baseline is not None else []
    sentences = []
    for analysed in analysed_tables:
        terms = distinguishing_terms(analysed.table, tables)
        suffix = f" ({terms})" if terms else ""
        labels = [one_line(row.label) for row in analysed.table.rows]
        if analysed.baseline is None:
            rows = labels[0] if len(labels) == 1 else f"{len(labels):,} rows"
            verb, subject = ("is", "it is") if len(labels) == 1 else ("are", "they are")
            sentences.append(
                f"{rows} {verb} not compared with {view.baseline}: {subject} in a different table{suffix}."
            )
        elif len(labels) == 1:
            sentences.insert(
                0, f"{labels[0]} is the only row of its table{suffix}: there is nothing to compare it with."
            )
    return sentences


def _sorted(rows: Sequence[Row], by: str | None) -> list[Row]:
    """Return the rows sorted by a name, descending after a minus; rows without a value come last."""
    if by is None:
        return list(rows)
    name, sign = by.removeprefix("-"), -1.0 if by.startswith("-") else 1.0
    if name == LABEL:
        return sorted(rows, key=lambda row: row.label, reverse=sign < 0)

    def place(row: Row) -> tuple[float, str]:
        value = row.metrics[name].mean if name in METRICS else run_count(row, name)
        return (math.inf if value is None or math.isnan(value) else sign * value), row.label

    return sorted(rows, key=place)


def run_count(row: Row, name: str) -> int:
    """Return the number of runs that `name`, one of COUNTS, stands for."""
    return {
        "n": row.n,
        "diverged": row.diverged,
        "unfinished": row.unfinished,
        "reached_target": row.reached,
    }[name]
