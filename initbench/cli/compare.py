"""`initbench compare`: stored runs side by side."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from initbench.cli.compare_options import (
    Baseline,
    By,
    Columns,
    Confidence,
    FormatName,
    FormatOption,
    Layers,
    MetricOption,
    Names,
    OnlyChanged,
    Output,
    Plot,
    Sort,
    Target,
    ViewOption,
    WhereOption,
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
from initbench.cli.options import Json, Notes, RunPatterns, RunsDir, runs_root
from initbench.errors import UsageError

if TYPE_CHECKING:
    from initbench.analysis.run_summary import RunSummary
    from initbench.analysis.selection import Selection
    from initbench.analysis.tables import Table
    from initbench.render.compare.display_options import View
    from initbench.store.store import Store


def compare(
    patterns: RunPatterns = None,
    by: By = None,
    where: WhereOption = None,
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
    runs_dir: RunsDir = None,
    json_output: Json = False,
) -> None:
    """Compare stored runs, all of them when none is named: activation statistics and convergence.

    docs/compare.md tells how to read it, docs/ci.md how to write gates. Exit 1 if a gate is triggered.
    Damaged runs are named on stderr, and the others compared.
    """
    from initbench.analysis.selection import Selection
    from initbench.analysis.tables import tables
    from initbench.store.store import Store

    gates = gate_options(fail_if, strict, against, junit_xml, confidence, fail_unless)
    chosen = Selection(Store(runs_root(runs_dir)), patterns or [], where or [])
    try:
        known = [run for run in chosen.runs if run.is_placed]
    except UsageError as error:  # nothing is stored, or nothing of what was asked for
        fail_unjudged(gates, str(error))
        raise
    found = tables(known, by=_keys(by, known), target=target)
    named = {"metrics": _metrics(metric), "columns": _columns(columns, known)}
    shown = {"view": view, **named, "sort": _sort(sort)}
    drawn = {"only_changed": only_changed, "layers": layers, "plot": plot, "all_notes": notes}
    form = _format(format, output, json_output=json_output)
    asked = _view(
        **shown, **drawn, baseline=baseline, confidence=confidence, format=form, aside=_aside(chosen)
    )
    verdicts = check_gates(gates, chosen, found)
    if asked.format in ("json", "csv"):  # where no footnote has room
        _report_baseline(found, asked)
    _show(found, asked, output, chosen.store, verdicts.document())
    print_verdicts(verdicts)
    if code := verdicts.exit_code:
        raise typer.Exit(code)


def _aside(chosen: Selection) -> list[str]:
    """What no table tells of its runs."""
    from initbench.analysis.tuning_warnings import edge_of_range_warnings
    from initbench.render.compare.run_counts import unattributed_runs

    missing = [f"{sentence}." for sentence in chosen.missing]
    return [
        *missing,
        *unattributed_runs(chosen.runs),
        *edge_of_range_warnings(chosen.store.root, chosen.runs),
    ]


def _keys(by: Names, runs: Sequence[RunSummary]) -> list[str]:
    from initbench.analysis.config_keys import resolve_key

    keys = _split(by)
    if len(keys) > 2:
        raise UsageError(f"--by takes one key, or two for a pivot; found {', '.join(keys)}")
    return [resolve_key(key, runs, "--by") for key in keys]


def _metrics(texts: Names) -> list[str]:
    """The names in `texts`, parted by commas or blanks; a heading may hold both, and is taken whole."""
    from initbench.render.compare.display_options import canonical

    names: list[str] = []
    for text in texts or []:
        pieces = [piece.strip() for piece in text.split(",")]
        while pieces:
            heads = (", ".join(pieces[:count]) for count in range(len(pieces), 0, -1))
            heading = next((head for head in heads if canonical(head) != head), None)
            names += pieces[0].split() if heading is None else [canonical(heading)]
            del pieces[: 1 if heading is None else heading.count(",") + 1]
    return names


def _columns(texts: Names, runs: Sequence[RunSummary]) -> list[str]:
    from initbench.analysis.config_keys import resolve_key

    return [resolve_key(name, runs, "--columns") if "." in name else name for name in _metrics(texts)]


def _sort(name: str | None) -> str | None:
    from initbench.render.compare.display_options import canonical

    if name is None:
        return None
    sign = "-" if name.startswith("-") else ""
    return sign + canonical(name.removeprefix("-").strip())


def _split(texts: Names) -> list[str]:
    return [name for text in texts or [] for name in text.replace(",", " ").split()]


def _format(given: FormatName | None, output: Path | None, *, json_output: bool) -> FormatName:
    from initbench.render.compare.display_options import SUFFIXES, format_of

    if json_output and given not in (None, "json"):
        raise UsageError(f"--json and --format {given} ask for two formats: drop one of them")
    asked = "json" if json_output else given
    named = SUFFIXES.get(output.suffix.lower()) if output else None
    if asked and named not in (None, asked):
        option = "--json" if json_output else f"--format {asked}"
        raise UsageError(f"{option} and -o {output} ask for two formats: drop {option}, or rename the file")
    return asked or ("table" if output is None else format_of(output))


def _view(**given: object) -> View:
    from initbench.render.compare.display_options import View, check_together
    from initbench.render.terminal import stdout_width

    view = View(width=stdout_width(), ascii_only=is_ascii(), **given)  # type: ignore[arg-type]
    check_together(view)
    return view


def is_ascii() -> bool:
    """Whether stdout takes no braille and no other signs beyond ASCII."""
    return (sys.stdout.encoding or "ascii").lower().replace("-", "") not in ("utf8", "utf16", "utf32")


def _report_baseline(tables: Sequence[Table], view: View) -> None:
    from initbench.render.compare.analysed_table import without_comparison

    for sentence in without_comparison(tables, view):
        typer.echo(sentence, err=True)


def _show(found: list[Table], view: View, output: Path | None, store: Store, more: dict[str, Any]) -> None:
    from initbench.render.compare_tables import print_tables, rendered, save
    from initbench.render.terminal import stdout_console

    if output is not None:
        save(output, found, view, more)
        typer.echo(f"written to {output}", err=True)
    elif view.format != "table":
        typer.echo(rendered(found, view, more), nl=False)
    elif found or view.aside:
        print_tables(stdout_console(), found, view)
    else:
        typer.echo(
            f"No runs in {store.root} yet. Start one: initbench run configs/relu_kaiming.yaml", err=True
        )
