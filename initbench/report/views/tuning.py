"""The tables of a tuning: the best value of the tuned key for each row, and how much it matters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from initbench.render.tuning_tables import tuning_grid, tuning_legend
from initbench.report.page import HtmlTable, ReportSection
from initbench.study.run_study import StudyResult


def tuning_sections(results: Sequence[StudyResult[Any]]) -> list[ReportSection]:
    """Return a section with a table for each study that tuned a key; none if no study did."""
    tables = []
    for result in results:
        tuned = result.tunings
        if tuned:
            grid = tuning_grid(tuned)
            title = result.study.name if len(results) > 1 else ""
            rows = [cells for cells, _ in grid.rows]
            tables.append(HtmlTable(grid.headings, rows, [tuning_legend(tuned)], title=title))
    return [ReportSection("tuning", "Tuning", tables=tables)] if tables else []
