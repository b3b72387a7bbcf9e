"""The runs of a report one by one, and the config of each row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from initbench.analysis.run_summary import RunSummary
from initbench.render.text import one_line, plural
from initbench.report.page import MAX_TABLE_ROWS, FoldedText, HtmlTable, ReportSection
from initbench.report.report_runs import ReportRow, ReportRuns

MAX_CONFIGS = 100
"""Largest number of rows whose configs the page contains."""


def runs_section(report: ReportRuns) -> ReportSection:
    """Return the section with one line for each run, diverged ones first, and the config of each row."""
    lines = [line for number, row in enumerate(report.rows) for line in _lines(report, number, row)]
    lines.sort(key=lambda line: line[1][2] != "diverged")
    notes = []
    if len(lines) > MAX_TABLE_ROWS:
        rest = plural(len(lines) - MAX_TABLE_ROWS, "other run")
        notes.append(f"The first {MAX_TABLE_ROWS} runs; `initbench ls` lists the {rest}.")
    if len(report.rows) > MAX_CONFIGS:
        notes.append(f"Configs of the first {MAX_CONFIGS} rows.")
    lines = lines[:MAX_TABLE_ROWS]
    columns = ["row", "run", "status", "not finite after updates", "first in layer"]
    table = HtmlTable(columns, [cells for _, cells in lines], notes, [target for target, _ in lines])
    return ReportSection("runs", "Runs and configs", folds=list(_configs(report)), tables=[table])


def config_key(report: ReportRuns, number: int) -> str:
    """Return the name in links to the config of the row with this position; empty if it has none."""
    has_config = number < MAX_CONFIGS and bool(_config(report.rows[number]))
    return f"config-{number + 1}" if has_config else ""


def _config(row: ReportRow) -> dict[str, Any]:
    return next((run.config for run in row.summaries if run.config), {})


def _configs(report: ReportRuns) -> Iterator[FoldedText]:
    for number, row in enumerate(report.rows[:MAX_CONFIGS]):
        key = config_key(report, number)
        if key:
            text = yaml.safe_dump(_config(row), sort_keys=False, allow_unicode=True, width=100)
            yield FoldedText(f"Config of {row.name}", text.rstrip(), key, is_code=True)


def _lines(report: ReportRuns, number: int, row: ReportRow) -> Iterator[tuple[str, list[str]]]:
    """Yield for each run the key of its config and its cells."""
    diverged = {run.run_id: run.record.get("diverged") or {} for run in row.runs}
    for run in row.summaries:
        layer = diverged.get(run.run_id, {}).get("layer")
        cells = [row.name, one_line(run.run_id), run.status, _step(run), "" if layer is None else str(layer)]
        yield config_key(report, number), cells


def _step(run: RunSummary) -> str:
    return "" if run.diverged_step is None else f"{run.diverged_step:,}"
