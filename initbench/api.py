"""Python functions that do what the commands of the same names do, and return objects instead of printing.

`probe` and `lint` examine a module; `run` trains an experiment; `load_runs` and `compare` read stored runs.
`print` shows a result as its command does, and notebooks show it as HTML.
"""

from __future__ import annotations

import json
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any, overload

from rich.console import Console
from torch import Tensor, nn

from initbench.analysis.baseline import CONFIDENCE
from initbench.analysis.config_keys import resolve_key
from initbench.analysis.load_runs import load_run_summaries
from initbench.analysis.metrics import METRICS
from initbench.analysis.run_summary import RunSummary
from initbench.analysis.selection import Selection
from initbench.analysis.tables import Table, build_tables
from initbench.config.loading import load_config, load_mapping, with_overrides
from initbench.config.schema import ExperimentConfig
from initbench.data.dataset import DataSource
from initbench.data.locate import data_root
from initbench.diagnostics.lint_report import LintReport, lint_nets
from initbench.diagnostics.net_source import ModuleNets
from initbench.diagnostics.survey import Survey, survey
from initbench.errors import MissingExtraError, RunFailedError, UsageError
from initbench.linting.rule import LintFinding
from initbench.models.init_weights import init_options
from initbench.probing.finding import Finding
from initbench.probing.model_inputs import split_batch
from initbench.render.compare.analysed_table import analyse
from initbench.render.compare.csv_long import long_records
from initbench.render.compare.display_options import View
from initbench.render.compare.output import print_tables
from initbench.render.html import comparison_html, html_table, preformatted_html
from initbench.render.lint_tables import lint_document, print_lint
from initbench.render.probe_document import survey_document
from initbench.render.probe_tables import print_survey
from initbench.render.progress import LiveProgress
from initbench.render.run_documents import compare_document, runs_document
from initbench.render.run_tables import print_experiment
from initbench.render.text import DASH, plural
from initbench.report.build import build_page
from initbench.report.drawing import PictureDrawer
from initbench.report.figure import ReportFigure, to_svg
from initbench.report.figure_selection import select_figure
from initbench.report.page import ReportPage, render_page
from initbench.report.probe_page import build_probe_page
from initbench.report.report_runs import ReportRuns, report_of_tables
from initbench.report.views.convergence import convergence_figures
from initbench.runner.device import resolve_device
from initbench.runner.pending import RunLimits
from initbench.runner.plan import RunContext
from initbench.runner.runner import Runner
from initbench.store.files import write_output
from initbench.store.store import Store, StoredRun, group_by_experiment

Batch = Tensor | tuple[Any, ...] | Mapping[str, Any]
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


def probe(
    module: nn.Module,
    batch: Batch,
    loss: Callable[..., Tensor] | None = None,
    *,
    chance: float | None = None,
) -> Probe:
    """Measure activations and gradients of an untrained module layer by layer, and diagnose problems.

    The pass runs in training mode. It preserves the module's parameters, buffers, modes, hooks and attributes
    and the states of the random generators.

    Args:
        module: The network.
        batch: Inputs x of shape (B, …), or (x, y) with labels y. If forward takes several arguments, x is a
            tuple of them, or a mapping by their names, whose entry `labels` is y. A tuple without labels is
            accepted if forward requires as many arguments as the tuple has entries.
        loss: A function `loss(output)` or `loss(output, y)` that returns the mean over the batch. `output` is
            the return value of the module: a tensor, tuple, mapping or object. If the loss fails on it or
            does not return a single number, it is called with the main output alone: the one called `logits`
            or `out`, otherwise the first with a gradient. The default loss is the cross-entropy for an output
            of shape (B, C), (B, T, V) or (B, C, H, W) and integer labels for all axes but the class axis
            (random labels if none are given); binary cross-entropy for labels 0 and 1; otherwise the mean
            squared error to targets of the output's shape, or to noise.
        chance: Loss of a net that predicts at chance level. It is determined automatically for a
            cross-entropy, passed as `loss` or not.

    Raises:
        UsageError: If the module cannot run on the batch or has no weight layer that the pass uses.
    """
    inputs, y = split_batch(batch, module)
    name, words = type(module).__name__, f"given {inputs.words}"
    nets = ModuleNets([module], inputs, name, [0], batch=words, y=y, loss=loss, chance=chance)
    return Probe(survey(nets))


def lint(
    module: nn.Module,
    batch: Batch,
    loss: Callable[..., Tensor] | None = None,
    *,
    scheme: str | None = None,
    gain: float | str | None = None,
    chance: float | None = None,
) -> Lint:
    """Check a module's init for mistakes; docs/lint.md lists the codes.

    The pass preserves the module, like that of `probe`.

    Args:
        module: The network.
        batch: As for `probe`.
        loss: As for `probe`.
        scheme: Init scheme that all weights are meant to have; each weight is compared with it.
        gain: Gain of the scheme.
        chance: As for `probe`.

    Raises:
        UsageError: If the module cannot run on the batch or has no weight layer that the pass uses.
    """
    inputs, y = split_batch(batch, module)
    declared = None if scheme is None else init_options("lint", scheme, {}, gain, None)
    name = type(module).__name__
    nets = ModuleNets([module], inputs, name, [0], y=y, loss=loss, chance=chance, declared=declared)
    return Lint(lint_nets(nets))


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

    def figure(self, kind: str, *, step: int | None = None) -> ReportFigure:
        """Return a figure of the runs, one row for each experiment; see `RunComparison.figure`."""
        return compare(self).figure(kind, step=step)

    def as_data(self) -> dict[str, Any]:
        """Return the document that `initbench show --json` prints, with all layers and evaluations."""
        return runs_document([self.store.read(run_id) for run_id in self.run_ids])

    def report(self, path: str | Path) -> None:
        """Write the HTML page that `initbench report` writes, with an experiment in each row.

        Raises:
            MissingExtraError: If the packages of the extra `report` are not installed.
            UsageError: If no run is finished, or the file cannot be written.
        """
        compare(self).report(path)

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


def run(
    config: str | Path | Mapping[str, Any] | ExperimentConfig,
    *,
    runs_dir: str | Path = "runs",
    data_dir: str | Path | None = None,
    device: str = "auto",
    workers: int | None = 1,
    offline: bool = False,
    rerun: bool = False,
    quiet: bool = True,
    **overrides: Any,
) -> Runs:
    """Train the missing seeds of an experiment, store every run, and return all of them.

    Args:
        config: A config file, the name of a shipped config, a mapping with the keys of a config file, or a
            loaded config.
        runs_dir: Directory of stored runs.
        data_dir: Data root in torchvision's layout; default: INITBENCH_DATA, else the cache directory.
        device: auto, cpu, cuda or cuda:n.
        workers: Number of training processes; None chooses it. With more than one, call this function below
            `if __name__ == "__main__":`, since each process imports the main script.
        offline: Whether to do without the network.
        rerun: Whether to train finished runs again.
        quiet: Whether to print no progress on stderr.
        **overrides: Values of config keys; two underscores stand for a dot, as in
            `train__steps=200, init__scheme="lsuv", seeds=5`.

    Raises:
        ConfigError: If the config or an override is invalid.
        DataError: If the data are not available.
        RunFailedError: If the training of a seed raised an error; its run is stored as failed.
    """
    experiment = load_experiment(config, overrides)
    store = Store(Path(runs_dir))
    root = data_dir if data_dir is not None else os.environ.get("INITBENCH_DATA")
    source = DataSource(root=data_root(Path(root) if root else None), offline=offline, notify=_warn)
    context = RunContext(store=store, source=source, device=resolve_device(device), workers=workers)
    display = LiveProgress(quiet=quiet)
    with Runner(context, display, RunLimits(rerun=rerun)) as runner, display.showing():
        (outcome,) = runner.run([experiment])
    if outcome.errors:
        raise RunFailedError("\n".join(outcome.errors))
    return Runs(store, tuple(load_run_summaries(store, outcome.run_ids)))


def load_runs(*patterns: str, runs_dir: str | Path = "runs", where: Sequence[str] = ()) -> Runs:
    """Load stored runs.

    Args:
        *patterns: Run ids or prefixes of them, experiments, sweeps or globs; none means all runs.
        runs_dir: Directory of stored runs.
        where: Conditions such as "model.depth=50", all of which a run must meet.

    Raises:
        UsageError: If a pattern or a condition matches no run.
    """
    selection = Selection(Store(Path(runs_dir)), patterns, where)
    return Runs(selection.store, tuple(selection.runs))


def compare(
    *runs: str | Runs,
    by: str | Sequence[str] = (),
    baseline: str | None = None,
    target: float | None = None,
    confidence: float = CONFIDENCE,
    runs_dir: str | Path = "runs",
    where: Sequence[str] = (),
) -> RunComparison:
    """Compare stored runs: activation statistics and convergence, with intervals and significance.

    Args:
        *runs: Results of `run` and `load_runs`, or patterns as for `load_runs`; none means all stored runs.
        by: Config keys whose values make the rows, at most two; default: experiments are the rows.
        baseline: Label of the row that all others are compared with.
        target: Validation accuracy of `steps_to_target`; default: 0.9 of the best mean of a table.
        confidence: Confidence of the intervals, between 0.5 and 1.
        runs_dir: Directory of stored runs, for patterns.
        where: Conditions such as "model.depth=50", for patterns.

    Raises:
        UsageError: If nothing matches, or the baseline or a key does not exist.
    """
    patterns = [item for item in runs if isinstance(item, str)]
    loaded = [item for item in runs if not isinstance(item, str)]
    if patterns or not loaded:
        loaded.append(load_runs(*patterns, runs_dir=runs_dir, where=where))
    summaries = {run.run_id: run for item in loaded for run in item if run.is_placed}
    keys = [by] if isinstance(by, str) else list(by)
    if len(keys) > 2:
        raise UsageError(f"by takes one key, or two for a pivot; got {', '.join(keys)}")
    selected = list(summaries.values())
    resolved = [resolve_key(key, selected, "by") for key in keys]
    view = View(baseline=baseline, confidence=confidence)
    tables = build_tables(selected, by=resolved, target=target)
    analyse(tables, view)  # raises if the baseline does not exist
    stores = {run.run_id: item.store for item in loaded for run in item}
    return RunComparison(tables, view, stores)


def load_experiment(config: object, overrides: Mapping[str, Any]) -> ExperimentConfig:
    """Return the config of `run` with its overrides applied.

    Raises:
        ConfigError: If the config or an override is invalid; the error lists all issues.
        UsageError: If `config` is of another type than `run` accepts.
    """
    words = [f"{key.replace('__', '.')}={json.dumps(value)}" for key, value in overrides.items()]
    if isinstance(config, ExperimentConfig):
        return with_overrides(config, words)
    if isinstance(config, Mapping):
        return load_mapping(config, words, ExperimentConfig)
    if not isinstance(config, str | Path):
        kind = type(config).__name__
        raise UsageError(f"the config must be a path, a name, a mapping or an ExperimentConfig, not a {kind}")
    return load_config(config, words, ExperimentConfig)


def _warn(message: str) -> None:
    """Report that other data are used than requested."""
    warnings.warn(message, stacklevel=4)


def _data_frame(records: Sequence[Mapping[str, Any]]) -> Any:
    pandas: Any = import_module("pandas")  # optional, and without type stubs
    return pandas.DataFrame.from_records(list(records))


def _cell_text(value: Any) -> str:
    if value is None:
        return DASH
    return f"{100 * value:.1f} %" if isinstance(value, float) else str(value)


def _render_to_text(show: Callable[[Console], None]) -> str:
    text = StringIO()
    show(Console(file=text, width=_WIDTH, markup=False, emoji=False, highlight=False, color_system=None))
    return text.getvalue().rstrip("\n")
