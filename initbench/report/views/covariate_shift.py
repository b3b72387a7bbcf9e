"""Internal covariate shift: drift of the inputs of layers, and shift of their gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from initbench.analysis.stats.summary import summarise
from initbench.render.run_sections import mean_shift
from initbench.render.text import format_share, plural
from initbench.report.figure import ReportFigure, columns_of, rounded
from initbench.report.line_chart import LAYER_FIELD, STEP_FIELD, LineAxes, line_chart
from initbench.report.report_runs import ReportRow, ReportRuns
from initbench.store.store import StoredRun
from initbench.store.strict_json import parse_number_or_none

_DEPTH_COLUMNS = ("row", "layer", "value", "least", "most")
_STEP_COLUMNS = ("row", "step", "layer", "which", "value", "least", "most")
_MEAN_OF_LAYERS = "mean of the hidden layers except the first"


@dataclass(frozen=True)
class ShiftStatistic:
    """A statistic of the covariate shift of a layer."""

    key: str
    field: str
    """Key of a stored layer."""
    title: str
    axis: str
    meaning: str


STATISTICS = (
    ShiftStatistic(
        "input-drift",
        "input_mean_drift",
        "Drift of the input means",
        "drift, standard deviations",
        "Change of the means of a layer's inputs since the previous measured update, in their standard"
        " deviations",
    ),
    ShiftStatistic(
        "gradient",
        "gradient_shift",
        "Shift of the gradient",
        "‖G′ − G‖ / ‖G‖",
        "Change of a layer's gradient, from G to G′, when the layers before it make the same update first",
    ),
)


def covariate_shift_figures(report: ReportRuns) -> Iterator[ReportFigure]:
    """Yield each statistic against depth and against the step, if runs measured it."""
    for statistic in STATISTICS:
        for build, records_of in ((_depth_figure, _depth_records), (_step_figure, _step_records)):
            records = [record for row in report.rows for record in records_of(row, statistic)]
            if records:
                yield build(report, statistic, records)


def _measured(row: ReportRow) -> list[StoredRun]:
    return [run for run in row.runs if run.shifts]


def _depth_records(row: ReportRow, statistic: ShiftStatistic) -> Iterator[dict[str, Any]]:
    """Yield the mean over the measured updates of each layer."""
    runs = _measured(row)
    for position, layer in enumerate(runs[0].shifts[0]["layers"] if runs else []):
        by_run = [mean_shift([run], position, statistic.field) for run in runs]
        record = _summary(mean_shift(runs, position, statistic.field), by_run)
        if record:
            yield {"row": row.name, "layer": layer["index"], **record}


def _step_records(row: ReportRow, statistic: ShiftStatistic) -> Iterator[dict[str, Any]]:
    """Yield each layer, and the mean of the hidden layers except the first, at each measured update."""
    runs = _measured(row)
    if not runs:
        return
    by_run = [{entry["step"]: entry["layers"] for entry in run.shifts} for run in runs]
    layers = runs[0].shifts[0]["layers"]
    inner = [position for position, layer in enumerate(layers) if layer["hidden"]][1:]
    for step in sorted(set.intersection(*map(set, by_run))):
        for positions in (inner, *([position] for position in range(len(layers)))):
            values = [_mean_of(measured[step], positions, statistic.field) for measured in by_run]
            record = _summary(summarise(values).mean, values)
            if record:
                index = None if positions is inner else layers[positions[0]]["index"]
                which = _MEAN_OF_LAYERS if index is None else f"layer {index}"
                yield {"row": row.name, "step": step, "layer": index, "which": which, **record}


def _mean_of(layers: Sequence[dict[str, Any]], positions: Sequence[int], field: str) -> float | None:
    return summarise([parse_number_or_none(layers[position][field]) for position in positions]).mean


def _summary(mean: float | None, by_run: Sequence[float | None]) -> dict[str, float | None] | None:
    """Return mean, least and most of the runs; None if the mean is missing or not finite."""
    if mean is None or not math.isfinite(mean):
        return None
    values = [value for value in by_run if value is not None]
    has_range = len(values) > 1
    return {
        "value": rounded(mean),
        "least": rounded(min(values)) if has_range else None,
        "most": rounded(max(values)) if has_range else None,
    }


def _depth_figure(
    report: ReportRuns, statistic: ShiftStatistic, records: Sequence[dict[str, Any]]
) -> ReportFigure:
    updates = sorted({len(run.shifts) for row in report.rows for run in _measured(row)})
    count = plural(updates[0], "measured update") if len(updates) == 1 else "the measured updates"
    return ReportFigure(
        key=f"shift-{statistic.key}-depth",
        title=f"{statistic.title} against depth",
        takeaway=_takeaway(records, statistic, "layers after the first", lambda record: record["layer"] > 1),
        caption=f"{statistic.meaning} ({report.provenance}). Points are means over {count} and seeds, bars"
        " the smallest and largest seed. The input of the first layer is the data, which do not change.",
        columns=columns_of(records, _DEPTH_COLUMNS),
        spec=line_chart(
            report.rows,
            records,
            LineAxes("layer", statistic.axis, is_log=False),
            tooltip=[LAYER_FIELD],
        ),
    )


def _step_figure(
    report: ReportRuns, statistic: ShiftStatistic, records: Sequence[dict[str, Any]]
) -> ReportFigure:
    return ReportFigure(
        key=f"shift-{statistic.key}-step",
        title=f"{statistic.title} against updates",
        takeaway=_takeaway(records, statistic, "measured updates", lambda record: record["layer"] is None),
        caption=f"{statistic.meaning} ({report.provenance}). Lines are the {_MEAN_OF_LAYERS}."
        " Points are means over seeds, bars the smallest and largest seed.",
        columns=columns_of(records, _STEP_COLUMNS),
        spec=line_chart(
            report.rows,
            records,
            LineAxes("step", statistic.axis, is_log=True),
            transforms=[{"filter": "layer === null ? !isValid(datum.layer) : datum.layer === layer"}],
            tooltip=[{"field": "which", "title": "layer"}, STEP_FIELD],
        ),
        log_channels=("y",),
        hint="If a layer is selected, lines are the values of that layer.",
    )


def _takeaway(
    records: Sequence[dict[str, Any]],
    statistic: ShiftStatistic,
    over: str,
    counts: Callable[[dict[str, Any]], bool],
) -> str:
    """Return the smallest and the largest value of each row among the records that count."""
    words = []
    for name in list(dict.fromkeys(record["row"] for record in records))[:4]:
        values = [record["value"] for record in records if record["row"] == name and counts(record)]
        if values:
            words.append(f"{name}: {format_share(min(values))} to {format_share(max(values))}")
    return f"{statistic.title} over the {over}: {'; '.join(words)}."
