"""Tables with one line per row: the overview, the convergence view and requested columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from initbench.analysis.config_keys import distinct_values
from initbench.analysis.metrics import METRICS
from initbench.analysis.tables import Row
from initbench.render import text
from initbench.render.compare import formatting, notes
from initbench.render.compare.analysed_table import AnalysedTable, run_count
from initbench.render.compare.display_options import COUNTS, View
from initbench.render.compare.table import ComparisonTable, TableCell
from initbench.store.scores import TOP_K

OVERVIEW = ("best_val_accuracy", "final_val_accuracy", "test_accuracy", "steps_to_target")
CONVERGENCE = (
    "final_train_loss",
    "final_val_loss",
    "best_val_accuracy",
    "final_val_accuracy",
    "test_accuracy",
    "steps_to_target",
    "seconds_to_target",
    "area_under_curve",
)

PRETRAINING = (
    "pretrain_seconds",
    "pretrain_samples",
    "total_seconds_to_target",
    "total_samples_to_target",
)
"""Additional columns if any network was pre-trained layer by layer."""
SCORES = (
    "best_val_r2",
    "final_val_r2",
    "test_r2",
    "test_mse",
    *(f"test_top{k}_accuracy" for k in TOP_K),
    "test_perplexity",
    "test_mean_iou",
    "test_iou",
    "test_f1",
    "test_loss",
)
"""Additional columns for the targets that have these scores."""
BY_NORMS = ("final_val_accuracy_batch", "final_val_accuracy_population")
"""Additional columns if any network has batch norm."""


@dataclass(frozen=True)
class _Column:
    heading: str
    cell: Callable[[Row], TableCell | str]
    metric: str | None = None
    is_text: bool = False


def metrics_of(view: View) -> list[str]:
    """Return the metrics of a view: the requested ones, otherwise those of its columns."""
    if view.metrics:
        return list(dict.fromkeys(view.metrics))
    if view.columns:
        return [name for name in dict.fromkeys(view.columns) if name in METRICS]
    if view.view == "all":
        return [*OVERVIEW, *SCORES]
    return [name for name, metric in METRICS.items() if metric.view == view.view]


def overview_table(judged: AnalysedTable, view: View, title: str) -> ComparisonTable:
    """Return the table of the overview, of the convergence view, or of the requested columns."""
    columns = _columns(judged, view)
    rows = judged.rows
    block = ComparisonTable(
        title,
        [_label(judged), *(column.heading for column in columns)],
        frozenset([_label(judged), *(c.heading for c in columns if c.is_text)]),
    )
    for row in rows:
        block.add(text.one_line(row.label), *(column.cell(row) for column in columns))
    metric_names = [column.metric for column in columns if column.metric is not None]
    # The overview shows the gradient ratio, but not as one of its metrics.
    geometric = (not view.columns and view.view == "all") or any(METRICS[name].log for name in metric_names)
    block.notes = [notes.spread_note(geometric=geometric), *notes.letters_note(judged, metric_names)]
    block.warnings = notes.row_warnings(judged)
    block.summary = notes.short_note("±: std over seeds", notes.letters_phrase(judged, metric_names))
    return block


def _label(judged: AnalysedTable) -> str:
    return "row" if judged.table.by else "experiment"


def _columns(judged: AnalysedTable, view: View) -> list[_Column]:
    if view.columns:
        return [_requested_column(judged, name) for name in dict.fromkeys(view.columns)]
    counted = [_run_counts("n")]
    if view.view == "convergence":
        measured = [name for name in BY_NORMS if any(row.metrics[name].n for row in judged.rows)]
        if any(row.metrics["pretrain_samples"].n for row in judged.rows):
            measured += PRETRAINING
        names = [*with_scores(CONVERGENCE, judged.rows), *measured]
        columns = [*counted, *(_metric(judged, name) for name in names)]
    else:
        names = with_scores(OVERVIEW, judged.rows)
        columns = [*counted, *_activations(), *(_metric(judged, name) for name in names)]
    columns.append(_Column("diverged", lambda row: f"{row.diverged} of {row.n}" if row.diverged else ""))
    if any(row.unfinished for row in judged.rows):
        columns.append(_Column("unfinished", lambda row: str(row.unfinished) if row.unfinished else ""))
    return columns


def with_scores(names: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Return names of metrics for these rows: SCORES that a row has are added.

    If there are any, metrics without a value are omitted.
    """
    added = [name for name in SCORES if any(row.metrics[name].n for row in rows)]
    if not added:
        return list(names)
    return [name for name in (*names, *added) if any(row.metrics[name].n for row in rows)]


def _activations() -> list[_Column]:
    ratio = METRICS["grad_ratio_init"]
    return [
        _Column(
            "act std at init, first / middle / last",
            lambda row: formatting.first_middle_last(row, "act_std_init"),
        ),
        _Column(
            "E[δ²] first/last",
            lambda row: formatting.format_value(ratio, row.metrics["grad_ratio_init"].mean),
        ),
    ]


def _run_counts(name: str) -> _Column:
    return _Column(name.replace("_", " "), lambda row: str(run_count(row, name)))


def _metric(judged: AnalysedTable, name: str) -> _Column:
    metric = METRICS[name]
    title = formatting.metric_heading(metric, judged.table.target)
    return _Column(title, lambda row: formatting.lettered_cell(judged, metric, row), name)


def _requested_column(judged: AnalysedTable, name: str) -> _Column:
    if name in COUNTS:
        return _run_counts(name)
    if name in METRICS:
        return _metric(judged, name)

    def cell(row: Row) -> str:
        return text.one_line(
            ", ".join(
                formatting.format_config_value(value) for value in distinct_values(name, row.group.runs)
            )
        )

    return _Column(name, cell, is_text=True)


_STATISTICS = {
    "std": "act_std",
    "mean": "act_mean",
    "zeros %": "zero_fraction",
    "dead %": "dead_fraction",
    "saturated %": "saturated_fraction",
    "effective rank": "effective_rank",
}


def layer_output_table(judged: AnalysedTable, title: str) -> ComparisonTable:
    """Return a table of the outputs of the first, middle and last hidden layer, at init and at the end."""
    statistics = {
        heading: name
        for heading, name in _STATISTICS.items()
        if any(row.metrics[metric].n for row in judged.rows for metric in _metric_names(name))
    }
    words = frozenset([_label(judged), "hidden layer"])
    headings = [_label(judged), "hidden layer", "n", *statistics, "E[δ²] first/last"]
    block = ComparisonTable(title, headings, words, fixed=2)
    for row in judged.rows:
        for position in ("first", "middle", "last"):
            is_first = position == "first"
            block.add(
                text.one_line(row.label) if is_first else "",
                position,
                str(row.n) if is_first else "",
                *(_transition(row, f"{name}_{{}}_{position}") for name in statistics.values()),
                _transition(row, "grad_ratio_{}") if is_first else "",
            )
    block.notes = [
        "init → end, means over seeds; E[δ²] ratios are geometric means. --metric NAME shows the spread and"
        " confidence interval of a single metric."
    ]
    block.summary = "init → end, means over seeds"
    block.warnings = notes.row_warnings(judged)
    return block


def _metric_names(statistic: str) -> Sequence[str]:
    return [
        f"{statistic}_{moment}_{position}"
        for moment in ("init", "end")
        for position in ("first", "middle", "last")
    ]


def _transition(row: Row, name: str) -> str:
    values = []
    for moment in ("init", "end"):
        metric = METRICS[name.format(moment)]
        summary = row.metrics[metric.name]
        if summary.n or moment == "init":
            values.append(formatting.format_value(metric, summary.mean))
    return text.transition(values[0], values[-1])
