"""Details of the runs: config keys that differ, versions, data, machines and run ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from initbench.render.compare.config_diff import config_diff_table
from initbench.render.text import DASH, dataset_used, one_line, plural
from initbench.report.page import HtmlTable, ReportSection
from initbench.report.report_runs import ReportRow, ReportRuns

MAX_RUNS = 500
"""Largest number of runs that are listed."""


def details_section(report: ReportRuns) -> ReportSection:
    """Return the section with tables of everything that identifies the runs."""
    return ReportSection(
        "details",
        "Details",
        tables=[*_config_keys(report), _origins(report), _runs(report)],
        is_open=False,
    )


def _config_keys(report: ReportRuns) -> Iterator[HtmlTable]:
    """Yield the table of the keys that differ between rows, if there are any."""
    block = config_diff_table(report.tables)
    if block.rows and len(report.rows) > 1:
        rows = [[cell.text for cell in row] for row in block.rows]
        yield HtmlTable(block.headings, rows, block.notes, title=block.title)


def _origins(report: ReportRuns) -> HtmlTable:
    columns = ["row", "data", "fingerprint of the data", "initbench", "torch", "other versions"]
    columns += ["device", "code", "machine", "trained"]
    return HtmlTable(columns, [_origin(row) for row in report.rows], title="Data, versions and machines")


def _origin(row: ReportRow) -> list[str]:
    runs = row.summaries
    return [
        row.name,
        _distinct(dataset_used(run.dataset, run.dataset_requested) for run in runs),
        _distinct(run.fingerprint for run in runs),
        _distinct(run.version for run in runs),
        _distinct(str(run.identity.get("torch") or "") for run in runs),
        _distinct(
            f"{name} {version}"
            for run in row.runs
            for name, version in (run.record.get("versions") or {}).items()
            if name not in ("initbench", "torch")
        ),
        _distinct(str(run.identity.get("device") or "") for run in runs),
        _distinct(str(run.identity.get("code") or "") for run in runs),
        _distinct(run.machine for run in runs),
        _distinct(sorted(run.created[:10] for run in runs)),
    ]


def _distinct(values: Iterable[str]) -> str:
    """Return the distinct values that are recorded, joined by commas."""
    return one_line(", ".join(value for value in dict.fromkeys(values) if value)) or DASH


def _runs(report: ReportRuns) -> HtmlTable:
    runs = [(row.name, run) for row in report.rows for run in row.summaries]
    rows = [
        [
            one_line(run.run_id),
            name,
            str(run.seed),
            run.status,
            DASH if run.steps is None else f"{run.steps:,}",
        ]
        for name, run in runs[:MAX_RUNS]
    ]
    notes = []
    if len(runs) > MAX_RUNS:
        notes.append(f"The first {MAX_RUNS} of {plural(len(runs), 'run')}; `initbench ls` lists all.")
    return HtmlTable(["run", "row", "seed", "status", "budget in updates"], rows, notes, title="Runs")
