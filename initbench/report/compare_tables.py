"""What `compare` prints: one table for each data set, or for each of those that share a name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.text import Text

from initbench.compare.rows import Row, Table
from initbench.report import text
from initbench.report.grid import Grid
from initbench.report.terminal import print_uncut

_DIGITS = 8
"""As much of a fingerprint as tells data sets of one name apart."""


def print_tables(console: Console, tables: Sequence[Table]) -> None:
    """Print every table, uncut."""
    names = Counter(table.dataset for table in tables)
    for table in tables:
        print_uncut(console, comparison(table, shared_name=names[table.dataset] > 1))


def comparison(table: Table, *, shared_name: bool = False) -> RenderableType:
    """The rows on the same data; where several data sets share its name, its fingerprint tells which."""
    return Group(_title(table, shared_name), Text(""), _grid(table).table(), *_notes(table), Text(""))


def _title(table: Table, shared_name: bool) -> Text:
    which = f" {(table.fingerprint or 'unknown')[:_DIGITS]}" if shared_name else ""
    return Text.assemble((table.dataset + which, "bold"), f"   {text.plural(len(table.rows), 'experiment')}")


def _grid(table: Table) -> Grid:
    goal = "" if table.target is None else f" {100 * table.target:.1f} %"
    columns = (
        "experiment",
        "n",
        "act std at init, first / middle / last",
        "E[δ²] first/last",
        "best val %",
        "final val %",
        "test %",
        f"steps to{goal}",
        "diverged",
    )
    grid = Grid(columns, left=("experiment",))
    for row in table.rows:
        grid.add(_cells(row))
    return grid


def _cells(row: Row) -> list[str]:
    m = row.metrics
    std = " / ".join(text.number(m[f"act_std_init_{where}"].mean) for where in ("first", "middle", "last"))
    return [
        row.label,
        str(row.n),
        std,
        text.number(m["grad_ratio_init"].mean),
        text.percent_summary(m["best_val_accuracy"]),
        text.percent_summary(m["final_val_accuracy"]),
        text.percent_summary(m["test_accuracy"]),
        _steps(row),
        f"{row.diverged} of {row.n}" if row.diverged else "",
    ]


def _steps(row: Row) -> str:
    if row.metrics["steps_to_target"].mean is not None:
        return text.count_summary(row.metrics["steps_to_target"])
    return "not reached" if not row.reached else f"reached by {row.reached} of {row.n}"


def _notes(table: Table) -> list[Text]:
    lines = [
        Text("± is the standard deviation over seeds; gradient ratios are geometric means.", style="dim")
    ]
    unfinished = sum(row.unfinished for row in table.rows)
    if unfinished:
        lines.append(Text(f"{text.plural(unfinished, 'run')} not finished and not counted.", style="yellow"))
    return lines
