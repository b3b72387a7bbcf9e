"""Choice of one figure of a report by its key, with the probe and the baseline that it shows."""

from __future__ import annotations

from dataclasses import replace

from initbench.errors import UsageError
from initbench.registry import unknown_name_message
from initbench.report.build import figures_of, find_figure
from initbench.report.figure import ReportFigure
from initbench.report.print_layout import at_step, relative_to, shows_one_step
from initbench.report.report_runs import ReportRuns


def select_figure(report: ReportRuns, key: str, *, step: int | None = None) -> ReportFigure:
    """Return a figure that shows one probe, and whose caption describes the nets.

    If the tables have a baseline, the figure shows differences from it or ratios to it.

    Args:
        report: The runs.
        key: Key of the figure.
        step: Number of updates; the nearest probe is shown. At init if None.

    Raises:
        UsageError: If the runs do not allow the figure, or the figure cannot show a step or the baseline.
    """
    figure = find_figure(report, key)
    if figure is None:
        figures = [figure.key for figure in figures_of(report)]
        problem, listed = unknown_name_message("figure", key, figures), ", ".join(figures)
        raise UsageError(problem if listed in problem else f"{problem} These runs allow: {listed}")
    if step is not None and not shows_one_step(figure):
        raise UsageError(f"{key} shows all steps: drop --step")
    if any(table.baseline is not None for table in report.tables) and not figure.is_comparison:
        if "baseline" not in figure.parameter_names:
            raise UsageError(_no_differences(report, key))
        if not report.baseline:
            raise UsageError(
                f"the baseline is a row of {len(report.tables)} tables: choose the runs of one with --where"
            )
        figure = relative_to(figure, report.baseline)
    figure = at_step(figure, step or 0)
    return replace(figure, caption=f"{figure.caption} {report.nets}".rstrip())


def _no_differences(report: ReportRuns, key: str) -> str:
    """Return the reason why a figure has no baseline, and the figures that have one."""
    others = [
        figure.key
        for figure in figures_of(report)
        if figure.is_comparison or "baseline" in figure.parameter_names
    ]
    return (
        f"{key} shows the values of each row in a place of its own, not differences from a baseline: drop"
        f" --baseline, or draw one of {', '.join(others)}"
    )
