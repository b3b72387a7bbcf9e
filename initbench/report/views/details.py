"""Details of the runs: config keys that differ, versions, data and machines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from initbench.render.compare.config_diff import config_diff_table
from initbench.render.text import dataset_used, one_line
from initbench.report.page import HtmlTable, ReportSection
from initbench.report.report_runs import ReportRow, ReportRuns


def details_section(report: ReportRuns) -> ReportSection:
    """Return the section with tables of everything that identifies the runs."""
    return ReportSection(
        "details",
        "Details",
        tables=[*_config_keys(report), _origins(report)],
    )


def _config_keys(report: ReportRuns) -> Iterator[HtmlTable]:
    """Yield the table of the keys that differ between rows, if there are any."""
    block = config_diff_table(report.tables)
    if block.rows and len(report.rows) > 1:
        rows = [[cell.text for cell in row] for row in block.rows]
        yield HtmlTable(block.headings, rows, block.notes, title=block.title)


def _origins(report: ReportRuns) -> HtmlTable:
    """Return a table with a line for each distinct value of each property, and the rows that have it."""
    names: dict[tuple[str, str], list[str]] = {}
    for row in report.rows:
        for name, value in _properties(row).items():
            names.setdefault((name, value), []).append(row.name)
    order = list(dict.fromkeys(name for name, _ in names))
    lines = sorted(names.items(), key=lambda item: order.index(item[0][0]))
    return HtmlTable(
        ["property", "value", "rows"],
        [
            [name, value, "all" if len(rows) == len(report.rows) else ", ".join(rows)]
            for (name, value), rows in lines
        ],
        title="Data, versions and machines",
    )


def _properties(row: ReportRow) -> dict[str, str]:
    """Return what a row was trained with; several values of its runs are joined by commas."""
    runs = row.summaries
    versions = [run.record.get("versions") or {} for run in row.runs]
    packages = dict.fromkeys(name for version in versions for name in version)
    values = {
        "data": (dataset_used(run.dataset, run.dataset_requested) for run in runs),
        "fingerprint of the data": (run.fingerprint for run in runs),
        "initbench": (run.version for run in runs),
        "torch": (run.identity.get("torch") for run in runs),
        **{
            name: [version.get(name) for version in versions]
            for name in packages
            if name not in ("initbench", "torch")
        },
        "hash of the code": (run.identity.get("code") for run in runs),
        "device": (run.identity.get("device") for run in runs),
        "machine": (run.machine for run in runs),
        "days of training": sorted(run.created[:10] for run in runs),
    }
    return {name: words for name, each in values.items() if (words := _distinct(each))}


def _distinct(values: Iterable[Any]) -> str:
    """Return the distinct values that are recorded, joined by commas; empty if none is."""
    return one_line(", ".join(str(value) for value in dict.fromkeys(values) if value))
