"""Run the missing experiments of a sweep or lesson, tune its variants, and judge the claims of a lesson."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Generic, TypeAlias

from initbench.analysis.load_runs import load_listed_summaries
from initbench.analysis.run_summary import RunSummary
from initbench.analysis.tables import Table, build_single_table, build_tables
from initbench.config.schema import ExperimentConfig
from initbench.config.study import C_co, LessonConfig, Study, SweepConfig, Variant
from initbench.errors import ConfigError, InitbenchError
from initbench.runner.pending import RunLimits
from initbench.runner.plan import ExperimentOutcome, RunContext, plan
from initbench.runner.runner import dependency_in
from initbench.store import sweep_index
from initbench.store.run_directory import COMPLETE, Record
from initbench.store.store import Store, StoredRun
from initbench.study.tuning import Tuning, apply_choice, evaluate_tuning
from initbench.study.verdicts import ArmRecord, ClaimResult, evaluate_claims

Train = Callable[[Sequence[ExperimentConfig]], Sequence[ExperimentOutcome]]
"""Function that trains missing runs within its limits; the results are in the store."""
ENDED = (*COMPLETE, "failed")
"""Statuses of runs that will not continue."""
MISSING = "missing"
"""Status of a run that is not stored."""
RESUME_LIMITS = RunLimits(keep_failed=True)
"""Limits of a plain repeated call of `sweep`."""


@dataclass(frozen=True)
class VariantResult:
    """A variant with its runs."""

    variant: Variant
    config: ExperimentConfig | None
    """The experiment as run; None until the tuned value is chosen and the runs it starts from exist."""
    run_ids: tuple[str, ...]
    tuning: Tuning | None = None
    tuning_ids: tuple[str, ...] = ()
    waiting: ExperimentConfig | None = None
    """Experiment to run whose ids are unknown until runs of another variant, from which it starts, exist."""
    errors: tuple[str, ...] = ()
    """Errors that ended runs in this call, including tuning runs."""

    @property
    def label(self) -> str:
        """Name of the variant in tables."""
        return self.variant.row

    def as_record(self) -> Record:
        """Return the record of the variant for the store."""
        return {
            "experiment": self.variant.config.name,
            "keys": dict(self.variant.keys),
            "runs": list(self.run_ids),
            "tuning_runs": list(self.tuning_ids),
            "tuning": None if self.tuning is None else self.tuning.as_data(),
        }


@dataclass(frozen=True)
class StudyResult(Generic[C_co]):
    """A study, or a part of one, with its stored runs."""

    study: Study[C_co]
    variants: tuple[VariantResult, ...]
    summaries: Mapping[str, RunSummary]
    """Summaries of the stored runs, by run id."""
    store: Store

    @property
    def run_ids(self) -> list[str]:
        """Ids of all runs of the study, tuning runs last."""
        run_ids = [run_id for variant in self.variants for run_id in variant.run_ids]
        return run_ids + [run_id for variant in self.variants for run_id in variant.tuning_ids]

    @property
    def tunings(self) -> list[tuple[str, Tuning]]:
        """Labels of the tuned variants, with the results of their tuning."""
        return [(variant.label, variant.tuning) for variant in self.variants if variant.tuning is not None]

    def status(self, run_id: str) -> str:
        """Return the status of one run."""
        return self.summaries[run_id].status if run_id in self.summaries else MISSING

    def runs(self, variant: VariantResult) -> list[RunSummary]:
        """Return the summaries of the stored runs of a variant, without tuning runs."""
        return [self.summaries[run_id] for run_id in variant.run_ids if run_id in self.summaries]

    def read_runs(self, variant: VariantResult) -> list[StoredRun]:
        """Read the stored runs of a variant in full; raises StoreError if one is damaged."""
        return [self.store.read(run.run_id) for run in self.runs(variant)]

    @cached_property
    def statuses(self) -> Counter[str]:
        """Number of runs with each status."""
        return Counter(self.status(run_id) for run_id in self.run_ids)

    @property
    def failed(self) -> list[RunSummary]:
        """Runs without a result because of an error: failed, crashed or damaged."""
        stored = [self.summaries[run_id] for run_id in self.run_ids if run_id in self.summaries]
        return [run for run in stored if run.status in ("failed", "crashed", "damaged")]

    @property
    def failures(self) -> list[str]:
        """One line for each error that ended runs in this call."""
        return [
            f"{self.study.name}.{variant.label} failed: {error}"
            for variant in self.variants
            for error in variant.errors
        ]

    @property
    def total(self) -> int:
        """Number of runs of all variants, including tuning runs."""
        return sum(len(config.seed_list) for variant in self.study.variants for config in variant.configs())

    @property
    def complete(self) -> int:
        """Number of runs with a result, including tuning runs."""
        return sum(self.statuses[status] for status in COMPLETE)

    @property
    def unfinished(self) -> int:
        """Number of unfinished runs."""
        return self.count_to_train(RESUME_LIMITS)

    def count_to_train(self, limits: RunLimits) -> int:
        """Count the runs to train, including those of variants whose tuning is unfinished."""
        waiting = sum(len(each.variant.config.seed_list) for each in self.variants if each.config is None)
        return waiting + self.to_train(self.run_ids, limits)

    def to_train(self, run_ids: Iterable[str], limits: RunLimits) -> int:
        """Count those of `run_ids` that are trained under `limits`."""
        return sum(limits.will_run(self.status(run_id)) for run_id in run_ids)

    @cached_property
    def tables(self) -> list[Table]:
        """Comparison tables of the runs; the rows are named after the variants."""
        return build_tables(
            replace(run, experiment=variant.label)
            for variant in self.variants
            for run in self.runs(variant)
            if run.is_placed
        )

    @cached_property
    def table(self) -> Table:
        """Comparison of all runs in one table, whose rows are the variants in order."""
        return build_single_table({variant.label: self.runs(variant) for variant in self.variants})

    @cached_property
    def claims(self) -> tuple[ClaimResult, ...]:
        """Claims of a lesson with their verdicts; empty for a sweep."""
        config = self.study.config
        if not isinstance(config, LessonConfig):
            return ()
        records = {each.label: ArmRecord(self.runs(each), each.tuning) for each in self.variants}
        return tuple(evaluate_claims(config.claims, self.table, arms=records))


SweepResult: TypeAlias = StudyResult[SweepConfig]
LessonResult: TypeAlias = StudyResult[LessonConfig]


def run_study(study: Study[C_co], context: RunContext, train: Train) -> StudyResult[C_co]:
    """Train the missing runs of a study; raises the errors of `train` and `plan`, but not for failed runs."""
    return _StudyRunner(study, context, train).run()


def load_stored_study(
    study: Study[C_co], context: RunContext, *, skip_unavailable: bool = False
) -> StudyResult[C_co]:
    """Read the stored runs of a study, without training and without recording a sweep.

    With `skip_unavailable`, experiments without their data or source runs have no runs; otherwise they
    raise the errors of `plan`.
    """
    return _StudyRunner(study, context, None, skip_unavailable=skip_unavailable).run()


class _StudyRunner(Generic[C_co]):
    def __init__(
        self, study: Study[C_co], context: RunContext, train: Train | None, *, skip_unavailable: bool = False
    ) -> None:
        self._study, self._context, self._train = study, context, train
        self._skip_unavailable = skip_unavailable
        self._is_sweep = isinstance(study.config, SweepConfig)
        self._summaries: dict[str, RunSummary] = {}
        self._errors: defaultdict[str, list[str]] = defaultdict(list)

    def run(self) -> StudyResult[C_co]:
        """Train all runs if a `train` function was given, and read the stored ones."""
        if self._study.tune is None:
            results = [self._with_run_ids(variant, variant.config) for variant in self._study.variants]
        else:
            results = self._tune_variants()
        self._record(results)
        self._train_missing(
            (result.variant, config)
            for result in results
            if (config := result.config or result.waiting) is not None
        )
        if any(result.waiting for result in results):
            results = [
                self._with_run_ids(result.variant, result.waiting, result) if result.waiting else result
                for result in results
            ]
            self._record(results)
        self._read(run_id for result in results for run_id in result.run_ids)
        variants = [replace(result, errors=tuple(self._errors[result.variant.label])) for result in results]
        return StudyResult(self._study, tuple(variants), self._summaries, self._context.store)

    def _tune_variants(self) -> list[VariantResult]:
        """Train the candidates and return the variants with their chosen values."""
        variants = self._study.variants
        ids = {each.label: [self._ids(candidate) for candidate in each.candidates] for each in variants}
        self._record([VariantResult(each, None, (), None, _flatten(ids[each.label])) for each in variants])
        self._train_missing((each, candidate) for each in variants for candidate in each.candidates)
        self._read(run_id for groups in ids.values() for group in groups for run_id in group)
        return [self._choose(each, ids[each.label]) for each in variants]

    def _choose(self, variant: Variant, ids: Sequence[Sequence[str]]) -> VariantResult:
        tune = self._study.tune
        assert tune is not None
        flat = _flatten(ids)
        is_planned = all(ids)  # without data, a candidate has no ids
        # A lesson trains failed runs again, which may change the choice.
        final = ENDED if self._is_sweep or self._train is not None else COMPLETE
        if not is_planned or any(self._status(run_id) not in final for run_id in flat):
            return VariantResult(variant, None, (), None, flat)
        tuning = evaluate_tuning(tune, [[self._summaries[run_id] for run_id in group] for group in ids])
        tuned = VariantResult(variant, None, (), tuning, flat)
        return self._with_run_ids(
            variant, apply_choice(variant.config, variant.candidates[tuning.best]), tuned
        )

    def _with_run_ids(
        self, variant: Variant, config: ExperimentConfig, previous: VariantResult | None = None
    ) -> VariantResult:
        """Return the variant with its run ids, or without them if other variants must be trained first."""
        previous = previous or VariantResult(variant, None, ())
        try:
            return replace(previous, config=config, run_ids=self._ids(config), waiting=None)
        except ConfigError:
            if dependency_in(config, {other.config.name for other in self._study.variants}) is None:
                raise
            return replace(previous, waiting=config)

    def _ids(self, config: ExperimentConfig) -> tuple[str, ...]:
        try:
            return tuple(plan(config, self._context).run_ids.values())
        except InitbenchError:
            if self._skip_unavailable:
                return ()
            raise

    def _train_missing(self, experiments: Iterable[tuple[Variant, ExperimentConfig]]) -> None:
        pairs = list(experiments)
        if self._train is None or not pairs:
            return
        outcomes = self._train([config for _, config in pairs])
        for (variant, _), outcome in zip(pairs, outcomes, strict=True):
            self._errors[variant.label] += outcome.errors

    def _status(self, run_id: str) -> str:
        return self._summaries[run_id].status if run_id in self._summaries else MISSING

    def _read(self, run_ids: Iterable[str]) -> None:
        runs = load_listed_summaries(self._context.store, run_ids)
        self._summaries |= {run.run_id: run for run in runs}

    def _record(self, results: Sequence[VariantResult]) -> None:
        """Record the points of a sweep before training, so that running ones can be found."""
        if self._train is not None and results and self._is_sweep:
            records = {result.label: result.as_record() for result in results}
            sweep_index.add_points(self._context.store.root, self._study.name, records)


def _flatten(groups: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(run_id for group in groups for run_id in group)
