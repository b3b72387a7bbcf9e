"""Tables of a comparison; a row is a group of runs with each metric summarised over its runs."""

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
from initbench.store.scores import MAIN_SCORES

DEFAULT_TARGET = 0.9
"""Default target of a table, as a share of its best mean validation accuracy or R²."""
_RANKED_BY = tuple(f"best_val_{name}" for name in MAIN_SCORES)


@dataclass(frozen=True)
class Row:
    """A group of runs with summarised metrics."""

    group: RunGroup
    n: int
    """Number of complete runs, including diverged ones."""
    diverged: int
    """Number of complete runs that diverged."""
    unfinished: int
    """Number of runs that are not complete."""
    metrics: dict[str, Summary]
    reached: int
    """Number of runs that reached the target of the table."""
    values: dict[str, dict[str, float]] = field(repr=False)
    """Values of the runs that have one, by metric and unit (see `pairing_keys`)."""
    divergences: dict[str, bool] = field(repr=False)
    """Whether each complete run diverged, by unit."""

    @property
    def key(self) -> Key:
        """Keys that make the row, with their values."""
        return self.group.key

    @property
    def label(self) -> str:
        """Label of the row."""
        return self.group.label


@dataclass(frozen=True)
class Table:
    """The rows with the same data, precision and budget."""

    conditions: TableConditions
    by: tuple[str, ...]
    """Keys that make the rows; empty if rows are experiments."""
    target: float | None
    """Target validation accuracy, or R², of `steps_to_target`; None if no run has one."""
    rows: list[Row]

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return self.conditions.dataset

    @property
    def fingerprint(self) -> str | None:
        """Hash of the data; None if the runs do not record it."""
        return self.conditions.fingerprint or None


def build_tables(
    runs: Iterable[RunSummary], *, by: Sequence[str] = (), target: float | None = None
) -> list[Table]:
    """Build one table for each data set, precision and budget; rows with the best accuracy come first.

    Args:
        runs: The runs.
        by: Keys of the config, or others such as `dataset` and `with.device`, whose values make the rows.
            Without any, experiments are rows; runs of one experiment with different config, code, torch or
            device are separate rows, labelled with the difference. Data conditions in which runs differ
            always make separate rows.
        target: Target validation accuracy in (0, 1]; DEFAULT_TARGET of the best mean accuracy if None.
    """
    return [
        _build_table(conditions, tuple(by), groups, target) for conditions, groups in group_runs(runs, by)
    ]


def build_single_table(rows: Mapping[str, Sequence[RunSummary]], *, target: float | None = None) -> Table:
    """Build one table with the runs of each name as a row, in this order, even if their conditions differ.

    Runs of different rows are paired by seed only if they saw the same batches.
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
    means = [summarise([_best_score(run) for run in group.runs]).mean for group in groups]
    best = max((mean for mean in means if mean is not None), default=None)
    return None if best is None or best <= 0.0 else DEFAULT_TARGET * best


def _best_score(run: RunSummary) -> float | None:
    return METRICS[f"best_{run.main_score}"].value(run, None)


def _rank_key(row: Row) -> tuple[float, float, str]:
    """Return the sort key: the best accuracy or R², then the validation loss, then the label."""
    mean = next((mean for name in _RANKED_BY if (mean := row.metrics[name].mean) is not None), None)
    loss = row.metrics["final_val_loss"].mean if mean is None else 0.0
    return (-mean if mean is not None else math.inf, math.inf if loss is None else loss, row.label)


def _build_row(group: RunGroup, target: float | None, varying: Sequence[str]) -> Row:
    complete = [run for run in group.runs if run.is_complete]
    units = pairing_keys(complete, varying)
    # One run after the other, as the numbers of only a few runs are unpacked at a time.
    by_run = [[metric.value(run, target) for metric in METRICS.values()] for run in complete]
    metrics, values = {}, {}
    for index, (name, metric) in enumerate(METRICS.items()):
        numbers = [row[index] for row in by_run]
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
    """Summarise the values that are not None.

    If the metric is censored and a value is missing (the run never reached the target), there is no mean.
    """
    if metric.censored and None in values:
        return Summary(None, None, len(values))
    return (summarise_geometric if metric.log else summarise)(values)
