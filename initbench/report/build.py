"""Assembly of the report of stored runs: its sections in order, with their figures and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from initbench.analysis.run_summary import RunSummary
from initbench.render.text import one_line, plural
from initbench.report.figure import ReportFigure
from initbench.report.page import ReportPage, ReportSection
from initbench.report.report_runs import ReportRuns
from initbench.report.views.batch_norm import batch_norm_figures
from initbench.report.views.convergence import convergence_figures
from initbench.report.views.covariate_shift import covariate_shift_figures
from initbench.report.views.depth_profile import depth_figures
from initbench.report.views.details import details_section
from initbench.report.views.forest import forest_figures
from initbench.report.views.gates import GateOutcome
from initbench.report.views.heat_map import heat_map_figures
from initbench.report.views.histogram_grid import histogram_figures
from initbench.report.views.pretraining import pretraining_figures
from initbench.report.views.runs import runs_section
from initbench.report.views.sweep_map import sweep_figures
from initbench.report.views.verdicts import verdict_section

FigureBuilder = Callable[[ReportRuns], Iterator[ReportFigure]]

FIGURE_SECTIONS: Sequence[tuple[str, str, FigureBuilder]] = (
    ("histograms", "Histograms, layer by layer", histogram_figures),
    ("depth", "The signal against depth", depth_figures),
    ("heat", "Layers and steps", heat_map_figures),
    ("convergence", "Convergence", convergence_figures),
    ("forest", "Means and differences", forest_figures),
    ("sweep", "Accuracy over two keys", sweep_figures),
    ("batch-norm", "Batch norm", batch_norm_figures),
    ("covariate-shift", "Internal covariate shift", covariate_shift_figures),
    ("pretraining", "Layer-wise pre-training", pretraining_figures),
)
"""Sections of figures: key, title, and the function that yields the figures that the runs allow."""


def figures_of(report: ReportRuns) -> Iterator[ReportFigure]:
    """Yield all figures in the order of the page."""
    for _, _, build in FIGURE_SECTIONS:
        yield from build(report)


def build_page(
    report: ReportRuns,
    *,
    command: str | None = None,
    gates: GateOutcome | None = None,
    title: str | None = None,
    leading: Sequence[ReportSection] = (),
) -> ReportPage:
    """Return the page of stored runs.

    Args:
        report: The runs, whose baseline is pinned at first.
        command: The command that makes the page again; None if Python code made it.
        gates: Results of the gates of the command, if it has any.
        title: Heading; named after the rows if None.
        leading: Sections before the verdict.
    """
    sections = [*leading, verdict_section(report, gates)]
    for key, heading, build in FIGURE_SECTIONS:
        figures = tuple(build(report))
        if figures:
            sections.append(ReportSection(key, heading, figures=figures))
    sections += [details_section(report), runs_section(report)]
    layers = [layer["index"] for row in report.rows for moment in row.moments for layer in moment.layers[0]]
    runs = [run for row in report.rows for run in row.summaries]
    return ReportPage(
        title=title or _title(report),
        summary=[_summary(report, runs), *report.notes],
        rows=[(row.name, row.style) for row in report.rows],
        steps=report.steps,
        layers=max(layers, default=0),
        sections=sections,
        baseline=report.baseline,
        footer=[*made_by(command), *_versions(runs)],
    )


def made_by(command: str | None) -> list[str]:
    """Return the line of the footer with the command that makes the page again."""
    return [] if command is None else [f"Made by: {one_line(command)}"]


def _title(report: ReportRuns) -> str:
    names = report.names
    listed = " against ".join(names) if len(names) == 2 else ", ".join(names[:3])
    more = f" and {len(names) - 3} more rows" if len(names) > 3 else ""
    return f"{listed}{more}"


def _summary(report: ReportRuns, runs: Sequence[RunSummary]) -> str:
    rows = plural(len(report.rows), "row")
    return f"{plural(len(runs), 'run')} in {rows}: {report.provenance}."


def _versions(runs: Sequence[RunSummary]) -> list[str]:
    versions = sorted({run.version for run in runs if run.version})
    machines = sorted({run.machine for run in runs if run.machine})
    lines = []
    if versions:
        lines.append(f"Trained by initbench {', '.join(map(one_line, versions))}")
    if machines:
        lines.append(f"on {', '.join(map(one_line, machines))}")
    return [" ".join(lines) + "."] if lines else []
