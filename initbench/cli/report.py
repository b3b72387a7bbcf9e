"""`initbench report`: write a page with pictures of stored runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from initbench.cli.compare import Baseline, By, Confidence, Target
from initbench.cli.options import RunPatterns, RunsDir, Where
from initbench.cli.report_option import check_report_file, command_line, save_page, select_report_runs

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
    from initbench.report.build import build_page
    from initbench.report.drawing import PictureDrawer

    check_report_file(output)
    view = View(baseline=baseline, confidence=confidence)
    report_runs = select_report_runs(patterns, where, runs_dir, view, by=by, target=target)
    with PictureDrawer() as drawer:
        page = build_page(report_runs, command=command_line(), title=title, drawer=drawer)
        save_page(output, page, drawer)
