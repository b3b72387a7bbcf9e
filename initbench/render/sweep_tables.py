"""Output of `initbench sweep`: the plan and the results, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from initbench.analysis.run_summary import RunSummary
from initbench.config.study import Sweep
from initbench.render import text
from initbench.render.compare.display_options import View
from initbench.render.compare.output import print_tables
from initbench.render.run_documents import compare_document
from initbench.render.terminal import print_uncut
from initbench.render.text_table import TextTable
from initbench.render.tuning_tables import tuning_table
from initbench.store.run_directory import COMPLETE
from initbench.study.forecast import Forecast
from initbench.study.run_study import RESUME_LIMITS, SweepResult, VariantResult

_SHOWN = 5
_GB = 1e9
SCHEMA = "initbench.sweep/1"


def print_result(console: Console, result: SweepResult, view: View) -> None:
    """Print the comparison of all points and the results of the tuning."""
    print_tables(console, result.tables, replace(view, aside=(*view.aside, *missing_runs_note(result))))
    if result.tunings:
        console.print()
        print_uncut(console, tuning_table(result.tunings))


def missing_runs_note(result: SweepResult) -> Iterator[str]:
    """Yield a note on the runs that are missing from the tables, if any."""
    if result.unfinished:
        yield (
            f"{text.plural(result.unfinished, 'run')} of the sweep"
            f" {_are(result.unfinished)} not trained yet; run the same command again to continue."
        )


def missing_runs_lines(result: SweepResult) -> list[str]:
    """Return a line with the points whose runs are missing or unfinished; no line if there are none."""
    if not result.unfinished:
        return []
    unfinished = [point for point in result.variants if _is_unfinished(result, point)]
    labels = ", ".join(point.label for point in unfinished[:_SHOWN])
    more = f" and {len(unfinished) - _SHOWN} more" if len(unfinished) > _SHOWN else ""
    return [f"{text.plural(result.unfinished, 'run')} missing or unfinished: {labels}{more}"]


def _is_unfinished(result: SweepResult, point: VariantResult) -> bool:
    run_ids = [*point.tuning_ids, *point.run_ids]
    return point.config is None or result.to_train(run_ids, RESUME_LIMITS) > 0


def print_plan(console: Console, result: SweepResult, summary: Sequence[str]) -> None:
    """Print a row for each point with its stored runs, then the lines of `summary`."""
    for piece in (*_plan(result), *(Text(line) for line in summary)):
        print_uncut(console, piece)


def _plan(result: SweepResult) -> Iterator[RenderableType]:
    tuned = result.study.tune is not None
    grid = TextTable(
        ["point", *(["tuning", "stored"] if tuned else []), "runs", "stored"], left_aligned=("point",)
    )
    for point in result.variants:
        cells = [str(len(point.tuning_ids)), str(_complete(result, point.tuning_ids))] if tuned else []
        runs, stored = len(point.variant.config.seed_list), _complete(result, point.run_ids)
        grid.add([point.label, *cells, str(runs), str(stored)], "dim" if stored == runs else None)
    yield grid.table()


def plan_lines(result: SweepResult, ahead: Forecast) -> Iterator[str]:
    """Yield sentences about the runs to train: number, time and memory."""
    yield ""
    what = f"{text.plural(len(result.variants), 'point')}, {text.plural(ahead.total, 'run')}"
    if ahead.missing:
        cohorts = text.plural(ahead.cohorts, "cohort")
        later = f", {ahead.later:,} left for later" if ahead.later else ""
        yield f"{what}: {ahead.stored:,} stored, {ahead.missing:,} to train in {cohorts}{later}"
        is_timed = ahead.missing > ahead.by_earlier
        how = f"estimated from {'a few updates' if is_timed else 'earlier runs of similar nets'}"
        workers = text.plural(ahead.workers, "worker")
        memory = f"{ahead.bytes / _GB:.1f} GB of memory each"
        yield f"about {text.format_duration(ahead.seconds)} with {workers}, {how}; {memory}"
    else:
        yield f"{what}: all stored"
    yield from skipped_points(result.study)


def skipped_points(sweep: Sweep) -> Iterator[str]:
    """Yield a line for each point that the sweep excludes, skips or shares, with the reason."""
    if sweep.excluded:
        yield f"{text.plural(sweep.excluded, 'point')} excluded"
    for label, other in list(sweep.same.items())[:_SHOWN]:
        yield f"{label} is the same experiment as {other}; it runs only once"
    if len(sweep.same) > _SHOWN:
        yield f"{text.plural(len(sweep.same) - _SHOWN, 'more point')} also repeat other points"
    for skipped in sweep.skipped:
        yield f"skipped {skipped.label}: {'; '.join(map(str, skipped.faults))}"


def failure_lines(failed: Sequence[RunSummary]) -> list[str]:
    """Return a line for each failed run with the last line of its error, then what to do."""
    lines = [f"{run.run_id} {run.status}: {_last(run.error)}" for run in failed]
    if any(run.status == "failed" for run in failed):
        lines.append("`initbench show RUN` prints the full traceback; --retry failed retrains them")
    return lines


def _complete(result: SweepResult, run_ids: Sequence[str]) -> int:
    return sum(result.status(run_id) in COMPLETE for run_id in run_ids)


def _last(error: str | None) -> str:
    lines = (error or "").strip().splitlines()
    return lines[-1] if lines else "its process died"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def sweep_document(result: SweepResult, view: View, more: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of a sweep, extended by the keys of `more`."""
    sweep = result.study
    return {
        "schema": SCHEMA,
        "sweep": sweep.name,
        "notes": sweep.config.notes,
        "points": [_point_document(result, point) for point in result.variants],
        "statuses": dict(sorted(result.statuses.items())),
        "unfinished": result.unfinished,
        "failures": failure_documents(result),
        "excluded": sweep.excluded,
        "same": dict(sweep.same),
        "skipped": skipped_documents(sweep),
        "comparison": compare_document(result.tables, view),
        **more,
    }


def _point_document(result: SweepResult, point: VariantResult) -> dict[str, Any]:
    record = point.as_record()
    return {
        "label": point.label,
        **record,
        "runs": run_documents(result, point.run_ids),
        "tuning_runs": run_documents(result, point.tuning_ids),
    }


def failure_documents(result: SweepResult) -> list[dict[str, Any]]:
    """Return the failed runs with their errors."""
    return [{"run_id": run.run_id, "status": run.status, "error": run.error} for run in result.failed]


def skipped_documents(sweep: Sweep) -> list[dict[str, Any]]:
    """Return the points that cannot be built, with the reasons."""
    return [
        {"label": skipped.label, "faults": [str(fault) for fault in skipped.faults]}
        for skipped in sweep.skipped
    ]


def run_documents(result: SweepResult, run_ids: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the ids of runs with their statuses."""
    return [{"run_id": run_id, "status": result.status(run_id)} for run_id in run_ids]
