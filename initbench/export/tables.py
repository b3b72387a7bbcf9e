"""Tidy tables of stored runs, the common basis of all export targets.

    runs         one row per run: what identifies it, its config keys, and every metric of `compare`
    curves       one row per run and evaluation
    layers       one row per run, moment, step and layer, with the statistics as columns
    histograms   one row per bin of each histogram of a layer

The columns of `curves`, `layers` and `histograms` are fixed. Those of `runs` depend on the config keys of the
exported runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Literal

from initbench.analysis.metrics import METRICS
from initbench.analysis.run_summary import RunSummary
from initbench.store import strict_json
from initbench.store.histograms import Histogram, layer_histograms
from initbench.store.scores import SCORES, RecordedScore
from initbench.store.store import StoredRun
from initbench.store.strict_json import parse_number_or_none
from initbench.store.summary_file import TRAIN

Kind = Literal["text", "integer", "number", "boolean"]
Columns = dict[str, list[Any]]
"""Values of each column, all of the same length; missing values are None."""
Row = dict[str, Any]


@dataclass(frozen=True)
class TableColumn:
    """A column of a table."""

    name: str
    kind: Kind
    meaning: str


Schemas = Mapping[str, Sequence[TableColumn]]
"""The columns of each table, in order."""

_KEY = (
    TableColumn("run_id", "text", "id of the run"),
    TableColumn("experiment", "text", "name of the experiment"),
    TableColumn("seed", "integer", "seed of the run"),
)
_RUN = (
    *_KEY,
    TableColumn("status", "text", "finished or diverged"),
    TableColumn("created", "text", "start of the run (ISO 8601, UTC)"),
    TableColumn("finished", "text", "end of the run (ISO 8601, UTC)"),
    TableColumn(
        "arm", "text", "hash of everything but the seed; runs with the same arm differ only in their seed"
    ),
    TableColumn("dataset", "text", "data set that was used"),
    TableColumn("dataset_requested", "text", "data set in the config"),
    TableColumn("fingerprint", "text", "hash of the data"),
    TableColumn("steps", "integer", "budget in updates"),
    TableColumn("batch_size", "integer", "samples per update"),
    TableColumn("diverged_step", "integer", "updates before the loss was no longer finite"),
    TableColumn("diagnosis", "text", "codes of the findings, separated by spaces; null for a healthy run"),
    TableColumn("seconds", "number", "training time; that of a cohort is divided by its number of runs"),
    TableColumn("machine", "text", "processor"),
    TableColumn("version", "text", "version of initbench"),
)


def _score_column(score: RecordedScore) -> TableColumn:
    return TableColumn(f"val_{score.name}", "number", f"{score.meaning}, on the validation split")


_CURVE = (
    *_KEY,
    TableColumn("step", "integer", "updates before the evaluation"),
    TableColumn("epoch", "number", "passes over the training split before the evaluation"),
    TableColumn("train_loss", "number", "loss on a fixed sample of the training split"),
    TableColumn("val_loss", "number", "loss on the validation split"),
    _score_column(SCORES[0]),  # the accuracy
    TableColumn("val_loss_batch", "number", "val_loss of batch norm with each batch's statistics"),
    TableColumn("val_accuracy_batch", "number", "val_accuracy of batch norm with each batch's statistics"),
    TableColumn("val_loss_population", "number", "val_loss with recomputed population statistics"),
    TableColumn("val_accuracy_population", "number", "val_accuracy with recomputed population statistics"),
    *map(_score_column, SCORES[1:]),
)
_LAYER_KEY = (
    *_KEY,
    TableColumn("moment", "text", "init, train (between the first and the last update) or end"),
    TableColumn("step", "integer", "updates before the measurement"),
    TableColumn("layer", "integer", "number of the weight layer, from 1"),
    TableColumn("name", "text", "name of the module"),
)


@dataclass(frozen=True)
class _Statistic:
    """A statistic of a layer: its column, and its keys in a record of layers.jsonl."""

    name: str
    meaning: str
    path: tuple[str, ...]


def _quantiles() -> Iterator[_Statistic]:
    for percent in (1, 25, 50, 75, 99):
        key = f"p{percent:02d}"
        yield _Statistic(f"pre_{key}", f"{percent} % quantile of h", ("pre", "quantiles", key))


_STATISTICS = (
    _Statistic("positions", "positions per sample and unit, if there are several", ("positions",)),
    _Statistic("q", "E[h²] of the pre-activation h", ("pre", "q")),
    _Statistic("pre_mean", "mean of h", ("pre", "mean")),
    _Statistic("pre_std", "standard deviation of h", ("pre", "std")),
    _Statistic("signal", "variance of h over samples, averaged over units", ("pre", "signal")),
    _Statistic("correlation", "mean cosine of h between two samples", ("pre", "correlation")),
    *_quantiles(),
    _Statistic("act_q", "E[x²] of the activation x", ("act", "q")),
    _Statistic("act_mean", "mean of x", ("act", "mean")),
    _Statistic("act_std", "standard deviation of x", ("act", "std")),
    _Statistic("zero_fraction", "share of entries of x that are 0", ("act", "zero_fraction")),
    _Statistic("dead_fraction", "share of units that are 0 on the whole batch", ("act", "dead_fraction")),
    _Statistic(
        "saturated_fraction",
        "share of entries on the flat part of the activation",
        ("act", "saturated_fraction"),
    ),
    _Statistic(
        "effective_rank", "exp of the entropy of the covariance's eigenvalues", ("act", "effective_rank")
    ),
    _Statistic("delta_q", "E[δ²] of the gradient δ at the pre-activation", ("grad", "pre_q")),
    _Statistic("delta_zero_fraction", "share of entries of δ that are 0", ("grad", "zero_fraction")),
    _Statistic("weight_gradient", "norm of the weight's gradient", ("grad", "weight_norm")),
    _Statistic("weight_std", "standard deviation of the weight", ("weight_std",)),
    _Statistic("unit_spread", "largest relative spread over units; 0 if all are equal", ("unit_spread",)),
    _Statistic("jacobian_mean_sigma2", "mean σ² of ∂logits/∂h", ("jacobian", "mean_sigma2")),
    _Statistic("jacobian_condition", "median over samples of σ_max/σ_min", ("jacobian", "condition")),
    _Statistic(
        "running_mean_gap",
        "distance of batch norm's running mean from the batch mean",
        ("batch_norm", "running_mean_gap"),
    ),
    _Statistic(
        "running_var_ratio",
        "batch norm's running variance over the batch variance",
        ("batch_norm", "running_var_ratio"),
    ),
)
_SHIFT_STATISTICS = (
    _Statistic("gradient_norm", "‖G‖, G being the layer's gradient", ("gradient_norm",)),
    _Statistic(
        "gradient_shift",
        "‖G′ − G‖/‖G‖, G′ being the gradient once the layers below have been updated",
        ("gradient_shift",),
    ),
    _Statistic("gradient_shift_cosine", "cosine of G and G′", ("gradient_shift_cosine",)),
    _Statistic("input_mean_drift", "change of the inputs' means by the update", ("input_mean_drift",)),
    _Statistic(
        "input_std_drift", "change of the inputs' standard deviations by the update", ("input_std_drift",)
    ),
    _Statistic("input_mean_from_init", "change of the inputs' means since init", ("input_mean_from_init",)),
    _Statistic(
        "input_std_from_init",
        "change of the inputs' standard deviations since init",
        ("input_std_from_init",),
    ),
)
LAYER_STATISTICS = tuple(
    TableColumn(statistic.name, "number", statistic.meaning)
    for statistic in (*_STATISTICS, *_SHIFT_STATISTICS)
)
"""The columns of `layers` that hold statistics."""
_LAYER = (
    *_LAYER_KEY,
    TableColumn("units", "integer", "number of units, i.e. rows of the weight"),
    TableColumn("hidden", "boolean", "whether an activation follows the layer; false for heads"),
    *LAYER_STATISTICS,
)
_HISTOGRAM = (
    *_LAYER_KEY,
    TableColumn("quantity", "text", "activation, pre_activation or gradient (at the pre-activation)"),
    TableColumn("bin", "integer", "number of the bin from 0; −1 for entries below all bins; null for NaN"),
    TableColumn("low", "number", "lower edge; null for entries below all bins and for NaN"),
    TableColumn("high", "number", "upper edge; null for entries above all bins and for NaN"),
    TableColumn("count", "integer", "number of entries in the bin"),
)
FIXED_COLUMNS: Schemas = {"runs": _RUN, "curves": _CURVE, "layers": _LAYER, "histograms": _HISTOGRAM}
"""The columns that every export has; `runs` has further columns for config keys and metrics."""
TABLES = tuple(FIXED_COLUMNS)
_MOMENTS = ("init", TRAIN, "end")
_MAX_INTEGER = 2**63 - 1


@dataclass(frozen=True)
class LayerHistogram:
    """One histogram of a layer and what it describes."""

    moment: str
    step: int | None
    layer: int
    name: str | None
    quantity: str
    """One of `store.histograms.QUANTITIES`."""
    histogram: Histogram


@dataclass(frozen=True)
class RunTables:
    """The rows of one run in all tables."""

    run: Row
    """Row of `runs`, with the config values as stored."""
    curves: list[Row]
    layers: list[Row]
    histograms: list[LayerHistogram]
    config: dict[str, Any]
    """Flat dotted config keys, and the keys `with.…` of code, device and versions."""
    metrics: dict[str, float]
    """The metrics of `analysis.metrics` that the run has."""

    @property
    def run_id(self) -> str:
        """Id of the run."""
        return str(self.run["run_id"])

    @property
    def last_step(self) -> int:
        """Last step of the curves; 0 without an evaluation."""
        return max((int(row["step"]) for row in self.curves), default=0)

    def time_of_step(self, step: int) -> float:
        """Return when a step was trained, in seconds since 1970, if training was equally fast throughout.

        The result is 0 if the start of the run is unknown.
        """
        begin, seconds = parse_time(self.run["created"]) or 0.0, self.run["seconds"]
        trained = self.run["steps"] if self.run["diverged_step"] is None else self.run["diverged_step"]
        return begin if seconds is None or not trained else begin + seconds * step / trained

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything that is exported of the run."""
        histograms = [{**vars(entry), "histogram": vars(entry.histogram)} for entry in self.histograms]
        content = [self.run, self.curves, self.layers, histograms, self.metrics]
        return hashlib.sha256(strict_json.dumps(content).encode()).hexdigest()

    def columns(self, table: str, schema: Sequence[TableColumn]) -> Columns:
        """Return the rows of a table as columns; the columns of `runs` are those of `schema`."""
        if table == "histograms":
            return self._histogram_columns()
        if table == "runs":
            return {column.name: [_cell(self.run.get(column.name), column.kind)] for column in schema}
        rows = self.curves if table == "curves" else self.layers
        return self._with_key({column.name: [row.get(column.name) for row in rows] for column in schema})

    def _with_key(self, columns: Columns) -> Columns:
        """Fill in the columns that have the same value in all rows of the run."""
        rows = len(next(reversed(columns.values())))
        return {**columns, **{column.name: [self.run[column.name]] * rows for column in _KEY}}

    def _histogram_columns(self) -> Columns:
        columns: Columns = {column.name: [] for column in _HISTOGRAM}
        for entry in self.histograms:
            histogram = entry.histogram
            rows = len(histogram.counts) + 3
            for name in ("moment", "step", "layer", "name", "quantity"):
                columns[name] += [getattr(entry, name)] * rows
            columns["bin"] += [*range(-1, rows - 2), None]
            columns["low"] += [None, *histogram.edges, None]
            columns["high"] += [*histogram.edges, None, None]
            columns["count"] += [histogram.below, *histogram.counts, histogram.above, histogram.nan]
        return self._with_key(columns)


def build_run_tables(run: StoredRun, summary: RunSummary, target: float | None) -> RunTables:
    """Return the rows of a complete run.

    Args:
        run: The run, whose lines have been checked.
        summary: Its summary.
        target: Validation accuracy of metrics such as `steps_to_target`; without it they have no value.
    """
    metrics = {name: metric.value(summary, target) for name, metric in METRICS.items()}
    config = _config_keys(summary)
    fixed = {column.name: getattr(summary, column.name, None) for column in _RUN}
    fixed |= {"diagnosis": " ".join(summary.diagnosis), "finished": run.record.get("finished")}
    fixed = {name: None if value == "" else value for name, value in fixed.items()}  # not recorded
    return RunTables(
        run={**config, **metrics, **fixed},
        curves=[_curve_row(line) for line in run.convergence],
        layers=_layer_rows(run),
        histograms=list(_histograms(run)),
        config=config,
        metrics={name: float(value) for name, value in metrics.items() if value is not None},
    )


def table_schemas(runs: Iterable[RunSummary]) -> Schemas:
    """Return the columns of the tables of these runs: in `runs`, config keys are sorted by name."""
    values: dict[str, list[Any]] = {}
    for run in runs:
        for key, value in _config_keys(run).items():
            values.setdefault(key, []).append(value)
    fixed = {column.name for column in _RUN}
    config = (
        TableColumn(key, _kind_of(values[key]), "config key")
        for key in sorted(values.keys() - fixed - METRICS.keys())
    )
    metrics = (TableColumn(name, "number", metric.meaning) for name, metric in METRICS.items())
    return {**FIXED_COLUMNS, "runs": (*_RUN, *config, *metrics)}


def parse_time(text: str | None) -> float | None:
    """Return a timestamp of run.json in seconds since 1970, or None if it is missing or invalid."""
    try:
        return datetime.fromisoformat(text).timestamp() if text else None
    except ValueError:
        return None


def format_value(value: Any) -> str:
    """Return a config value as text: strings as they are, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def _config_keys(run: RunSummary) -> dict[str, Any]:
    fixed = {column.name for column in _RUN}
    return {key: value for key, value in run.keys.items() if key not in fixed}


def _kind_of(values: Iterable[Any]) -> Kind:
    """Return the kind of a column with these values; `text` if they have several."""
    types = set()
    for value in values:
        is_small = not isinstance(value, int) or abs(value) <= _MAX_INTEGER
        types.add(type(value) if is_small else str)
    if types == {bool}:
        return "boolean"
    if types == {int}:
        return "integer"
    return "number" if types and types <= {int, float} else "text"


def _cell(value: Any, kind: Kind) -> Any:
    if value is None:
        return None
    if kind == "text":
        return format_value(value)
    return float(value) if kind == "number" else value


def _curve_row(line: Mapping[str, Any]) -> Row:
    numbers = (column.name for column in _CURVE if column.kind == "number")
    return {"step": line["step"], **{name: parse_number_or_none(line.get(name)) for name in numbers}}


def _layer_rows(run: StoredRun) -> list[Row]:
    """Return the rows of `layers`; a probe and a measurement of shift at one step share their rows."""
    rows: dict[tuple[str, int | None, int], Row] = {}
    for snapshot in run.snapshots:
        moment, step = snapshot["when"], snapshot.get("step")
        for layer in snapshot["layers"]:
            row = rows.setdefault((moment, step, layer["index"]), _layer_key(moment, step, layer))
            row |= {"hidden": layer["act"] is not None, **_statistics(layer, _STATISTICS)}
    for line in run.shifts:
        for layer in line["layers"]:
            row = rows.setdefault(
                (TRAIN, line["step"], layer["index"]), _layer_key(TRAIN, line["step"], layer)
            )
            row |= {"hidden": layer["hidden"], **_statistics(layer, _SHIFT_STATISTICS)}
    return sorted(rows.values(), key=_order)


def _layer_key(moment: str, step: int | None, layer: Mapping[str, Any]) -> Row:
    names = {"name": layer.get("name"), "units": layer.get("units")}
    return {"moment": moment, "step": step, "layer": layer["index"], **names}


def _order(row: Row) -> tuple[int, int, int]:
    moment = _MOMENTS.index(row["moment"]) if row["moment"] in _MOMENTS else len(_MOMENTS)
    return moment, row["step"] or 0, row["layer"]


def _statistics(layer: Mapping[str, Any], statistics: Iterable[_Statistic]) -> Row:
    return {statistic.name: _number_at(layer, statistic.path) for statistic in statistics}


def _number_at(record: Any, path: Iterable[str]) -> float | None:
    """Return the number at a path of keys, or None if a part of the path is missing."""
    for key in path:
        if not isinstance(record, Mapping):
            return None
        record = record.get(key)
    return parse_number_or_none(record)


def _histograms(run: StoredRun) -> Iterator[LayerHistogram]:
    for snapshot in run.snapshots:
        for layer in snapshot["layers"]:
            key = snapshot["when"], snapshot.get("step"), layer["index"], layer.get("name")
            for quantity, histogram in layer_histograms(layer).items():
                yield LayerHistogram(*key, quantity, histogram)
