"""`initbench report`: write a page with pictures of stored runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from initbench.cli.compare import Baseline, By, Confidence, Target, resolve_keys
from initbench.cli.options import RunPatterns, RunsDir, Where, runs_root
from initbench.cli.report_option import check_report_file, command_line, save_page
from initbench.store.store import Store

if TYPE_CHECKING:
    from initbench.render.compare.display_options import View
    from initbench.report.report_runs import ReportRuns

Output = Annotated[
    Path, typer.Option("-o", "--output", metavar="FILE", help="HTML file to write; it is replaced.")
]
Title = Annotated[
    str | None, typer.Option("--title", metavar="TEXT", help="Heading of the page.", show_default=False)
]


def report(
    patterns: RunPatterns = None,
    by: By = None,
    where: Where = None,
    baseline: Baseline = None,
    target: Target = None,
    confidence: Confidence = 0.95,
    title: Title = None,
    output: Output = Path("report.html"),
    runs_dir: RunsDir = None,
) -> None:
    """Write one HTML page with pictures of stored runs (default: all): histograms, layers and convergence.

    The page is a single file that needs no network, and the same runs give the same bytes. docs/report.md
    explains it.
    """
    from initbench.render.compare.display_options import View
    from initbench.report.drawing import PictureDrawer

    check_report_file(output)
    view = View(baseline=baseline, confidence=confidence)
    report_runs = select_report_runs(patterns, where, runs_dir, view, by=by, target=target)
    with PictureDrawer() as drawer:
        from initbench.report.build import build_page  # takes a while, in which the engine starts

        page = build_page(report_runs, command=command_line(), title=title, drawer=drawer)
        save_page(output, page, drawer)


def select_report_runs(
    patterns: Sequence[str] | None,
    where: Sequence[str] | None,
    runs_dir: Path | None,
    view: View,
    *,
    by: list[str] | None,
    target: float | None,
) -> ReportRuns:
    """Return the runs that the options of `report` and `figure` select, in the rows of a comparison.

    Raises:
        UsageError: If a pattern or condition matches no run, no run is finished, or a key or the baseline
            does not exist.
    """
    from initbench.analysis.selection import Selection
    from initbench.report.report_runs import compare_for_report

    selection = Selection(Store(runs_root(runs_dir)), patterns or [], where or [])
    keys = resolve_keys(by, selection.runs)
    return compare_for_report(selection.store, selection.runs, view, by=keys, target=target)
