"""What a user asks of a comparison, and the names it may be asked by."""

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
"""Columns that are numbers of runs."""
LABEL = "label"
"""What `--sort` calls the name of a row."""


@dataclass(frozen=True)
class View:
    """Which rows, columns and statistics are shown, and in what form."""

    view: Literal["all", "activation", "convergence"] = "all"
    metrics: Sequence[str] = ()
    """Metrics in depth, a table each."""
    columns: Sequence[str] = ()
    """Metrics, COUNTS or keys of a config, in this order, instead of those of the view."""
    sort: str | None = None
    """A metric, one of COUNTS, or LABEL; with a minus before it, the highest first."""
    only_changed: bool = False
    layers: bool = False
    plot: bool = False
    baseline: str | None = None
    confidence: float = CONFIDENCE
    width: int | None = None
    """Columns of the terminal; None where a line may be as long as it likes."""
    format: Format = "table"
    ascii_only: bool = False
    """Whether plots do without braille and other signs."""
    all_notes: bool = True
    """Whether tables for terminals have all their notes below, not one line."""
    aside: Sequence[str] = ()
    """What has to be said below all tables."""


_SHOW_ALONE: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("--only-changed", ("--plot", "--layers", "--metric", "--columns", "--view", "--baseline")),
    ("--plot", ("--layers", "--columns", "--view", "--baseline")),
    ("--layers", ("--metric", "--columns", "--view", "--baseline")),
    ("--metric", ("--columns", "--view")),
    ("--columns", ("--view",)),
)
"""Options that choose what is shown, and those that would be passed over beside them."""


def check_together(view: View) -> None:
    """Raise UsageError for an option that another one would leave without any use."""
    is_given = {
        "--only-changed": view.only_changed,
        "--plot": view.plot,
        "--layers": view.layers,
        "--metric": bool(view.metrics),
        "--columns": bool(view.columns),
        "--view": view.view != "all",
        # JSON and CSV have the differences, whatever is shown.
        "--baseline": view.baseline is not None and view.format not in ("json", "csv"),
    }
    for option, others in _SHOW_ALONE:
        for other in others:
            if is_given[option] and is_given[other]:
                raise UsageError(f"{other} has no use beside {option}: drop {other}, or {option} for it")


def format_of(path: Path) -> Format:
    """The format that the suffix of a file stands for. Raises UsageError for another suffix."""
    file_format = SUFFIXES.get(path.suffix.lower())
    if file_format is None:
        suffixes = ", ".join(SUFFIXES)
        raise UsageError(f"{path}: give --format, or a name that ends in one of {suffixes}")
    return file_format


def check_names(view: View, tables: Sequence[Table]) -> None:
    """Raise UsageError, with the nearest name, for a metric, a column or a sort that is not there."""
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
    """Return the metric, count or LABEL that `name` means by its name or printed heading; else `name`."""
    if name in COUNTS or name == LABEL:
        return name
    return resolve_metric_name(name) or _OTHER_HEADINGS.get(" ".join(name.casefold().split()), name)


_OTHER_HEADINGS = {
    **{count.replace("_", " "): count for count in COUNTS},
    **dict.fromkeys(("row", "experiment", "name"), LABEL),
}


def unknown_metric(name: str, others: Sequence[str] = ()) -> str:
    """The answer to a name that is no metric; the whole list is long, so it is not repeated."""
    names = (*METRICS, *others)
    if nearest_name(name, names):
        return unknown_name_message("metric", name, names)
    examples = [metric.name for metric in METRICS.values() if metric.view == "convergence"]
    return (
        f"unknown metric {name!r}; among them are {', '.join((*examples, *others))}; docs/compare.md has all"
    )
