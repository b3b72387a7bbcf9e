"""Assembly of the report of stored runs: its sections in order, with their figures and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from initbench.analysis.load_runs import garbage_collection_off
from initbench.analysis.run_summary import RunSummary
from initbench.render.text import one_line, plural
from initbench.report.drawing import PictureDrawer
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


@dataclass(frozen=True)
class FigureSection:
    """A section of the page that consists of figures."""

    key: str
    title: str
    build: FigureBuilder
    """Yields the figures that the runs allow."""
    keys: Sequence[str]
    """Keys of the figures; if there are several of a kind, numbers are appended to theirs."""
    shows_layers: bool = True
    """Whether the figures need the layers of the runs, whose reading takes long."""


FIGURE_SECTIONS: Sequence[FigureSection] = (
    FigureSection(
        "histograms",
        "Histograms, layer by layer",
        histogram_figures,
        ("histograms-activation", "histograms-pre-activation", "histograms-gradient"),
    ),
    FigureSection(
        "depth",
        "The signal against depth",
        depth_figures,
        ("depth-activation-std", "depth-q", "depth-gradient", "depth-dead-units", "depth-saturated"),
    ),
    FigureSection("heat", "Layers and steps", heat_map_figures, ("heat-activation-std", "heat-gradient")),
    FigureSection(
        "convergence",
        "Convergence",
        convergence_figures,
        ("validation-accuracy", "training-loss"),
        shows_layers=False,
    ),
    FigureSection(
        "forest",
        "Means and differences",
        forest_figures,
        (
            "forest-test-accuracy",
            "forest-best-val-accuracy",
            "forest-steps-to-target",
            "forest-final-train-loss",
        ),
        shows_layers=False,
    ),
    FigureSection("sweep", "Accuracy over two keys", sweep_figures, ("sweep-map",), shows_layers=False),
    FigureSection(
        "batch-norm",
        "Batch norm",
        batch_norm_figures,
        ("norm-running-mean-gap", "norm-running-variance-ratio", "norm-accuracy-init", "norm-accuracy-end"),
    ),
    FigureSection(
        "covariate-shift",
        "Internal covariate shift",
        covariate_shift_figures,
        ("shift-input-drift-depth", "shift-input-drift-step", "shift-gradient-depth", "shift-gradient-step"),
    ),
    FigureSection("pretraining", "Layer-wise pre-training", pretraining_figures, ("pretraining-loss",)),
)
"""The sections of figures in the order of the page."""
BUILD_ORDER = sorted(FIGURE_SECTIONS, key=lambda section: section.shows_layers)
"""The sections in the order in which their figures are ready: those that need no layers are first."""


def figures_of(report: ReportRuns) -> Iterator[ReportFigure]:
    """Yield all figures in the order of the page."""
    for section in FIGURE_SECTIONS:
        yield from section.build(report)


def find_figure(report: ReportRuns, key: str) -> ReportFigure | None:
    """Return a figure, or None if the runs do not allow it; layers are read only if figures need them."""
    figures = (figure for section in BUILD_ORDER for figure in section.build(report))
    return next((figure for figure in figures if figure.key == key), None)


def _figures_by_section(
    report: ReportRuns, drawer: PictureDrawer | None
) -> dict[str, tuple[ReportFigure, ...]]:
    """Return the figures of each section; `drawer` draws those that are ready while layers are read."""
    by_section: dict[str, tuple[ReportFigure, ...]] = {}
    with garbage_collection_off():  # there are a million numbers, and no cycles
        for section in BUILD_ORDER:
            for figure in section.build(report):
                by_section[section.key] = (*by_section.get(section.key, ()), figure)
                if drawer is not None:
                    drawer.start(figure)
    return by_section


def build_page(
    report: ReportRuns,
    *,
    command: str | None = None,
    gates: GateOutcome | None = None,
    title: str | None = None,
    failures: Sequence[str] = (),
    leading: Sequence[ReportSection] = (),
    trailing: Sequence[ReportSection] = (),
    drawer: PictureDrawer | None = None,
) -> ReportPage:
    """Return the page of stored runs.

    Args:
        report: The runs, whose baseline is pinned at first.
        command: The command that makes the page again; None if Python code made it.
        gates: Results of the gates of the command, if it has any.
        title: Heading; named after the rows if None.
        failures: Lines on what made the command fail, apart from gates.
        leading: Sections before the verdict.
        trailing: Sections after the figures.
        drawer: Starts to draw each figure when it is built; pass it to `render_page`, too.

    Raises:
        StoreError: If a file of a run is damaged.
    """
    figures = _figures_by_section(report, drawer)
    sections = [
        *leading,
        verdict_section(report, gates, failures),
        *(
            ReportSection(section.key, section.title, figures=figures[section.key])
            for section in FIGURE_SECTIONS
            if section.key in figures
        ),
        *trailing,
        details_section(report),
        runs_section(report),
    ]
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
    more = f" and {plural(len(names) - 3, 'more row')}" if len(names) > 3 else ""
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
