"""Run the missing experiments of a sweep, tune its points, and record which runs belong to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from initbench.analysis.load_runs import load_run_summaries
from initbench.analysis.metrics import METRICS
from initbench.analysis.run_summary import RunSummary
from initbench.analysis.tables import Table, build_tables
from initbench.config.schema import ExperimentConfig
from initbench.config.sweep_schema import Point, Sweep
from initbench.config.tuning_schema import apply_choice
from initbench.errors import ConfigError
from initbench.runner.pending import RunLimits
from initbench.runner.plan import RunContext, plan
from initbench.runner.runner import dependency_in
from initbench.store import sweep_index
from initbench.store.run_directory import COMPLETE, Record
from initbench.study.tuning import Tuning, choose_best, score_trial

Drive = Callable[[Sequence[ExperimentConfig]], object]
"""Function that trains missing runs within its limits; the results are in the store."""
ENDED = (*COMPLETE, "failed")
"""Statuses of runs that will not continue."""
MISSING = "missing"
"""Status of a run that is not stored."""
RESUME_LIMITS = RunLimits(keep_failed=True)
"""Limits of a plain repeated call."""


@dataclass(frozen=True)
class PointResult:
    """A point with its runs."""

    point: Point
    config: ExperimentConfig | None
    """The experiment as run; None until the tuned value is chosen and the runs it starts from exist."""
    run_ids: tuple[str, ...]
    tuning: Tuning | None = None
    tuning_ids: tuple[str, ...] = ()
    waiting: ExperimentConfig | None = None
    """Experiment to run whose ids are unknown until runs of another point, from which it starts, exist."""

    @property
    def label(self) -> str:
        """Label of the point, or the name of its experiment if it has none."""
        return self.point.label or self.point.config.name

    def as_record(self) -> Record:
        """Return the record of the point for the store."""
        return {
            "experiment": self.point.config.name,
            "keys": dict(self.point.keys),
            "runs": list(self.run_ids),
            "tuning_runs": list(self.tuning_ids),
            "tuning": None if self.tuning is None else self.tuning.as_data(),
        }


@dataclass(frozen=True)
class SweepResult:
    """A sweep, or a part of one, with its stored runs."""

    sweep: Sweep
    points: tuple[PointResult, ...]
    facts: Mapping[str, RunSummary]
    """Summaries of the stored runs, by run id."""

    @property
    def run_ids(self) -> list[str]:
        """Ids of all runs of the sweep, tuning runs last."""
        point_ids = [run_id for point in self.points for run_id in point.run_ids]
        return point_ids + [run_id for point in self.points for run_id in point.tuning_ids]

    def status(self, run_id: str) -> str:
        """Return the status of one run."""
        return self.facts[run_id].status if run_id in self.facts else MISSING

    @cached_property
    def statuses(self) -> Counter[str]:
        """Number of runs with each status."""
        return Counter(self.status(run_id) for run_id in self.run_ids)

    @property
    def failed(self) -> list[RunSummary]:
        """Runs without a result because of an error: failed, crashed or damaged."""
        summaries = (self.facts.get(run_id) for run_id in self.run_ids)
        return [
            run for run in summaries if run is not None and run.status in ("failed", "crashed", "damaged")
        ]

    @property
    def total(self) -> int:
        """Number of runs of all points, including tuning runs."""
        return sum(len(point.tuning_ids) + len(point.point.config.seed_list) for point in self.points)

    @property
    def unfinished(self) -> int:
        """Number of unfinished runs."""
        return self.count_to_train(RESUME_LIMITS)

    def count_to_train(self, limits: RunLimits) -> int:
        """Count the runs to train, including those of points whose tuning is unfinished."""
        waiting = sum(len(point.point.config.seed_list) for point in self.points if point.config is None)
        return waiting + self.to_train(self.run_ids, limits)

    def to_train(self, run_ids: Iterable[str], limits: RunLimits) -> int:
        """Count those of `run_ids` that are trained under `limits`."""
        return sum(limits.will_run(self.status(run_id)) for run_id in run_ids)

    @cached_property
    def tables(self) -> list[Table]:
        """Comparison tables of the runs; the rows are named after the points."""
        runs = [
            replace(self.facts[run_id], experiment=point.label)
            for point in self.points
            for run_id in point.run_ids
            if run_id in self.facts and self.facts[run_id].is_placed
        ]
        return build_tables(runs)


def run_sweep(sweep: Sweep, context: RunContext, drive: Drive) -> SweepResult:
    """Train the missing runs of a sweep; raises the errors of `drive` and `plan`, but not for failed runs."""
    return _SweepRunner(sweep, context, drive).run()


def load_stored_sweep(sweep: Sweep, context: RunContext) -> SweepResult:
    """Read the stored runs of a sweep, without training and without recording the sweep."""
    return _SweepRunner(sweep, context, None).run()


class _SweepRunner:
    def __init__(self, sweep: Sweep, context: RunContext, drive: Drive | None) -> None:
        self._sweep, self._workplace, self._drive = sweep, context, drive
        self._facts: dict[str, RunSummary] = {}

    def run(self) -> SweepResult:
        """Train all runs if a `drive` function was given, and read the stored ones."""
        if self._sweep.tune is None:
            results = [self._with_run_ids(point, point.config) for point in self._sweep.points]
        else:
            results = self._tune_points()
        self._record_points(results)
        self._train([config for result in results if (config := result.config or result.waiting) is not None])
        if any(result.waiting for result in results):
            results = [
                self._with_run_ids(result.point, result.waiting, result) if result.waiting else result
                for result in results
            ]
            self._record_points(results)
        self._read(run_id for result in results for run_id in result.run_ids)
        return SweepResult(self._sweep, tuple(results), self._facts)

    def _tune_points(self) -> list[PointResult]:
        """Train the candidates and return the points with their chosen values."""
        points = self._sweep.points
        ids = {point.label: [self._ids(candidate) for candidate in point.candidates] for point in points}
        self._record_points(
            [PointResult(point, None, (), None, _flatten(ids[point.label])) for point in points]
        )
        self._train([candidate for point in points for candidate in point.candidates])
        self._read(run_id for groups in ids.values() for group in groups for run_id in group)
        return [self._choose(point, ids[point.label]) for point in points]

    def _choose(self, point: Point, ids: Sequence[Sequence[str]]) -> PointResult:
        tune = self._sweep.tune
        assert tune is not None
        flat = _flatten(ids)
        if any(run_id not in self._facts or self._facts[run_id].status not in ENDED for run_id in flat):
            return PointResult(point, None, (), None, flat)
        metric = METRICS[tune.select]
        runs = [[self._facts[run_id] for run_id in group] for group in ids]
        trials = [score_trial(value, group, metric) for value, group in zip(tune.values, runs, strict=True)]
        tuning = choose_best(tune.key, metric, trials)
        tuned = PointResult(point, None, (), tuning, flat)
        return self._with_run_ids(point, apply_choice(point.config, point.candidates[tuning.best]), tuned)

    def _with_run_ids(
        self, point: Point, config: ExperimentConfig, previous: PointResult | None = None
    ) -> PointResult:
        """Return the point with its run ids, or without them if other points must be trained first."""
        previous = previous or PointResult(point, None, ())
        try:
            return replace(previous, config=config, run_ids=self._ids(config), waiting=None)
        except ConfigError:
            if dependency_in(config, {other.config.name for other in self._sweep.points}) is None:
                raise
            return replace(previous, waiting=config)

    def _ids(self, config: ExperimentConfig) -> tuple[str, ...]:
        return tuple(plan(config, self._workplace).run_ids.values())

    def _train(self, configs: Sequence[ExperimentConfig]) -> None:
        if self._drive is not None and configs:
            self._drive(configs)

    def _read(self, run_ids: Iterable[str]) -> None:
        store = self._workplace.store
        stored = {record["run_id"] for record in store.records()}
        present = [run_id for run_id in run_ids if run_id in stored]
        if present:
            self._facts |= {run.run_id: run for run in load_run_summaries(store, present)}

    def _record_points(self, results: Sequence[PointResult]) -> None:
        """Record the points before training, so that running ones can be found."""
        if self._drive is not None and results:
            records = {result.label: result.as_record() for result in results}
            sweep_index.add_points(self._workplace.store.root, self._sweep.name, records)


def _flatten(groups: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(run_id for group in groups for run_id in group)
