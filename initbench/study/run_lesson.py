"""Run the missing experiments of a lesson, and judge its claims."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from initbench.analysis.tables import Table, build_single_table
from initbench.config.lesson_schema import Arm, Lesson
from initbench.config.tuning_schema import Tune, apply_choice
from initbench.errors import InitbenchError
from initbench.study.claim_limits import ArmRecord
from initbench.study.results import ExperimentRuns, Get
from initbench.study.tuning import Tuning, evaluate_tuning
from initbench.study.verdicts import ClaimResult, evaluate_claims


@dataclass(frozen=True)
class ArmResult:
    """Result of one arm."""

    arm: Arm
    trained: ExperimentRuns
    tuning: Tuning | None
    errors: tuple[str, ...]
    """Errors that ended failed runs, including tuning runs."""

    @property
    def name(self) -> str:
        """The arm's name."""
        return self.arm.name


@dataclass(frozen=True)
class LessonResult:
    """A lesson with its runs and its verdicts."""

    lesson: Lesson
    arms: tuple[ArmResult, ...]
    table: Table
    """Comparison whose rows are the arms, in order."""
    claims: tuple[ClaimResult, ...]

    @property
    def failures(self) -> list[str]:
        """One line for each error that ended runs."""
        return [f"{self.lesson.name}.{arm.name} failed: {error}" for arm in self.arms for error in arm.errors]


@dataclass(frozen=True)
class RunCounts:
    """Number of runs that a lesson needs, and how many of them are stored."""

    stored: int
    total: int

    @property
    def missing(self) -> int:
        """Number of runs to train."""
        return self.total - self.stored


def run_lesson(lesson: Lesson, get: Get) -> LessonResult:
    """Get the runs of the arms, and judge the claims on them.

    Raises the errors of `get`. A failed run is an error of its arm, and may leave claims undecided.
    """
    arms = tuple(_run_arms(lesson.arms, lesson.tune, get))
    table = build_single_table({arm.name: arm.trained.facts for arm in arms})
    records = {arm.name: ArmRecord(arm.trained.facts, arm.tuning) for arm in arms}
    return LessonResult(
        lesson, arms, table, tuple(evaluate_claims(lesson.config.claims, table, arms=records))
    )


def _run_arms(arms: Sequence[Arm], to_tune: Tune | None, get: Get) -> Iterator[ArmResult]:
    """Yield the results of all arms, which are trained together, after tuning if `to_tune` is given."""
    if to_tune is None:
        for arm, runs in zip(arms, get([arm.config for arm in arms]), strict=True):
            yield ArmResult(arm, runs, None, runs.errors)
        return
    candidate_runs = iter(get([candidate for arm in arms for candidate in arm.candidates]))
    groups = [list(islice(candidate_runs, len(arm.candidates))) for arm in arms]
    tunings = [evaluate_tuning(group, to_tune.values, to_tune.key, to_tune.select) for group in groups]
    best = [
        apply_choice(arm.config, arm.candidates[tuning.best])
        for arm, tuning in zip(arms, tunings, strict=True)
    ]
    for arm, runs, tuning, group in zip(arms, get(best), tunings, groups, strict=True):
        errors = tuple(error for experiment in (*group, runs) for error in experiment.errors)
        yield ArmResult(arm, runs, tuning, errors)


def count_runs(lesson: Lesson, get: Get) -> RunCounts:
    """Count the stored runs of a lesson; `get` reads without training.

    The final runs of a tuned arm are counted once all its tuning runs are stored, which decide its value.
    """
    stored, total = 0, 0
    for arm in lesson.arms:
        tuning_runs = sum(len(candidate.seed_list) for candidate in arm.candidates)
        with suppress(InitbenchError):  # without its data or source runs, the arm has no runs
            stored_tuning_runs = sum(experiment.complete for experiment in get(arm.candidates))
            stored += stored_tuning_runs
            if stored_tuning_runs == tuning_runs:
                stored += sum(
                    experiment.trained.complete for experiment in _run_arms([arm], lesson.tune, get)
                )
        total += tuning_runs + len(arm.config.seed_list)
    return RunCounts(stored, total)
