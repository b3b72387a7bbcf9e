"""Run what a lesson lacks, and judge its claims."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from initbench.compare.rows import Table, one_table
from initbench.config.lesson import Arm, Lesson
from initbench.config.tuning import Tune, chosen_of
from initbench.errors import InitbenchError
from initbench.lesson.verdict import Judged, judged
from initbench.sweep.train import Get, Trained
from initbench.sweep.tune import Tuning, tune


@dataclass(frozen=True)
class ArmResult:
    """What came of one arm."""

    arm: Arm
    trained: Trained
    tuning: Tuning | None
    errors: tuple[Exception, ...]
    """What stopped runs that failed, those of the tuning included."""

    @property
    def name(self) -> str:
        """The arm's name."""
        return self.arm.name


@dataclass(frozen=True)
class Conducted:
    """A lesson with its runs and its verdicts."""

    lesson: Lesson
    arms: tuple[ArmResult, ...]
    table: Table
    """Its rows are the arms, in order."""
    claims: tuple[Judged, ...]

    @property
    def failures(self) -> list[str]:
        """A line for each error that ended runs."""
        return [
            f"{self.lesson.name}.{arm.name} failed: {type(error).__name__}: {error}"
            for arm in self.arms
            for error in arm.errors
        ]


@dataclass(frozen=True)
class Stock:
    """How many runs a lesson takes, and how many of them are there."""

    stored: int
    total: int

    @property
    def missing(self) -> int:
        """Runs that are to be trained."""
        return self.total - self.stored


def conduct(lesson: Lesson, get: Get) -> Conducted:
    """Get the runs of the arms, in order, and judge the claims on them.

    Raises as `get` does; a run that failed is an arm's error, and may leave claims undecided.
    """
    arms = tuple(_arm(arm, lesson.tune, get) for arm in lesson.arms)
    table = one_table({arm.name: arm.trained.facts for arm in arms})
    return Conducted(lesson, arms, table, tuple(judged(lesson.config.claims, table)))


def _arm(arm: Arm, wanted: Tune | None, get: Get) -> ArmResult:
    if wanted is None:
        done = get(arm.config)
        return ArmResult(arm, done, None, done.errors)
    tuning, errors = tune(arm.candidates, wanted.values, wanted.key, wanted.select, get)
    done = get(chosen_of(arm.config, arm.candidates[tuning.best]))
    return ArmResult(arm, done, tuning, (*errors, *done.errors))


def stock(lesson: Lesson, get: Get) -> Stock:
    """What is stored of a lesson; `get` reads and does not train.

    Which value a tuned arm is going to have is known once all of its tuning is there.
    """
    found, total = 0, 0
    for arm in lesson.arms:
        wanted = sum(len(candidate.seed_list) for candidate in arm.candidates)
        with suppress(InitbenchError):  # its data, or the runs it starts from, are not there: nor are its own
            tuned = sum(get(candidate).complete for candidate in arm.candidates)
            found += tuned
            if tuned == wanted:
                found += _arm(arm, lesson.tune, get).trained.complete
        total += wanted + len(arm.config.seed_list)
    return Stock(found, total)
