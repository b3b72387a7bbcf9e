"""A table with what can be said of its rows: their order, their letters, and a row to hold them against."""

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
"""Rows of a table that are compared pair by pair; in larger ones no two are alike but by chance."""


@dataclass
class AnalysedTable:
    """One table, read in one way."""

    table: Table
    baseline: Row | None
    confidence: float
    rows: list[Row]
    _letters: dict[str, dict[str, str]] = field(default_factory=dict)
    _versus: dict[str, dict[str, BaselineComparison]] = field(default_factory=dict)

    def letters(self, metric: str) -> dict[str, str]:
        """By label; none where fewer than two rows have the seeds for a test, or where rows are too many."""
        if metric not in self._letters:
            testable = sum(self.is_testable(row, metric) for row in self.rows)
            has_letters = testable > 1 and len(self.rows) <= MAX_LETTERED
            self._letters[metric] = letter_display(self.table, metric, self.confidence) if has_letters else {}
        return self._letters[metric]

    def shown_letters(self, metric: str) -> dict[str, str]:
        """The letters that a table shows: none with a baseline.

        Verdicts about a baseline are of a smaller family than the letters of all pairs. Side by side, rows
        that share a letter could be called worse.
        """
        return {} if self.baseline is not None else self.letters(metric)

    def is_testable(self, row: Row, metric: str) -> bool:
        """Whether a mean can be told apart from another: it has a spread.

        Seconds never can: the runs of a cohort have one clock, and their spread is none.
        """
        return row.metrics[metric].std is not None and not METRICS[metric].has_shared_measurement

    def interval(self, row: Row, metric: str) -> Interval | None:
        """Of the mean of a row."""
        return mean_interval_of(row, metric, self.confidence)

    def versus(self, metric: str) -> dict[str, BaselineComparison]:
        """By label, the rows beside the baseline in one metric; none without a baseline."""
        if self.baseline is None:
            return {}
        if metric not in self._versus:
            self._versus[metric] = compare_to_baseline(self.table, self.baseline, metric, self.confidence)
        return self._versus[metric]

    @cached_property
    def divergence(self) -> dict[str, tuple[RateDifference, float | None]]:
        """By label, the rates of divergence beside that of the baseline, with adjusted p."""
        return {} if self.baseline is None else compare_divergence(self.table, self.baseline)


def analyse(tables: Sequence[Table], view: View) -> list[AnalysedTable]:
    """Each table with its baseline, its rows in the order asked for."""
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
            verb = "stands" if len(labels) == 1 else "stand"
            sentences.append(
                f"{rows} {verb} in another table{suffix} than {view.baseline}: not held against it."
            )
        elif len(labels) == 1:
            sentences.insert(
                0, f"{labels[0]} is alone in its table{suffix}: nothing could be held against it."
            )
    return sentences


def _sorted(rows: Sequence[Row], by: str | None) -> list[Row]:
    """Rows without a value come last, whichever way round."""
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
    """One of COUNTS."""
    return {
        "n": row.n,
        "diverged": row.diverged,
        "unfinished": row.unfinished,
        "reached_target": row.reached,
    }[name]
