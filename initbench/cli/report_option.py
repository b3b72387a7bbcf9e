"""`--report FILE`: commands that train or compare also write the page of `initbench report`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from initbench.errors import UsageError
from initbench.store.files import check_output, write_output

if TYPE_CHECKING:
    from initbench.analysis.tables import Table
    from initbench.cli.gate_options import GateReport
    from initbench.render.compare.display_options import View
    from initbench.report.drawing import PictureDrawer
    from initbench.report.page import ReportPage, ReportSection
    from initbench.report.views.gates import GateOutcome
    from initbench.store.store import Store

ReportFile = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE",
        help="Also write an HTML page with pictures of the results; see initbench report.",
        show_default=False,
    ),
]


def check_report_file(path: Path | None, without: Mapping[str, bool] | None = None) -> None:
    """Check before any work that the page can be written.

    Args:
        path: Value of `--report`; None if it is not given.
        without: Options that leave nothing to report, and whether each is given.

    Raises:
        MissingExtraError: If the packages of the extra `report` are not installed.
        UsageError: If the file cannot be written, or an option leaves nothing to report.
    """
    if path is None:
        return
    for option, is_given in (without or {}).items():
        if is_given:
            raise UsageError(f"--report cannot be combined with {option}")
    from initbench.report.page import require_packages

    require_packages()
    check_output(path)


def write_run_report(
    path: Path | None,
    store: Store,
    tables: Sequence[Table],
    view: View | None = None,
    *,
    title: str | None = None,
    verdicts: GateReport | None = None,
    failures: Sequence[str] = (),
    leading: Sequence[ReportSection] = (),
    trailing: Sequence[ReportSection] = (),
) -> None:
    """Write the page of the runs in comparison tables; do nothing without a path.

    Without a finished run there is no page, and a line on stderr says so.

    Args:
        path: Value of `--report`.
        store: The store of the runs.
        tables: The tables, whose rows are those of the page.
        view: Display options of the tables, such as the baseline.
        title: Heading of the page; None for one that names the rows.
        verdicts: Results of the gates, if the command has any.
        failures: Lines on what made the command fail, apart from gates.
        leading: Sections before the verdict.
        trailing: Sections after the figures.
    """
    if path is None:
        return
    from initbench.render.compare.analysed_table import analyse
    from initbench.render.compare.display_options import View
    from initbench.report.build import build_page
    from initbench.report.drawing import PictureDrawer
    from initbench.report.report_runs import report_of_tables

    if not any(row.n for table in tables for row in table.rows):
        typer.echo(f"initbench: {path} is not written: no run is finished", err=True)
        return
    with PictureDrawer() as drawer:
        page = build_page(
            report_of_tables(store, analyse(tables, view or View())),
            command=command_line(),
            gates=None if verdicts is None else _outcome(verdicts),
            title=title,
            failures=failures,
            leading=leading,
            trailing=trailing,
            drawer=drawer,
        )
        save_page(path, page, drawer)


def save_page(path: Path, page: ReportPage, drawer: PictureDrawer | None = None) -> None:
    """Write a page, whose figures `drawer` may have begun to draw, and say so on stderr."""
    from initbench.report.page import render_page

    write_output(path, render_page(page, drawer))
    typer.echo(f"written to {path}", err=True)


def command_line() -> str:
    """Return the command line as a user types it."""
    return shlex.join(["initbench", *sys.argv[1:]])


def _outcome(verdicts: GateReport) -> GateOutcome:
    from initbench.report.views.gates import GateOutcome

    options = verdicts.options
    return GateOutcome(
        results=verdicts.gates,
        is_strict=options.strict,
        exit_code=verdicts.exit_code,
        changes=verdicts.changes,
        earlier="" if options.against is None else str(options.against),
        obstacles=[*verdicts.damage, *verdicts.misplaced, *verdicts.obstacles],
    )
