"""Run what a lesson lacks, and judge its claims."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from initbench.analysis.tables import Table, one_table
from initbench.config.lesson_schema import Arm, Lesson
from initbench.config.tuning_schema import Tune, apply_choice
from initbench.errors import InitbenchError
from initbench.study.claim_limits import ArmRecord
from initbench.study.results import ExperimentRuns, Get
from initbench.study.tuning import Tuning, tune
from initbench.study.verdicts import ClaimResult, judged


@dataclass(frozen=True)
class ArmResult:
    """What came of one arm."""

    arm: Arm
    trained: ExperimentRuns
    tuning: Tuning | None
    errors: tuple[str, ...]
    """What stopped runs that failed, those of the tuning included."""

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
    """Its rows are the arms, in order."""
    claims: tuple[ClaimResult, ...]

    @property
    def failures(self) -> list[str]:
        """A line for each error that ended runs."""
        return [f"{self.lesson.name}.{arm.name} failed: {error}" for arm in self.arms for error in arm.errors]


@dataclass(frozen=True)
class RunCounts:
    """How many runs a lesson takes, and how many of them are there."""

    stored: int
    total: int

    @property
    def missing(self) -> int:
        """Runs that are to be trained."""
        return self.total - self.stored


def run_lesson(lesson: Lesson, get: Get) -> LessonResult:
    """Get the runs of the arms, and judge the claims on them.

    Raises as `get` does; a run that failed is an arm's error, and may leave claims undecided.
    """
    arms = tuple(_arms(lesson.arms, lesson.tune, get))
    table = one_table({arm.name: arm.trained.facts for arm in arms})
    records = {arm.name: ArmRecord(arm.trained.facts, arm.tuning) for arm in arms}
    return LessonResult(lesson, arms, table, tuple(judged(lesson.config.claims, table, arms=records)))


def _arms(arms: Sequence[Arm], wanted: Tune | None, get: Get) -> Iterator[ArmResult]:
    """All arms at once, since they are trained side by side; where one is tuned, all are tuned first."""
    if wanted is None:
        for arm, done in zip(arms, get([arm.config for arm in arms]), strict=True):
            yield ArmResult(arm, done, None, done.errors)
        return
    tried = iter(get([candidate for arm in arms for candidate in arm.candidates]))
    groups = [list(islice(tried, len(arm.candidates))) for arm in arms]
    tunings = [tune(group, wanted.values, wanted.key, wanted.select) for group in groups]
    best = [
        apply_choice(arm.config, arm.candidates[tuning.best])
        for arm, tuning in zip(arms, tunings, strict=True)
    ]
    for arm, done, tuning, group in zip(arms, get(best), tunings, groups, strict=True):
        errors = tuple(error for one in (*group, done) for error in one.errors)
        yield ArmResult(arm, done, tuning, errors)


def count_runs(lesson: Lesson, get: Get) -> RunCounts:
    """What is stored of a lesson; `get` reads and does not train.

    Which value a tuned arm is going to have is known once all of its tuning is there.
    """
    found, total = 0, 0
    for arm in lesson.arms:
        wanted = sum(len(candidate.seed_list) for candidate in arm.candidates)
        with suppress(InitbenchError):  # its data, or the runs it starts from, are not there: nor are its own
            tuned = sum(one.complete for one in get(arm.candidates))
            found += tuned
            if tuned == wanted:
                found += sum(one.trained.complete for one in _arms([arm], lesson.tune, get))
        total += wanted + len(arm.config.seed_list)
    return RunCounts(found, total)
