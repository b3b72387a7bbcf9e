"""Objects that the functions of `initbench.api` return.

`print` shows a result as its command does, and notebooks show it as HTML.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any, overload

from rich.console import Console

from initbench.analysis.baseline import CONFIDENCE
from initbench.analysis.config_keys import resolve_key
from initbench.analysis.metrics import METRICS
from initbench.analysis.run_summary import RunSummary
from initbench.analysis.tables import Table, build_tables
from initbench.diagnostics.lint_report import LintReport
from initbench.diagnostics.survey import Survey
from initbench.errors import MissingExtraError, UsageError
from initbench.export.export_runs import read_columns
from initbench.linting.rule import LintFinding
from initbench.probing.finding import Finding
from initbench.render.compare.analysed_table import analyse
from initbench.render.compare.csv_long import long_records
from initbench.render.compare.display_options import View
from initbench.render.compare.output import print_tables
from initbench.render.html import comparison_html, html_table, preformatted_html
from initbench.render.lint_tables import lint_document, print_lint
from initbench.render.probe_document import survey_document
from initbench.render.probe_tables import print_survey
from initbench.render.run_documents import compare_document, runs_document
from initbench.render.run_tables import print_experiment
from initbench.render.sweep_tables import print_result, sweep_document
from initbench.render.text import DASH, plural
from initbench.report.build import build_page
from initbench.report.drawing import PictureDrawer
from initbench.report.figure import ReportFigure, to_svg
from initbench.report.figure_selection import select_figure
from initbench.report.page import ReportPage, render_page
from initbench.report.probe_page import build_probe_page
from initbench.report.report_runs import ReportRuns, report_of_tables
from initbench.report.views.convergence import convergence_figures
from initbench.store.files import write_output
from initbench.store.store import Store, StoredRun, group_by_experiment
from initbench.study.run_study import SweepResult

_WIDTH = 160


class _Printable(ABC):
    """Result that is shown as its command prints it."""

    @abstractmethod
    def _print(self, console: Console) -> None:
        """Print the whole result."""

    @abstractmethod
    def _summary(self) -> str:
        """Return one line that describes the result."""

    def __str__(self) -> str:
        return _render_to_text(self._print)

    def __repr__(self) -> str:
        return f"<{self._summary()}>"

    def _repr_html_(self) -> str:
        """Return the printed result for notebooks."""
        return preformatted_html(str(self))


@dataclass(frozen=True, repr=False)
class Probe(_Printable):
    """Result of probing a module in one pass; `print` renders it like `initbench probe`."""

    survey: Survey

    @property
    def findings(self) -> list[Finding]:
        """Problems in order of precedence; empty for a healthy net."""
        return [finding for finding, _ in self.survey.findings]

    @property
    def healthy(self) -> bool:
        """Whether every weight was observed and no warning was raised; notes are mostly harmless."""
        is_sound = not any(finding.level == "warning" for finding in self.findings)
        return is_sound and self.survey.coverage.is_complete

    def as_data(self) -> dict[str, Any]:
        """Return the document that `initbench probe --json` prints."""
        return survey_document(self.survey)

    def report(self, path: str | Path) -> None:
        """Write the HTML page that `initbench probe --report` writes.

        Raises:
            MissingExtraError: If the packages of the extra `report` are not installed.
            UsageError: If the file cannot be written.
        """
        _save_page(path, build_probe_page([(self.survey.name, self.survey)]))

    def _print(self, console: Console) -> None:
        print_survey(console, self.survey, all_layers=True)

    def _summary(self) -> str:
        codes = ", ".join(dict.fromkeys(finding.code for finding in self.findings))
        return f"Probe of {self.survey.name}: {codes or ('healthy' if self.healthy else 'not all seen')}"


@dataclass(frozen=True, repr=False)
class Lint(_Printable):
    """Mistakes in a module's init; `print` renders them like `initbench lint`."""

    linted: LintReport

    @property
    def findings(self) -> list[LintFinding]:
        """Mistakes, warnings first."""
        return self.linted.findings

    def as_data(self) -> dict[str, Any]:
        """Return the document that `initbench lint --json` prints."""
        return lint_document(self.linted)

    def _print(self, console: Console) -> None:
        print_lint(console, self.linted)

    def _summary(self) -> str:
        codes = ", ".join(dict.fromkeys(finding.code for finding in self.findings))
        return f"Lint of {self.linted.target}: {codes or 'no mistakes'}"


@dataclass(frozen=True, repr=False)
class Runs(_Printable, Sequence[RunSummary]):
    """Stored runs, sorted by the time of their creation."""

    store: Store
    summaries: tuple[RunSummary, ...]

    @overload
    def __getitem__(self, index: int) -> RunSummary: ...
    @overload
    def __getitem__(self, index: slice) -> Runs: ...
    def __getitem__(self, index: int | slice) -> RunSummary | Runs:
        """Return one run, or the runs of a slice."""
        if isinstance(index, slice):
            return Runs(self.store, self.summaries[index])
        return self.summaries[index]

    def __len__(self) -> int:
        return len(self.summaries)

    @property
    def run_ids(self) -> list[str]:
        """Ids of the runs, which are the names of their directories in the store."""
        return [run.run_id for run in self.summaries]

    def to_records(self, target: float | None = None) -> list[dict[str, Any]]:
        """Return a flat dictionary per run: id, config keys, and every metric (None without a value).

        `target` is the validation accuracy of metrics such as `steps_to_target`.
        """
        return [
            {
                "run_id": run.run_id,
                **run.keys,
                **{name: metric.value(run, target) for name, metric in METRICS.items()},
            }
            for run in self.summaries
        ]

    def to_pandas(self, target: float | None = None) -> Any:
        """Return the records as a `pandas.DataFrame`; raises ImportError if pandas is not installed."""
        return _data_frame(self.to_records(target))

    def to_frame(self, table: str = "runs", target: float | None = None) -> Any:
        """Return a tidy table as a data frame of polars, or of pandas if polars is not installed.

        Args:
            table: "runs" (one row per run), "curves" (per run and evaluation), "layers" (per run, probe and
                layer) or "histograms" (per bin); docs/export.md lists the columns. Unfinished runs are left
                out.
            target: Validation accuracy of metrics such as `steps_to_target`.

        Raises:
            MissingExtraError: If neither polars nor pandas is installed.
            UsageError: If there is no such table.
        """
        return _tidy_frame(read_columns(self.store, self.summaries, table, target))

    def figure(self, kind: str, *, step: int | None = None) -> ReportFigure:
        """Return a figure of the runs, one row for each experiment; see `RunComparison.figure`."""
        return compare_runs([self]).figure(kind, step=step)

    def as_data(self) -> dict[str, Any]:
        """Return the document that `initbench show --json` prints, with all layers and evaluations."""
        return runs_document([self.store.read(run_id) for run_id in self.run_ids])

    def report(self, path: str | Path) -> None:
        """Write the HTML page that `initbench report` writes, with an experiment in each row.

        Raises:
            MissingExtraError: If the packages of the extra `report` are not installed.
            UsageError: If no run is finished, or the file cannot be written.
        """
        compare_runs([self]).report(path)

    def _print(self, console: Console) -> None:
        for runs in group_by_experiment(self.store.read(run_id) for run_id in self.run_ids):
            print_experiment(console, runs, all_layers=False)

    def _summary(self) -> str:
        names = list(dict.fromkeys(run.experiment for run in self.summaries))
        listed = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        return f"{plural(len(self), 'run')} of {plural(len(names), 'experiment')}: {listed}"

    def _repr_html_(self) -> str:
        """Return a table with one row per run for notebooks, and the curves of validation accuracy."""
        columns = ("experiment", "seed", "status", "dataset", "final_val_accuracy", "test_accuracy")
        rows = [[_cell_text(record.get(name)) for name in columns] for record in self.to_records()]
        table = html_table(columns, rows, title=self._summary())
        return table + _convergence_html(build_tables([run for run in self if run.is_placed]), View())


@dataclass(frozen=True, repr=False)
class RunComparison(_Printable):
    """Stored runs compared in tables, one for each data set, precision and budget."""

    tables: list[Table]
    view: View = field(default_factory=View)
    stores: Mapping[str, Store] = field(default_factory=dict)
    """Store of each run, by run id."""

    def as_data(self) -> dict[str, Any]:
        """Return the document that `initbench compare --json` prints."""
        return compare_document(self.tables, self.view)

    def to_records(self) -> list[dict[str, Any]]:
        """Return a dictionary per row and metric: mean, interval, letters, difference to the baseline."""
        return list(long_records(analyse(self.tables, self.view), self.view))

    def to_pandas(self) -> Any:
        """Return the records as a `pandas.DataFrame`; raises ImportError if pandas is not installed."""
        return _data_frame(self.to_records())

    def report(self, path: str | Path) -> None:
        """Write the HTML page that `initbench report` writes.

        Raises:
            MissingExtraError: If the packages of the extra `report` are not installed.
            UsageError: If no run is finished, or the file cannot be written.
        """
        with PictureDrawer() as drawer:
            _save_page(path, build_page(self._report_runs(), drawer=drawer), drawer)

    def figure(self, kind: str, *, step: int | None = None) -> ReportFigure:
        """Return a figure, which notebooks show; with a baseline, it shows differences or ratios.

        Args:
            kind: One of the names that `initbench figure --list` lists, such as "depth-q".
            step: Number of updates, for figures of one probe: the nearest probe is shown. At init if None.

        Raises:
            UsageError: If no run is finished, or the runs do not allow the figure.
        """
        return select_figure(self._report_runs(), kind, step=step)

    def _report_runs(self) -> ReportRuns:
        if not any(row.n for table in self.tables for row in table.rows):
            raise UsageError("no run is finished, so there is nothing to report")
        return report_of_tables(_StoredRuns(self.stores), analyse(self.tables, self.view))

    def _print(self, console: Console) -> None:
        print_tables(console, self.tables, self.view)

    def _summary(self) -> str:
        rows = sum(len(table.rows) for table in self.tables)
        return f"RunComparison of {plural(rows, 'row')} in {plural(len(self.tables), 'table')}"

    def _repr_html_(self) -> str:
        """Return the tables for notebooks, and the curves of validation accuracy."""
        return comparison_html(self.tables, self.view) + _convergence_html(self.tables, self.view)


@dataclass(frozen=True)
class _StoredRuns:
    """Runs of several stores."""

    stores: Mapping[str, Store]

    def read_if_there(self, run_id: str) -> StoredRun | None:
        """Read a run from its store; None if its store is unknown or does not have it any more."""
        return self.stores[run_id].read_if_there(run_id) if run_id in self.stores else None


@dataclass(frozen=True, repr=False)
class SweepRuns(_Printable):
    """Points of a sweep with their runs, tuning included; `print` renders them like `initbench sweep`."""

    result: SweepResult

    @property
    def runs(self) -> Runs:
        """Stored runs of the points, without tuning runs."""
        result = self.result
        summaries = [run for point in result.variants for run in result.runs(point)]
        return Runs(result.store, tuple(summaries))

    @property
    def comparison(self) -> RunComparison:
        """Comparison of the points, one row for each."""
        stores = dict.fromkeys(self.runs.run_ids, self.result.store)
        return RunComparison(self.result.tables, stores=stores)

    def as_data(self) -> dict[str, Any]:
        """Return the document that `initbench sweep --json` prints."""
        return sweep_document(self.result, View(), {"shard": None, "dry_run": False})

    def to_frame(self, table: str = "runs", target: float | None = None) -> Any:
        """Return a tidy table of the runs as a data frame; see `Runs.to_frame`."""
        return self.runs.to_frame(table, target)

    def figure(self, kind: str, *, step: int | None = None) -> ReportFigure:
        """Return a figure with one row for each point; see `RunComparison.figure`."""
        return self.comparison.figure(kind, step=step)

    def report(self, path: str | Path) -> None:
        """Write the HTML page of the points; see `RunComparison.report`."""
        self.comparison.report(path)

    def _print(self, console: Console) -> None:
        print_result(console, self.result, View())

    def _summary(self) -> str:
        points, runs = len(self.result.variants), len(self.runs)
        return f"SweepRuns of {self.result.study.name}: {plural(points, 'point')}, {plural(runs, 'run')}"

    def _repr_html_(self) -> str:
        """Return the comparison of the points for notebooks."""
        return self.comparison._repr_html_()


def _convergence_html(tables: Sequence[Table], view: View) -> str:
    """Return the first figure of convergence as SVG; empty without evaluations or without the extra."""
    report = report_of_tables(_StoredRuns({}), analyse(tables, view))
    try:
        figures = [to_svg(figure) for figure in list(convergence_figures(report))[:1]]
    except MissingExtraError:
        return ""
    return "".join(f"<div>{svg}</div>" for svg in figures)


def _save_page(path: str | Path, page: ReportPage, drawer: PictureDrawer | None = None) -> None:
    write_output(Path(path), render_page(page, drawer))


def compare_runs(
    runs: Sequence[Runs],
    *,
    by: Sequence[str] = (),
    baseline: str | None = None,
    target: float | None = None,
    confidence: float = CONFIDENCE,
) -> RunComparison:
    """Compare loaded runs; for the arguments and the errors see `initbench.api.compare`."""
    summaries = {run.run_id: run for item in runs for run in item if run.is_placed}
    if len(by) > 2:
        raise UsageError(f"by takes one key, or two for a pivot; got {', '.join(by)}")
    selected = list(summaries.values())
    resolved = [resolve_key(key, selected, "by") for key in by]
    view = View(baseline=baseline, confidence=confidence)
    tables = build_tables(selected, by=resolved, target=target)
    analyse(tables, view)  # raises if the baseline does not exist
    stores = {run.run_id: item.store for item in runs for run in item}
    return RunComparison(tables, view, stores)


def _data_frame(records: Sequence[Mapping[str, Any]]) -> Any:
    pandas: Any = import_module("pandas")  # optional, and without type stubs
    return pandas.DataFrame.from_records(list(records))


def _tidy_frame(columns: Mapping[str, list[Any]]) -> Any:
    """Return a data frame of polars, or of pandas if polars is not installed."""
    for name in ("polars", "pandas"):
        with suppress(ModuleNotFoundError):
            return import_module(name).DataFrame(dict(columns))
    raise MissingExtraError("data frames", "frame")


def _cell_text(value: Any) -> str:
    if value is None:
        return DASH
    return f"{100 * value:.1f} %" if isinstance(value, float) else str(value)


def _render_to_text(show: Callable[[Console], None]) -> str:
    text = StringIO()
    show(Console(file=text, width=_WIDTH, markup=False, emoji=False, highlight=False, color_system=None))
    return text.getvalue().rstrip("\n")
