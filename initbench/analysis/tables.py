"""Rows of a comparison: groups of runs, each metric summarised over its runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from initbench.analysis.grouping import (
    Key,
    RunGroup,
    TableConditions,
    group_runs,
    pairing_keys,
    shared_conditions,
)
from initbench.analysis.metrics import METRICS, Metric, steps_to
from initbench.analysis.run_summary import RunSummary
from initbench.analysis.stats.summary import Summary, summarise, summarise_geometric

DEFAULT_TARGET = 0.9
"""Share of the best mean validation accuracy in a table that is its target."""


@dataclass(frozen=True)
class Row:
    """A group of runs, summarised."""

    group: RunGroup
    n: int
    """Complete runs, the diverged ones included."""
    diverged: int
    unfinished: int
    metrics: dict[str, Summary]
    reached: int
    """Runs that reached the table's target."""
    values: dict[str, dict[str, float]] = field(repr=False)
    """By metric, the numbers of the runs that have one, by what a run shares with its partners elsewhere."""
    divergences: dict[str, bool] = field(repr=False)
    """Whether each complete run diverged, likewise."""

    @property
    def key(self) -> Key:
        """What the runs have in common."""
        return self.group.key

    @property
    def label(self) -> str:
        """The row in words."""
        return self.group.label


@dataclass(frozen=True)
class Table:
    """All rows on the same terms."""

    conditions: TableConditions
    by: tuple[str, ...]
    """The keys that make the rows; none for experiments."""
    target: float | None
    """Validation accuracy that `steps_to_target` counts to."""
    rows: list[Row]

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return self.conditions.dataset

    @property
    def fingerprint(self) -> str | None:
        """Hash of the data; None where the runs do not say it."""
        return self.conditions.fingerprint or None


def build_tables(
    runs: Iterable[RunSummary], *, by: Sequence[str] = (), target: float | None = None
) -> list[Table]:
    """One table for each data set, precision and budget, rows with the best accuracy first.

    `by`: keys of the config, or `dataset`, `with.device` and the like, whose values make the rows. Without
    any, experiments do, and runs of one name whose config, code, torch or device differ are rows of their
    own, named by what differs. Data conditions in which runs differ make rows as well, asked for or not.
    `target` is a validation accuracy in (0, 1].
    """
    return [
        _build_table(conditions, tuple(by), groups, target) for conditions, groups in group_runs(runs, by)
    ]


def build_single_table(rows: Mapping[str, Sequence[RunSummary]], *, target: float | None = None) -> Table:
    """The runs of each name as a row of one table, in this order, whatever sets them apart.

    Whoever calls it has put them side by side on purpose; where runs saw other batches, they are no partners.
    """
    groups = [RunGroup({"experiment": name}, runs, {}) for name, runs in rows.items()]
    runs = [run for group in groups for run in group.runs]
    if target is None:
        target = _default_target(groups)
    return Table(shared_conditions(runs), (), target, [_build_row(group, target, ()) for group in groups])


def _build_table(
    conditions: TableConditions, by: tuple[str, ...], groups: Sequence[RunGroup], target: float | None
) -> Table:
    if target is None:
        target = _default_target(groups)
    varying = sorted({key for group in groups for key in group.varies})
    rows = [_build_row(group, target, varying) for group in groups]
    return Table(conditions, by, target, sorted(rows, key=_rank_key))


def _default_target(groups: Sequence[RunGroup]) -> float | None:
    best_of = METRICS["best_val_accuracy"].value
    means = [summarise([best_of(run, None) for run in group.runs]).mean for group in groups]
    best = max((mean for mean in means if mean is not None), default=None)
    return None if best is None else DEFAULT_TARGET * best


def _rank_key(row: Row) -> tuple[float, str]:
    mean = row.metrics["best_val_accuracy"].mean
    return (-mean if mean is not None else math.inf, row.label)


def _build_row(group: RunGroup, target: float | None, varying: Sequence[str]) -> Row:
    complete = [run for run in group.runs if run.is_complete]
    units = pairing_keys(complete, varying)
    metrics, values = {}, {}
    for name, metric in METRICS.items():
        numbers = [metric.value(run, target) for run in complete]
        metrics[name] = summarise_metric(metric, numbers)
        values[name] = {unit: value for unit, value in zip(units, numbers, strict=True) if value is not None}
    return Row(
        group=group,
        n=len(complete),
        diverged=sum(not run.is_finished for run in complete),
        unfinished=len(group.runs) - len(complete),
        metrics=metrics,
        reached=sum(steps_to(run, target) is not None for run in complete),
        values=values,
        divergences={unit: not run.is_finished for unit, run in zip(units, complete, strict=True)},
    )


def summarise_metric(metric: Metric, values: Sequence[float | None]) -> Summary:
    """Over the values that are there; where a missing one stands for "never", there is no mean."""
    if metric.censored and None in values:
        return Summary(None, None, len(values))
    return (summarise_geometric if metric.log else summarise)(values)
