"""`initbench compare`: compare stored runs in tables."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from initbench.analysis.tuning_warnings import edge_of_range_warnings
from initbench.cli.completion import (
    complete_columns,
    complete_keys,
    complete_metrics,
    complete_sort,
)
from initbench.cli.gate_options import (
    Against,
    FailIf,
    FailUnless,
    JunitXml,
    Strict,
    check_gates,
    fail_unjudged,
    gate_options,
    print_verdicts,
)
from initbench.cli.options import Json, Notes, RunPatterns, RunsDir, Where, runs_root
from initbench.cli.report_option import ReportFile, check_report_file, write_run_report
from initbench.errors import UsageError
from initbench.render.terminal import stdout_console, stdout_width
from initbench.store.store import Store

if TYPE_CHECKING:
    from initbench.analysis.run_summary import RunSummary
    from initbench.analysis.selection import Selection
    from initbench.analysis.tables import Table
    from initbench.render.compare.display_options import View

ViewName = Literal["all", "activation", "convergence"]
FormatName = Literal["table", "markdown", "csv", "json", "latex"]
Names = list[str] | None

By = Annotated[
    Names,
    typer.Option(
        "--by",
        metavar="KEY,…",
        help="Keys whose values form the rows; two keys form a pivot.",
        autocompletion=complete_keys,
    ),
]
ViewOption = Annotated[ViewName, typer.Option("--view", help="Group of metrics to show.")]
MetricOption = Annotated[
    Names,
    typer.Option(
        "--metric", metavar="NAME,…", help="Show one metric in detail.", autocompletion=complete_metrics
    ),
]
Columns = Annotated[
    Names,
    typer.Option(
        "--columns",
        metavar="NAME,…",
        help="Metrics, counts or keys to show.",
        autocompletion=complete_columns,
    ),
]
Sort = Annotated[
    str | None,
    typer.Option(
        "--sort",
        metavar="[-]NAME",
        help="Sort by a metric or label; - for descending.",
        autocompletion=complete_sort,
    ),
]
OnlyChanged = Annotated[bool, typer.Option("--only-changed", help="Show only the config keys that differ.")]
Layers = Annotated[bool, typer.Option("--layers", help="Show one line per layer, at init and at the end.")]
Plot = Annotated[bool, typer.Option("--plot", help="Plot learning curves.")]
Baseline = Annotated[
    str | None, typer.Option("--baseline", metavar="NAME", help="Compare every row with this baseline.")
]
Confidence = Annotated[
    float,
    typer.Option("--confidence", min=0.5, max=0.9999, help="Confidence level of intervals, tests and gates."),
]
Target = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=1.0,
        help="Count steps to this validation accuracy; default: 0.9 of the best mean in the table.",
        show_default=False,
    ),
]
FormatOption = Annotated[
    FormatName | None, typer.Option("--format", help="Output format.", show_default=False)
]
Output = Annotated[
    Path | None,
    typer.Option(
        "-o", "--output", metavar="FILE", help="Write the output to FILE; the format follows from the suffix."
    ),
]


def compare(
    patterns: RunPatterns = None,
    by: By = None,
    where: Where = None,
    baseline: Baseline = None,
    view: ViewOption = "all",
    metric: MetricOption = None,
    columns: Columns = None,
    sort: Sort = None,
    only_changed: OnlyChanged = False,
    layers: Layers = False,
    plot: Plot = False,
    notes: Notes = False,
    target: Target = None,
    confidence: Confidence = 0.95,
    format: FormatOption = None,
    output: Output = None,
    fail_if: FailIf = None,
    fail_unless: FailUnless = None,
    strict: Strict = False,
    against: Against = None,
    junit_xml: JunitXml = None,
    report: ReportFile = None,
    runs_dir: RunsDir = None,
    json_output: Json = False,
) -> None:
    """Compare stored runs (default: all): activation statistics and convergence.

    docs/compare.md explains the tables, docs/ci.md the gates. Exit 1 if a gate is triggered.
    Damaged runs are reported on stderr and skipped.
    """
    from initbench.analysis.selection import Selection
    from initbench.analysis.tables import build_tables

    check_report_file(report)
    gates = gate_options(fail_if, strict, against, junit_xml, confidence, fail_unless)
    selection = Selection(Store(runs_root(runs_dir)), patterns or [], where or [])
    try:
        runs = [run for run in selection.runs if run.is_placed]
    except UsageError as error:  # no runs are stored, or none match
        fail_unjudged(gates, str(error))
        raise
    run_tables = build_tables(runs, by=resolve_keys(by, runs), target=target)
    metric_options = {"metrics": _parse_metrics(metric), "columns": _parse_columns(columns, runs)}
    column_options = {"view": view, **metric_options, "sort": _parse_sort(sort)}
    drawing_options = {"only_changed": only_changed, "layers": layers, "plot": plot, "all_notes": notes}
    output_format = _choose_format(format, output, json_output=json_output)
    table_view = _build_view(
        **column_options,
        **drawing_options,
        baseline=baseline,
        confidence=confidence,
        format=output_format,
        aside=_table_notes(selection),
    )
    verdicts = check_gates(gates, selection, run_tables)
    if table_view.format in ("json", "csv"):  # these formats have no footnotes
        _report_baseline(run_tables, table_view)
    _print_or_save(run_tables, table_view, output, selection.store, verdicts.document())
    write_run_report(report, selection.store, run_tables, table_view, verdicts=verdicts)
    print_verdicts(verdicts)
    if code := verdicts.exit_code:
        raise typer.Exit(code)


def _table_notes(selection: Selection) -> list[str]:
    """Return notes on the selected runs that no table contains."""
    from initbench.render.compare.run_counts import unattributed_runs

    missing = [f"{sentence}." for sentence in selection.missing]
    return [
        *missing,
        *unattributed_runs(selection.runs),
        *edge_of_range_warnings(selection.store.root, selection.runs),
    ]


def resolve_keys(by: Names, runs: Sequence[RunSummary]) -> list[str]:
    """Return the config keys that the values of `--by` name; raise UsageError for unknown or too many."""
    from initbench.analysis.config_keys import resolve_key

    keys = _split_names(by)
    if len(keys) > 2:
        raise UsageError(f"--by takes one key, or two for a pivot; got {', '.join(keys)}")
    return [resolve_key(key, runs, "--by") for key in keys]


def _parse_metrics(texts: Names) -> list[str]:
    """Split `texts` at commas and spaces, but keep table headings that contain them."""
    from initbench.render.compare.display_options import canonical_name

    names: list[str] = []
    for text in texts or []:
        pieces = [piece.strip() for piece in text.split(",")]
        while pieces:
            heads = (", ".join(pieces[:count]) for count in range(len(pieces), 0, -1))
            heading = next((head for head in heads if canonical_name(head) != head), None)
            names += pieces[0].split() if heading is None else [canonical_name(heading)]
            del pieces[: 1 if heading is None else heading.count(",") + 1]
    return names


def _parse_columns(texts: Names, runs: Sequence[RunSummary]) -> list[str]:
    from initbench.analysis.config_keys import resolve_key

    return [resolve_key(name, runs, "--columns") if "." in name else name for name in _parse_metrics(texts)]


def _parse_sort(name: str | None) -> str | None:
    from initbench.render.compare.display_options import canonical_name

    if name is None:
        return None
    sign = "-" if name.startswith("-") else ""
    return sign + canonical_name(name.removeprefix("-").strip())


def _split_names(texts: Names) -> list[str]:
    return [name for text in texts or [] for name in text.replace(",", " ").split()]


def _choose_format(format_option: FormatName | None, output: Path | None, *, json_output: bool) -> FormatName:
    from initbench.render.compare.display_options import SUFFIXES, format_of

    if json_output and format_option not in (None, "json"):
        raise UsageError(f"--json and --format {format_option} conflict: drop one of them")
    requested = "json" if json_output else format_option
    suffix_format = SUFFIXES.get(output.suffix.lower()) if output else None
    if requested and suffix_format not in (None, requested):
        option = "--json" if json_output else f"--format {requested}"
        raise UsageError(f"{option} and -o {output} conflict: drop {option}, or rename the file")
    return requested or ("table" if output is None else format_of(output))


def _build_view(**options: object) -> View:
    from initbench.render.compare.display_options import View, check_together

    view = View(width=stdout_width(), ascii_only=is_ascii(), **options)  # type: ignore[arg-type]
    check_together(view)
    return view


def is_ascii() -> bool:
    """Return whether the encoding of stdout is limited to ASCII."""
    return (sys.stdout.encoding or "ascii").lower().replace("-", "") not in ("utf8", "utf16", "utf32")


def _report_baseline(tables: Sequence[Table], view: View) -> None:
    from initbench.render.compare.analysed_table import without_comparison

    for sentence in without_comparison(tables, view):
        typer.echo(sentence, err=True)


def _print_or_save(
    tables: list[Table], view: View, output: Path | None, store: Store, extra_keys: dict[str, Any]
) -> None:
    from initbench.render.compare.output import print_tables, render_comparison, save_comparison

    if output is not None:
        save_comparison(output, tables, view, extra_keys)
        typer.echo(f"written to {output}", err=True)
    elif view.format != "table":
        typer.echo(render_comparison(tables, view, extra_keys), nl=False)
    elif tables or view.aside:
        print_tables(stdout_console(), tables, view)
    else:
        typer.echo(
            f"No runs in {store.root} yet. Start one: initbench run configs/relu_kaiming.yaml", err=True
        )
