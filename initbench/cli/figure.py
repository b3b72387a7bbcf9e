"""`initbench figure`: write one figure of stored runs as a picture for a paper."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from initbench.cli.compare import Baseline, By, Confidence, Target
from initbench.cli.completion import complete_figures
from initbench.cli.options import RunPatterns, RunsDir, Where
from initbench.cli.report import select_report_runs
from initbench.errors import UsageError
from initbench.store.files import write_output

Kind = Annotated[
    str | None,
    typer.Argument(
        metavar="KIND",
        help="Figure to draw, such as depth-q; --list shows those that the runs allow.",
        show_default=False,
        autocompletion=complete_figures,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FILE",
        help="File to write: a picture (.svg, .png, .pdf), the numbers (.csv) or the Vega-Lite specification"
        " (.json); default: KIND.svg.",
        show_default=False,
    ),
]
Columns = Annotated[
    int | None,
    typer.Option(
        "--columns",
        min=1,
        max=2,
        metavar="1|2",
        help="Width in a paper: one column (3.3 in) or two (6.9 in), with text of 7 pt; default: 2 for"
        " histograms, otherwise 1.",
        show_default=False,
    ),
]
Step = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="N",
        help="Show the layers at the probe nearest to N updates; default: at init.",
        show_default=False,
    ),
]
Title = Annotated[
    str | None,
    typer.Option(
        "--title", metavar="TEXT", help="Bold text before the caption; default: the figure's title."
    ),
]
NoCaption = Annotated[
    bool, typer.Option("--no-caption", help="Draw no caption; it is printed on stdout in any case.")
]
List = Annotated[bool, typer.Option("--list", help="List the figures that the runs allow, and exit.")]


def figure(
    kind: Kind = None,
    patterns: RunPatterns = None,
    output: Output = None,
    columns: Columns = None,
    step: Step = None,
    by: By = None,
    where: Where = None,
    baseline: Baseline = None,
    target: Target = None,
    confidence: Confidence = 0.95,
    title: Title = None,
    no_caption: NoCaption = False,
    list_figures: List = False,
    runs_dir: RunsDir = None,
) -> None:
    """Write one figure of stored runs (default: all) as SVG, PNG or PDF, sized for a paper.

    The caption below the figure, which states n, data and config, is also printed on stdout.
    The same runs give the same bytes.
    """
    from initbench.render.compare.display_options import View
    from initbench.report.build import figures_of
    from initbench.report.figure_selection import select_figure
    from initbench.report.print_layout import PrintLayout, figure_suffix, full_caption, print_figure

    if kind is None and not list_figures:
        raise UsageError("name a figure, such as depth-q; `initbench figure --list` lists them")
    path = Path(f"{kind}.svg") if output is None else output
    suffix = figure_suffix(path)
    # After --list, the first word is a run as well.
    selected = [kind, *(patterns or [])] if list_figures and kind is not None else patterns or []
    view = View(baseline=baseline, confidence=confidence)
    report = select_report_runs(selected, where, runs_dir, view, by=by, target=target)
    if list_figures or kind is None:
        for each in figures_of(report):
            typer.echo(f"{each.key}\t{each.title}")
        return
    selected_figure = select_figure(report, kind, step=step)
    layout = PrintLayout.of(selected_figure, columns, heading=title, has_caption=not no_caption)
    write_output(path, print_figure(selected_figure, layout, suffix))
    typer.echo(full_caption(selected_figure, layout))
    typer.echo(f"written to {path}", err=True)
