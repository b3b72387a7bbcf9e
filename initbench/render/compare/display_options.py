"""Display options of a comparison, and the names that they accept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from initbench.analysis.baseline import CONFIDENCE
from initbench.analysis.config_keys import known_keys, resolve_key
from initbench.analysis.metrics import METRICS, resolve_metric_name
from initbench.analysis.tables import Table
from initbench.errors import UnknownNameError, UsageError
from initbench.registry import nearest_name, unknown_name_message

Format = Literal["table", "markdown", "csv", "json", "latex"]
SUFFIXES: dict[str, Format] = {
    ".txt": "table",
    ".md": "markdown",
    ".csv": "csv",
    ".json": "json",
    ".tex": "latex",
}
COUNTS = ("n", "diverged", "unfinished", "reached_target")
"""Names of the columns that count runs."""
LABEL = "label"
"""Name that `--sort` accepts for the label of a row."""


@dataclass(frozen=True)
class View:
    """Display options: the rows, columns and statistics to show, and the output format."""

    view: Literal["all", "activation", "convergence"] = "all"
    metrics: Sequence[str] = ()
    """Metrics to show in detail, one table each."""
    columns: Sequence[str] = ()
    """Metrics, COUNTS or config keys, in this order, that replace the columns of the view."""
    sort: str | None = None
    """A metric, one of COUNTS, or LABEL; a minus in front sorts in descending order."""
    only_changed: bool = False
    layers: bool = False
    plot: bool = False
    baseline: str | None = None
    confidence: float = CONFIDENCE
    width: int | None = None
    """Width of the terminal in columns; None for lines of unlimited length."""
    format: Format = "table"
    ascii_only: bool = False
    """Whether plots use only ASCII characters."""
    all_notes: bool = True
    """Whether terminal tables have all notes below them instead of a one-line summary."""
    aside: Sequence[str] = ()
    """Notes printed below all tables."""


_SHOW_ALONE: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("--only-changed", ("--plot", "--layers", "--metric", "--columns", "--view", "--baseline")),
    ("--plot", ("--layers", "--columns", "--view", "--baseline")),
    ("--layers", ("--metric", "--columns", "--view", "--baseline")),
    ("--metric", ("--columns", "--view")),
    ("--columns", ("--view",)),
)
"""Options that determine the content, each with the options that it cannot be combined with."""


def check_together(view: View) -> None:
    """Raise UsageError if one option would make another one ineffective."""
    is_given = {
        "--only-changed": view.only_changed,
        "--plot": view.plot,
        "--layers": view.layers,
        "--metric": bool(view.metrics),
        "--columns": bool(view.columns),
        "--view": view.view != "all",
        # JSON and CSV always contain the differences from the baseline.
        "--baseline": view.baseline is not None and view.format not in ("json", "csv"),
    }
    for option, others in _SHOW_ALONE:
        for other in others:
            if is_given[option] and is_given[other]:
                raise UsageError(f"{other} cannot be combined with {option}")


def format_of(path: Path) -> Format:
    """Return the format for the suffix of a file; raise UsageError for an unknown suffix."""
    file_format = SUFFIXES.get(path.suffix.lower())
    if file_format is None:
        suffixes = ", ".join(SUFFIXES)
        raise UsageError(f"{path}: the suffix must be one of {suffixes}, or use --format")
    return file_format


def check_names(view: View, tables: Sequence[Table]) -> None:
    """Raise UsageError, with the nearest name, for an unknown metric, column or sort key."""
    for name in view.metrics:
        if name not in METRICS:
            raise UnknownNameError(unknown_metric(name))
    runs = [run for table in tables for row in table.rows for run in row.group.runs]
    keys = known_keys(runs) if view.columns else []
    for name in view.columns:
        if name in METRICS or name in COUNTS or name in keys:
            continue
        if "." not in name:
            raise UnknownNameError("--columns: " + unknown_metric(name, COUNTS))
        resolve_key(name, runs, "--columns")
    name = (LABEL if view.sort is None else view.sort).removeprefix("-")
    if name not in (*METRICS, *COUNTS, LABEL):
        raise UnknownNameError("--sort: " + unknown_metric(name, (*COUNTS, LABEL)))


def canonical_name(name: str) -> str:
    """Return the metric, count or LABEL whose name or table heading is `name`; otherwise `name` itself."""
    if name in COUNTS or name == LABEL:
        return name
    return resolve_metric_name(name) or _OTHER_HEADINGS.get(" ".join(name.casefold().split()), name)


_OTHER_HEADINGS = {
    **{count.replace("_", " "): count for count in COUNTS},
    **dict.fromkeys(("row", "experiment", "name"), LABEL),
}


def unknown_metric(name: str, others: Sequence[str] = ()) -> str:
    """Return the message for an unknown metric, with the nearest name or some examples."""
    names = (*METRICS, *others)
    if nearest_name(name, names):
        return unknown_name_message("metric", name, names)
    examples = [metric.name for metric in METRICS.values() if metric.view == "convergence"]
    listed = ", ".join((*examples, *others))
    return f"unknown metric {name!r}; some metrics are {listed}; docs/compare.md lists all"
