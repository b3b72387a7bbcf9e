"""Bisection of two configs: which of the keys in which they differ make one train and the other not.

Points of the lattice between the configs are trained with the same seeds. A point counts as healthy or sick
if its mean score is significantly nearer to that of the healthy or of the sick config.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import chain, combinations, pairwise

from initbench.analysis.metrics import METRICS, Metric
from initbench.analysis.run_summary import RunSummary
from initbench.analysis.stats.mean_difference import MeanDifference, compare_means
from initbench.analysis.stats.multiple_comparisons import holm
from initbench.analysis.stats.summary import Summary, summarise
from initbench.config.study import SkippedVariant, Study, SweepConfig, Variant
from initbench.errors import UsageError
from initbench.registry import unknown_name_message
from initbench.runner.plan import RunContext
from initbench.store.scores import MAIN_SCORES
from initbench.study.config_lattice import HEALTHY, SICK, ConfigLattice, Point
from initbench.study.run_study import SweepResult, Train, load_stored_study, run_study

CONFIDENCE = 0.95
MAX_FULL = 4
"""Largest number of changes for which all points of the lattice are trained."""
DEFAULT_MAX_RUNS = 400
_SCORE_METRIC = re.compile(r"(?:best|final|test)_(?:(train)_|val_)?(\w+)")
"""Metrics of a score that is also evaluated before the first update."""
_DEFAULT_METRICS = (*(f"test_{name}" for name in MAIN_SCORES), "test_loss", "final_val_loss")
HEALTHY_POINT: Point = frozenset()

Report = Callable[[Study[SweepConfig]], None]
"""Function that receives the points of each step before they are trained."""


class PointState(StrEnum):
    """Config that the results of a point are nearer to."""

    HEALTHY = "healthy"
    SICK = "sick"
    UNDECIDED = "undecided"
    """Too few seeds to tell."""


class Outcome(StrEnum):
    """Result of a bisection."""

    FOUND = "found"
    """Keys that make the difference are known."""
    NO_DIFFERENCE = "no difference"
    """The healthy and the sick config do not differ significantly."""
    UNDECIDED = "undecided"
    """The configs differ, and the trained points do not tell which keys are responsible."""


@dataclass(frozen=True)
class JudgedPoint:
    """A trained point and the config that it is nearer to."""

    point: Point
    scores: Summary
    """Scores of its runs; a diverged run has its score before the first update."""
    diverged: int
    test: MeanDifference
    """Difference from the middle between the two configs."""
    p: float | None
    """p-value of that difference; None without a test.

    It is Holm-adjusted over all points but the two configs, whose difference is tested first."""
    state: PointState


@dataclass(frozen=True)
class Effect:
    """Effect of a change on the score, or of two changes in addition to the sum of their effects.

    It is averaged over all values of the other changes.
    """

    changes: Point
    test: MeanDifference
    p: float | None
    """p-value, Holm-adjusted over all effects."""


def bisection_metric(name: str) -> Metric:
    """Return the metric of `--metric`; raise UsageError if points cannot be judged by it."""
    fitting = [
        metric.name
        for metric in METRICS.values()
        if metric.better is not None and not metric.censored and _SCORE_METRIC.fullmatch(metric.name)
    ]
    if name not in METRICS:
        raise UsageError(f"--metric: {unknown_name_message('metric', name, fitting)}")
    if name not in fitting:
        raise UsageError(f"--metric {name} cannot be used: choose a score or a loss, such as {fitting[0]}")
    return METRICS[name]


@dataclass(frozen=True)
class Bisection:
    """The trained points of a lattice, and what they say."""

    lattice: ConfigLattice
    result: SweepResult
    points: tuple[Point, ...]
    """The trained points; those that cannot be built are skipped in `result`."""
    metric: Metric
    stopped: str = ""
    """Reason why points are missing; empty if the search is complete."""

    @cached_property
    def judged(self) -> dict[Point, JudgedPoint]:
        """The points with their scores and states."""
        scores = {point: self._scores(point) for point in self.points}
        middle = {
            seed: (value + scores[self.lattice.everything][seed]) / 2.0
            for seed, value in scores[HEALTHY_POINT].items()
            if seed in scores[self.lattice.everything]
        }
        tests = {point: compare_means(scores[point], middle, paired=True) for point in self.points}
        inner = [point for point in self.points if point not in (HEALTHY_POINT, self.lattice.everything)]
        p_values = {point: test.p for point, test in tests.items()}
        p_values |= zip(inner, holm([tests[point].p for point in inner]), strict=True)
        return {
            point: JudgedPoint(
                point,
                summarise(list(scores[point].values())),
                sum(run.is_complete and not run.is_finished for run in self._runs(point)),
                test,
                p_values[point],
                self._state(test, p_values[point]),
            )
            for point, test in tests.items()
        }

    @property
    def is_swapped(self) -> bool:
        """Whether the config that is called sick is significantly better."""
        return self.judged[HEALTHY_POINT].state is PointState.SICK

    @property
    def outcome(self) -> Outcome:
        """Whether keys that make the difference are known."""
        if self.judged[HEALTHY_POINT].state is not PointState.HEALTHY:
            return Outcome.UNDECIDED if self.stopped else Outcome.NO_DIFFERENCE
        return Outcome.FOUND if self.breaking or self.curing else Outcome.UNDECIDED

    @property
    def breaking(self) -> list[Point]:
        """Sets of changes that make the healthy config sick, and of which every change is needed."""
        return [
            point
            for point in self._points_in(PointState.SICK)
            if all(self.is_state(point - {number}, PointState.HEALTHY) for number in point)
        ]

    @property
    def curing(self) -> list[Point]:
        """Sets of changes whose reversal makes the sick config healthy, and of which every one is needed."""
        everything = self.lattice.everything
        return [
            everything - point
            for point in self._points_in(PointState.HEALTHY)
            if all(self.is_state(point | {number}, PointState.SICK) for number in everything - point)
        ][::-1]

    def _points_in(self, state: PointState) -> list[Point]:
        """Return the points with a state, those with fewer changes first."""
        points = [point for point in self.points if self.is_state(point, state)]
        return sorted(points, key=lambda point: (len(point), sorted(point)))

    @cached_property
    def effects(self) -> list[Effect]:
        """Main effects and interactions of pairs; empty unless all points of the lattice are trained."""
        count = len(self.lattice.changes)
        if not 2 <= count <= MAX_FULL or len(self.points) < 2**count:
            return []
        scores = {point: self._scores(point) for point in self.points}
        seeds = [seed for seed in self.lattice.seeds if all(seed in values for values in scores.values())]
        numbers = range(count)
        factors = [frozenset(pair) for size in (1, 2) for pair in combinations(numbers, size)]
        tests = []
        for factor in factors:
            scale = 2.0 ** (count - len(factor))
            contrasts: dict[int, float | None] = {
                seed: math.fsum(
                    (-1.0) ** len(factor - point) * values[seed] for point, values in scores.items()
                )
                / scale
                for seed in seeds
            }
            tests.append(compare_means(contrasts, dict.fromkeys(seeds, 0.0), paired=True))
        p_values = holm([test.p for test in tests])
        return [Effect(factor, test, p) for factor, test, p in zip(factors, tests, p_values, strict=True)]

    def is_state(self, point: Point, state: PointState) -> bool:
        """Return whether a point has been trained and has a state."""
        return point in self.judged and self.judged[point].state is state

    def _state(self, test: MeanDifference, p: float | None) -> PointState:
        if p is None or test.difference is None or p >= 1.0 - CONFIDENCE:
            return PointState.UNDECIDED
        is_better = (test.difference > 0.0) == (self.metric.better == "higher")
        return PointState.HEALTHY if is_better else PointState.SICK

    def _runs(self, point: Point) -> list[RunSummary]:
        label = self.lattice.label(point)
        (variant,) = (each for each in self.result.variants if each.label == label)
        return self.result.runs(variant)

    def _scores(self, point: Point) -> dict[int, float]:
        values = {run.seed: run_score(run, self.metric) for run in self._runs(point) if run.is_complete}
        return {seed: value for seed, value in values.items() if value is not None}


def run_score(run: RunSummary, metric: Metric) -> float | None:
    """Return the metric of a finished run, and the same score before the first update of a diverged one.

    The result is None if the run has no finite score.
    """
    value = metric.value(run, None)
    if not run.is_finished:
        match = _SCORE_METRIC.fullmatch(metric.name)
        assert match is not None
        curve = run.curve(f"{match[1] or 'val'}_{match[2]}")
        value = next((score for step, score in curve if step == 0.0), None)
    return value if value is not None and math.isfinite(value) else None


def first_points(lattice: ConfigLattice) -> list[Point]:
    """Return the points that are trained in any case: all of a small lattice, or all single changes."""
    numbers = sorted(lattice.everything)
    if len(numbers) <= MAX_FULL:
        sets = chain.from_iterable(combinations(numbers, size) for size in range(len(numbers) + 1))
        return [frozenset(numbers) for numbers in sets]
    singles = [frozenset((number,)) for number in numbers]
    return [HEALTHY_POINT, lattice.everything, *singles, *(lattice.everything - single for single in singles)]


def make_study(lattice: ConfigLattice, points: Iterable[Point]) -> Study[SweepConfig]:
    """Return the points as a study; those that cannot be built are skipped."""
    variants = [lattice.variant(point) for point in points]
    config = SweepConfig.model_construct(kind="sweep", name=lattice.name, base={})
    return Study(
        config,
        tuple(variant for variant in variants if isinstance(variant, Variant)),
        skipped=tuple(variant for variant in variants if isinstance(variant, SkippedVariant)),
    )


@dataclass(frozen=True)
class SearchLimits:
    """Metric that points are judged by, and limit of the number of runs."""

    metric: Metric | None = None
    """None for the main score of the data set."""
    max_runs: int = DEFAULT_MAX_RUNS
    """Maximum number of runs, stored ones included."""


def bisect(
    lattice: ConfigLattice, context: RunContext, train: Train, limits: SearchLimits, report: Report
) -> Bisection:
    """Search the keys that make the difference between two configs.

    First the two configs are compared. Then all points of a lattice of up to MAX_FULL changes are trained, or
    the configs with every single change. If no change alone makes the healthy config sick, delta debugging
    (Zeller & Hildebrandt 2002, Simplifying and isolating failure-inducing input) reduces the changes to a set
    of which each is needed. It starts with the changes whose reversal cures the sick config, if they are
    enough to make the healthy one sick.

    Raises:
        UsageError: The sick config is the better one, or the runs do not have the metric.
    """
    return _Search(lattice, context, train, limits, report).search()


class _StopSearchError(Exception):
    """The search cannot go on, with the reason."""


class _Search:
    def __init__(
        self, lattice: ConfigLattice, context: RunContext, train: Train, limits: SearchLimits, report: Report
    ) -> None:
        self._lattice, self._context, self._train, self._limits = lattice, context, train, limits
        self._report = report
        self._points: list[Point] = []
        self._stopped = ""

    def search(self) -> Bisection:
        """Train points until the keys are found, or the search cannot go on."""
        try:
            self._find()
        except _StopSearchError as reason:
            self._stopped = str(reason)
        return self._bisection

    def _find(self) -> None:
        everything = self._lattice.everything
        bisection = self._extend([HEALTHY_POINT, everything])
        if bisection.is_swapped:
            raise UsageError(
                f"the second config is better than the first one ({bisection.metric.name}); name the"
                " healthy config first"
            )
        if bisection.outcome is Outcome.NO_DIFFERENCE:
            return
        bisection = self._extend(first_points(self._lattice))
        if len(everything) > MAX_FULL and not any(len(changes) == 1 for changes in bisection.breaking):
            needed = frozenset(chain.from_iterable(each for each in bisection.curing if len(each) == 1))
            self._reduce(needed if len(needed) > 1 and self._are_sick([needed])[0] else everything)

    def _reduce(self, sick: Point) -> None:
        """Train subsets of the changes of a sick point until each of the remaining ones is needed."""
        changes, parts = sorted(sick), 2
        while len(changes) > 1:
            chunks = [frozenset(chunk) for chunk in _split(changes, parts)]
            candidates = [*chunks, *(frozenset(changes) - chunk for chunk in chunks)]
            states = self._are_sick(candidates)
            smaller = [point for point, is_sick in zip(candidates, states, strict=True) if is_sick]
            if smaller:
                parts = 2 if smaller[0] in chunks else max(2, parts - 1)
                changes = sorted(smaller[0])
            elif parts < len(changes):
                parts = min(len(changes), 2 * parts)
            else:
                return

    def _are_sick(self, points: Sequence[Point]) -> list[bool]:
        bisection = self._extend(points)
        return [bisection.is_state(point, PointState.SICK) for point in points]

    def _extend(self, points: Iterable[Point]) -> Bisection:
        """Train the points that are not trained yet, and judge all points."""
        added = [point for point in dict.fromkeys(points) if point not in self._points]
        runs = len(self._lattice.seeds) * (len(self._points) + len(added))
        if self._points and runs > self._limits.max_runs:
            raise _StopSearchError(
                f"the next step needs {runs} runs in total, more than --max-runs {self._limits.max_runs}"
            )
        self._points += added
        if added:
            study = make_study(self._lattice, added)
            self._report(study)
            run_study(study, self._context, self._train)
        bisection = self._bisection
        if bisection.result.unfinished:
            raise _StopSearchError("not all runs have been trained; run the same command again to continue")
        return bisection

    @property
    def _bisection(self) -> Bisection:
        """The stored runs of all points, judged."""
        result = load_stored_study(make_study(self._lattice, self._points), self._context)
        built = {variant.label for variant in result.variants}
        points = tuple(point for point in self._points if self._lattice.label(point) in built)
        metric = self._limits.metric or _default_metric(
            [
                run
                for variant in result.variants
                if variant.label in (HEALTHY, SICK)
                for run in result.runs(variant)
                if run.is_finished
            ]
        )
        return Bisection(self._lattice, result, points, metric, self._stopped)


def _split(numbers: Sequence[int], parts: int) -> Iterator[Sequence[int]]:
    """Yield `parts` contiguous chunks of about equal length."""
    ends = [round(i * len(numbers) / parts) for i in range(parts + 1)]
    for begin, end in pairwise(ends):
        yield numbers[begin:end]


def _default_metric(finished: Sequence[RunSummary]) -> Metric:
    """Return the first default metric that all finished runs have."""
    for name in _DEFAULT_METRICS:
        if name in METRICS and all(METRICS[name].value(run, None) is not None for run in finished):
            return METRICS[name]
    raise UsageError("the runs have no score to compare; name a metric by --metric")
