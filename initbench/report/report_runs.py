"""The runs of a report: rows of a comparison with a style each, and the layers of their runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from itertools import zip_longest
from typing import Any, Protocol

from initbench.analysis.load_runs import garbage_collection_off
from initbench.analysis.run_summary import RunSummary
from initbench.analysis.tables import Row, build_tables
from initbench.errors import UsageError
from initbench.render.compare.analysed_table import AnalysedTable, analyse
from initbench.render.compare.display_options import View
from initbench.render.compare.titles import distinguishing_terms
from initbench.render.run_tables import net_words
from initbench.render.text import evenly_spaced, one_line, plural
from initbench.report.theme import RowStyle, StyledRow, row_style
from initbench.store.store import Store, StoredRun

MAX_RUNS_READ = 60
"""Number of runs up to which the layers of every seed are read; of more runs, one seed of each row."""
MAX_MOMENTS = 9
"""Largest number of probes of a run that a report shows, the first and the last included."""
MAX_ROWS_DESCRIBED = 8
"""Largest number of rows whose nets a sentence describes one by one."""

Layer = dict[str, Any]
"""Record of a weight layer in a probe, with the keys of layers.jsonl.

Figures read `index`, the statistics and the `histogram` of `pre`, `act` (None for the head) and `grad`, and
`theory`: what theory predicts for the untrained net, as `LayerPrediction.as_data` returns it and functions
of `theory.bands` read it. Layers without a prediction and later probes do not have this key.
"""


@dataclass(frozen=True)
class Moment:
    """A probe of the runs of a row."""

    step: int
    until: float
    """Step of the next probe that is shown, up to which this one stands for the state of the net."""
    layers: list[list[Layer]]
    """The weight layers of each run, head included."""
    values: dict[str, dict[int, list[float]]] = field(default_factory=dict, repr=False)
    """Statistics that views have read from the layers, by name and position of the layer."""


class LayerRow(StyledRow, Protocol):
    """A row whose layers figures show: runs of a comparison, or untrained nets of one kind."""

    @property
    def activation(self) -> str | None:
        """Name of the activation of the hidden layers; None if it is unknown."""

    @property
    def moments(self) -> Sequence[Moment]:
        """The probes, in order of their steps."""


class LayerReport(ABC):
    """Rows whose layers figures show."""

    rows: Sequence[LayerRow]
    """The rows, in the order of their styles."""

    @property
    def names(self) -> list[str]:
        """Names of the rows."""
        return [row.name for row in self.rows]

    @property
    @abstractmethod
    def provenance(self) -> str:
        """Description of the data and the nets, for captions."""


@dataclass(frozen=True)
class ReportRow:
    """A row of a comparison, with its name and style in the report."""

    name: str
    """Label of the row; if several tables have it, with the conditions of the table."""
    style: RowStyle
    row: Row
    table: AnalysedTable
    read_runs: Callable[[], list[StoredRun]] = field(repr=False)
    """Reads `runs`."""

    @cached_property
    def runs(self) -> list[StoredRun]:
        """The runs whose layers are shown, those of all seeds or of one seed, read at the first use.

        StoreError is raised if a file of a run is damaged.
        """
        return self.read_runs()

    @property
    def summaries(self) -> Sequence[RunSummary]:
        """Summaries of all runs of the row."""
        return self.row.group.runs

    @property
    def activation(self) -> str | None:
        """Name of the activation in the config of the first run."""
        if not self.runs:
            return None
        choice = self.runs[0].record["config"]["model"]["activation"]
        return choice["name"] if isinstance(choice, dict) else choice  # type: ignore[no-any-return]

    @cached_property
    def moments(self) -> list[Moment]:
        """At most MAX_MOMENTS probes that all `runs` have, in order of their steps."""
        if not self.runs:
            return []
        by_run = [{_step(snapshot): snapshot["layers"] for snapshot in run.snapshots} for run in self.runs]
        steps = evenly_spaced(sorted(set.intersection(*map(set, by_run))), MAX_MOMENTS)
        return [
            Moment(step, 1e18 if end is None else float(end), [layers[step] for layers in by_run])
            for step, end in zip_longest(steps, steps[1:])
        ]


@dataclass(frozen=True)
class ReportRuns(LayerReport):
    """Everything that the figures of a report show."""

    tables: list[AnalysedTable]
    rows: list[ReportRow]
    notes: list[str] = field(default_factory=list)
    """Sentences about runs and seeds that the report leaves out."""

    @property
    def baseline(self) -> str:
        """Name of the baseline's row; empty without one, or with one for each of several tables."""
        names = [row.name for row in self.rows if row.row is row.table.baseline]
        return names[0] if len(names) == 1 else ""

    @property
    def steps(self) -> list[int]:
        """All steps at which the layers of a row were probed."""
        return sorted({moment.step for row in self.rows for moment in row.moments})

    @cached_property
    def provenance(self) -> str:
        """The data sets, seeds and budgets of the runs, for captions."""
        datasets = ", ".join(dict.fromkeys(analysed.table.dataset for analysed in self.tables))
        counts = sorted({row.row.n for row in self.rows})
        seeds = plural(counts[0], "seed") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
        steps = sorted({run.steps for row in self.rows for run in row.summaries if run.steps})
        budget = f", {steps[0]:,} steps" if len(steps) == 1 else ""
        return f"{datasets}, {seeds} a row{budget}"

    @cached_property
    def nets(self) -> str:
        """A sentence on the nets of the rows: the terms of the config that they share, and the others."""
        words = {
            row.name: [one_line(word) for word in net_words(row.summaries[0].config)] for row in self.rows
        }
        terms = list(zip(*words.values(), strict=True))
        shared = [values[0] for values in terms if len(set(values)) == 1]
        parts = [", ".join(shared)] if shared else []
        if len(shared) < len(terms) and len(words) <= MAX_ROWS_DESCRIBED:
            by_row = {
                name: [word for word, values in zip(row, terms, strict=True) if len(set(values)) > 1]
                for name, row in words.items()
            }
            parts.append(", ".join(f"{name}: {' '.join(row)}" for name, row in by_row.items()))
        return f"Nets: {'; '.join(parts)}." if parts else ""


def compare_for_report(
    store: Store,
    runs: Sequence[RunSummary],
    view: View,
    *,
    by: Sequence[str] = (),
    target: float | None = None,
) -> ReportRuns:
    """Compare runs in tables; the layers of the runs in their rows are read at the first use.

    Args:
        store: The store of the runs.
        runs: The runs; those whose config is lost are skipped.
        view: Baseline and confidence of the comparison.
        by: Keys whose values make the rows; experiments are the rows if it is empty.
        target: Validation accuracy of `steps_to_target`; that of `build_tables` if None.

    Raises:
        UsageError: If no run is finished, or the baseline does not exist.
    """
    placed = [run for run in runs if run.is_placed]
    if not any(run.is_complete for run in placed):
        raise UsageError(f"no finished runs in {store.root}; `initbench ls` lists all runs")
    return report_of_tables(store, analyse(build_tables(placed, by=by, target=target), view))


class RunSource(Protocol):
    """Source of stored runs, such as a store."""

    def read_if_there(self, run_id: str) -> StoredRun | None:
        """Read a run; None if it does not exist."""


def report_of_tables(store: RunSource, tables: Sequence[AnalysedTable]) -> ReportRuns:
    """Return the runs in the rows of comparison tables; their layers are read at the first use.

    Args:
        store: The source of the runs.
        tables: The tables, whose order of rows determines the styles.
    """
    rows = [(table, row) for table in tables for row in table.rows]
    total = sum(row.n for _, row in rows)
    has_all_seeds = total <= MAX_RUNS_READ
    notes = []
    if not has_all_seeds:
        notes.append(
            f"Layers and histograms are those of one seed of each row, since there are {total:,} runs."
        )

    @cache
    def read_all() -> list[list[StoredRun]]:
        """Read the runs of all rows at once, which saves garbage collections."""
        with garbage_collection_off():
            return [_read_runs(store, row, has_all_seeds=has_all_seeds) for _, row in rows]

    names = [_row_name(table, row, tables) for table, row in rows]
    report_rows = [
        ReportRow(names[index], row_style(index), row, table, partial(_item, read_all, index))
        for index, (table, row) in enumerate(rows)
    ]
    return ReportRuns(list(tables), report_rows, notes)


def _item(read_all: Callable[[], list[list[StoredRun]]], index: int) -> list[StoredRun]:
    return read_all()[index]


def _row_name(table: AnalysedTable, row: Row, tables: Sequence[AnalysedTable]) -> str:
    label = one_line(row.label)
    is_unique = sum(other.label == row.label for t in tables for other in t.rows) == 1
    terms = distinguishing_terms(table.table, [t.table for t in tables])
    return label if is_unique or not terms else f"{label} · {terms}"


def _read_runs(store: RunSource, row: Row, *, has_all_seeds: bool) -> list[StoredRun]:
    complete = [run for run in row.group.runs if run.is_complete]
    # A finished run shows all moments of training; a diverged one is shown if no other exists.
    best_first = sorted(complete, key=lambda run: (not run.is_finished, run.seed))
    to_read = sorted(complete, key=lambda run: run.seed) if has_all_seeds else best_first[:1]
    runs = (store.read_if_there(run.run_id) for run in to_read)
    return [run for run in runs if run is not None and run.snapshots]


def _step(snapshot: dict[str, Any]) -> int:
    """Return the step of a probe; runs of early versions do not record that of the first one."""
    return int(snapshot.get("step") or 0)
