"""The page of a trainability map."""

from __future__ import annotations

from initbench.diagnostics.trainability_map import TrainabilityMap
from initbench.render.map_plot import map_heading
from initbench.render.text import one_line
from initbench.report.build import made_by
from initbench.report.page import ReportPage, ReportSection
from initbench.report.views.trainability_map import map_figures, map_takeaway


def build_map_page(result: TrainabilityMap, *, command: str | None = None) -> ReportPage:
    """Return the page of a map; `command` makes the page again, if it is not None."""
    return ReportPage(
        title=f"Trainability map: {one_line(result.config.name)}",
        summary=[one_line(map_heading(result).plain), map_takeaway(result)],
        rows=[],
        steps=[0],
        layers=result.axes.depth[-1],
        sections=[ReportSection("trainability", "Map", figures=tuple(map_figures(result)))],
        footer=made_by(command),
    )
