"""Output of `initbench bisect`: the changes, the trained points and the verdict, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from initbench.analysis.stats.confidence_intervals import Interval
from initbench.analysis.stats.summary import Summary
from initbench.render import text
from initbench.render.compare.formatting import format_value, metric_heading
from initbench.render.sweep_tables import (
    failure_documents,
    plan_lines,
    print_plan,
    run_documents,
    skipped_documents,
    skipped_points,
)
from initbench.render.terminal import print_uncut
from initbench.render.text_table import TextTable
from initbench.store.run_directory import Record
from initbench.study.bisection import (
    CONFIDENCE,
    HEALTHY_POINT,
    MAX_FULL,
    Bisection,
    JudgedPoint,
    Outcome,
    PointState,
)
from initbench.study.config_lattice import HEALTHY, SICK, ConfigLattice, Point
from initbench.study.forecast import Forecast
from initbench.study.run_study import SweepResult

SCHEMA = "initbench.bisect/1"
_STYLES = {PointState.HEALTHY: None, PointState.SICK: "yellow", PointState.UNDECIDED: "dim"}


def print_bisection(console: Console, bisection: Bisection) -> None:
    """Print the changes, the points with their scores, the effects, and the verdict."""
    pieces: list[RenderableType] = [changes_table(bisection.lattice).table(), Text()]
    pieces.append(_points_table(bisection).table())
    pieces.append(Text(_LEGEND))
    if any(judged.diverged for judged in bisection.judged.values()):
        pieces.append(Text("A diverged run counts with its score before the first update."))
    if bisection.effects:
        pieces += [Text(), _effects_table(bisection).table()]
        pieces.append(Text(_EFFECTS_LEGEND))
    pieces.append(Text())
    pieces += [Text(line) for line in (*skipped_points(bisection.result.study), *verdict_lines(bisection))]
    for piece in pieces:
        print_uncut(console, piece)


_LEGEND = (
    "like: the config that the mean is significantly nearer to (paired t test against the middle, Holm);"
    " ±: std over seeds"
)

_EFFECTS_LEGEND = (
    "An effect is averaged over the values of the other keys. a × b: the effect of both in addition to the"
    " sum of their effects."
)


def changes_table(lattice: ConfigLattice) -> TextTable:
    """Return a table of the keys in which the configs differ."""
    grid = TextTable(["key", HEALTHY, SICK], ["key", HEALTHY, SICK])
    for change in lattice.changes:
        grid.add([change.key, *(_value_of(change.text(side), change.key) for side in (HEALTHY, SICK))])
    return grid


def _value_of(words: str, key: str) -> str:
    """Return the value in `key=value`; the whole text if it names another key."""
    return words.removeprefix(f"{key}=")


def _points_table(bisection: Bisection) -> TextTable:
    heading = metric_heading(bisection.metric, None)
    grid = TextTable(["config", "n", heading, "diverged", "like", "p"], ["config", "like"])
    for point in _in_order(bisection):
        judged = bisection.judged[point]
        grid.add(
            [
                bisection.lattice.label(point),
                str(judged.scores.n),
                _score(bisection, judged.scores),
                str(judged.diverged or ""),
                str(judged.state),
                _p(judged.p),
            ],
            _STYLES[judged.state],
        )
    return (
        grid if any(judged.diverged for judged in bisection.judged.values()) else grid.without(["diverged"])
    )


def _in_order(bisection: Bisection) -> list[Point]:
    """Return the points from healthy to sick, by the number of changes."""
    return sorted(bisection.points, key=lambda point: (len(point), sorted(point)))


def _effects_table(bisection: Bisection) -> TextTable:
    heading = f"effect, {metric_heading(bisection.metric, None)}"
    interval = f"{100 * CONFIDENCE:g} % interval"
    grid = TextTable(["change", heading, interval, "p"], ["change"])
    for effect in bisection.effects:
        changes = [bisection.lattice.changes[number] for number in sorted(effect.changes)]
        single = changes[0].text(SICK) if len(changes) == 1 else None
        ends = effect.test.interval
        grid.add(
            [
                single or " × ".join(change.key for change in changes),
                _signed(bisection, effect.test.difference),
                text.DASH
                if ends is None
                else f"[{_signed(bisection, ends.low)}, {_signed(bisection, ends.high)}]",
                _p(effect.p),
            ]
        )
    return grid


def verdict_lines(bisection: Bisection) -> Iterator[str]:
    """Yield sentences on what makes the difference, or why that is unknown."""
    ends = f"{_describe(bisection, HEALTHY_POINT)}, {_describe(bisection, bisection.lattice.everything)}"
    undecided = [
        bisection.lattice.label(point)
        for point in _in_order(bisection)
        if bisection.is_state(point, PointState.UNDECIDED)
    ]
    if bisection.outcome is Outcome.NO_DIFFERENCE:
        p = _p(bisection.judged[HEALTHY_POINT].p)
        yield f"No difference is shown between the two configs: {ends}, p = {p}."
        yield "Train more seeds (--seeds), or compare another score (--metric)."
    elif bisection.outcome is Outcome.FOUND:
        yield _headline(bisection)
        yield from _effects_of_sets(bisection)
    elif not bisection.stopped:
        yield f"The configs differ ({ends}), but the trained configs do not show which keys are responsible."
    if bisection.stopped:
        yield f"The search is not complete: {bisection.stopped}."
    elif undecided and bisection.outcome is not Outcome.NO_DIFFERENCE:
        yield f"Undecided, more seeds may tell (--seeds): {'; '.join(undecided)}."


def _headline(bisection: Bisection) -> str:
    breaking, curing = bisection.breaking, bisection.curing
    singles = [changes for changes in breaking if len(changes) == 1]
    if len(bisection.lattice.changes) == 1:
        return f"{_join_keys(bisection, singles[0])} makes the difference: no other key differs."
    if len(singles) == 1 and singles[0] in curing:
        return f"{_join_keys(bisection, singles[0])} alone makes the difference."
    if singles:
        keys = _join_keys(bisection, frozenset(chain.from_iterable(singles)))
        return f"{f'Each of {keys}' if len(singles) > 1 else keys} alone makes the healthy config sick."
    sets, effect = (breaking, "the healthy config sick") if breaking else (curing, "the sick config healthy")
    keys = _join_keys(bisection, sets[0])
    if len(sets[0]) == 1:
        return f"{keys} alone makes {effect}."
    return f"{keys} make {effect} together, and no part of them does."


def _join_keys(bisection: Bisection, changes: Point) -> str:
    return _join(_keys(bisection, changes))


def _effects_of_sets(bisection: Bisection) -> Iterator[str]:
    lattice = bisection.lattice
    for side, sets in ((SICK, bisection.breaking), (HEALTHY, bisection.curing)):
        for changes in sets:
            begin = HEALTHY_POINT if side == SICK else lattice.everything
            end = changes if side == SICK else lattice.everything - changes
            texts = [lattice.changes[number].text(side) for number in sorted(changes)]
            yield f"    {_describe(bisection, begin)}; with {_join(texts)} {_mean(bisection, end)}"


def _describe(bisection: Bisection, point: Point) -> str:
    return f"{bisection.lattice.label(point)} {_mean(bisection, point)}"


def _mean(bisection: Bisection, point: Point) -> str:
    judged = bisection.judged[point]
    diverged = f" ({judged.diverged} of {judged.scores.n} diverged)" if judged.diverged else ""
    unit = " %" if bisection.metric.form == "percent" else ""
    return f"{_score(bisection, judged.scores)}{unit}{diverged}"


def _score(bisection: Bisection, scores: Summary) -> str:
    mean = format_value(bisection.metric, scores.mean)
    return mean if scores.std is None else f"{mean} ±{format_value(bisection.metric, scores.std)}"


def _signed(bisection: Bisection, value: float | None) -> str:
    if value is None:
        return text.DASH
    return f"{'+' if value >= 0.0 else '−'}{format_value(bisection.metric, abs(value))}"


def _p(p: float | None) -> str:
    return text.DASH if p is None else f"{p:.2g}"


def _keys(bisection: Bisection, changes: Point) -> list[str]:
    return [bisection.lattice.changes[number].key for number in sorted(changes)]


def _join(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def print_bisection_plan(
    console: Console, lattice: ConfigLattice, result: SweepResult, ahead: Forecast
) -> None:
    """Print the changes, and the configs that are trained in any case, with the stored runs of each."""
    print_uncut(console, changes_table(lattice).table())
    console.print()
    lines = list(plan_lines(result, ahead))
    if len(lattice.changes) > MAX_FULL:
        lines.append("if no single key makes the difference, configs with several changed keys follow")
    print_plan(console, result, lines)


def plan_document(lattice: ConfigLattice, result: SweepResult) -> dict[str, Any]:
    """Return the configs that are trained in any case as plain data."""
    return {
        "schema": SCHEMA,
        "sweep": lattice.name,
        "dry_run": True,
        "seeds": list(lattice.seeds),
        "changes": _change_documents(lattice),
        "points": [
            {"label": point.label, "runs": run_documents(result, point.run_ids)} for point in result.variants
        ],
        "skipped": skipped_documents(result.study),
    }


def _change_documents(lattice: ConfigLattice) -> list[Record]:
    return [
        {"key": change.key, HEALTHY: change.given(HEALTHY), SICK: change.given(SICK)}
        for change in lattice.changes
    ]


def bisection_document(bisection: Bisection) -> dict[str, Any]:
    """Return a bisection as plain data."""
    lattice, result = bisection.lattice, bisection.result
    return {
        "schema": SCHEMA,
        "sweep": lattice.name,
        "metric": bisection.metric.name,
        "confidence": CONFIDENCE,
        "seeds": list(lattice.seeds),
        "dry_run": False,
        "changes": _change_documents(lattice),
        "outcome": str(bisection.outcome),
        "stopped": bisection.stopped or None,
        "breaking": [_keys(bisection, changes) for changes in bisection.breaking],
        "curing": [_keys(bisection, changes) for changes in bisection.curing],
        "points": [_point_document(bisection, bisection.judged[point]) for point in _in_order(bisection)],
        "effects": [
            {
                "keys": _keys(bisection, effect.changes),
                "effect": effect.test.difference,
                "ci": _ends(effect.test.interval),
                "p_adjusted": effect.p,
            }
            for effect in bisection.effects
        ],
        "verdict": list(verdict_lines(bisection)),
        "unfinished": result.unfinished,
        "failures": failure_documents(result),
        "skipped": skipped_documents(result.study),
    }


def _point_document(bisection: Bisection, judged: JudgedPoint) -> Record:
    label = bisection.lattice.label(judged.point)
    (variant,) = (each for each in bisection.result.variants if each.label == label)
    return {
        "label": label,
        "experiment": variant.variant.config.name,
        "changed": _keys(bisection, judged.point),
        "mean": judged.scores.mean,
        "std": judged.scores.std,
        "n": judged.scores.n,
        "diverged": judged.diverged,
        "like": str(judged.state),
        "from_middle": judged.test.difference,
        "ci": _ends(judged.test.interval),
        "p_adjusted": judged.p,
        "runs": run_documents(bisection.result, variant.run_ids),
    }


def _ends(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]
