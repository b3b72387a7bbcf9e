"""Tables of a single metric in detail, and of the comparison with a baseline."""

from __future__ import annotations

from collections.abc import Sequence

from initbench.analysis.baseline import BaselineComparison
from initbench.analysis.metrics import METRICS, Metric
from initbench.analysis.tables import Row
from initbench.render import text
from initbench.render.compare import formatting, notes
from initbench.render.compare.analysed_table import AnalysedTable
from initbench.render.compare.table import ComparisonTable

BASELINE = "baseline"
_JUDGED = ("verdict", "p", "g", "seeds")


def metric_table(judged: AnalysedTable, name: str, title: str) -> ComparisonTable:
    """Return a table of one metric: n, mean, std, interval, and letters or differences from the baseline."""
    metric = METRICS[name]
    label = "row" if judged.table.by else "experiment"
    level = f"{notes.confidence_percent(judged)} interval"
    versus = ("difference", f"{level} of difference", *_JUDGED) if judged.baseline else ()
    headings = [label, "n", "mean", "std", level, *(versus or ("letters",))]
    block = ComparisonTable(f"{title} · {name}", headings, frozenset([label, "letters", "verdict"]))
    for row in judged.rows:
        summary = row.metrics[name]
        values = str(row.n) if summary.n == row.n or metric.censored else f"{summary.n} of {row.n}"
        interval = formatting.format_interval(metric, judged.interval(row, name), summary.n)
        block.add(
            text.one_line(row.label),
            values,
            formatting.format_mean(metric, row),
            formatting.format_std(metric, summary),
            interval,
            *(
                _versus_cells(judged, metric, row)
                if judged.baseline
                else [judged.shown_letters(name).get(row.label, "")]
            ),
        )
    block.notes = [_unit(metric), notes.interval_note(judged), *notes.letters_note(judged, [name])]
    if judged.baseline:
        block.notes += notes.versus_note(judged, [name])
    block.notes += _no_spread(block)
    block.warnings = [*notes.partial_pairs(judged, [name]), *notes.row_warnings(judged)]
    difference = "differences are row − baseline" if judged.baseline else ""
    phrases = ("[ , ]: confidence interval of the mean", notes.letters_phrase(judged, [name]), difference)
    block.summary = notes.short_note(*phrases)
    return block


def _unit(metric: Metric) -> str:
    words = notes.describe_metric(metric.name)
    unit = ", in %" if metric.form == "percent" else ""
    suffix = "; geometric mean, std as a factor" if metric.log else "; std with n − 1 in the denominator"
    return f"{metric.name}: {words}{unit}{suffix}."


def _no_spread(block: ComparisonTable) -> list[str]:
    if not any("no spread" in cell.text for row in block.rows for cell in row):
        return []
    return [
        "No spread: all seeds gave the same value, which does not show that further seeds would. A difference"
        " without spread is tested with an exact test, which needs at least 6 pairs or 4 runs per row."
    ]


def _versus_cells(judged: AnalysedTable, metric: Metric, row: Row) -> Sequence[str]:
    if row is judged.baseline:
        return ["", "", BASELINE, "", "", ""]
    return _comparison_cells(metric, judged.versus(metric.name)[row.label])


def _comparison_cells(metric: Metric, comparison: BaselineComparison) -> Sequence[str]:
    return [
        formatting.format_difference(metric, comparison.difference),
        formatting.format_difference_interval(metric, comparison.difference),
        str(comparison.verdict),
        formatting.format_p_value(comparison.p_adjusted),
        formatting.format_effect_size(comparison.difference.effect_size),
        formatting.format_seeds_needed(comparison.seeds_needed),
    ]


def against_baseline(judged: AnalysedTable, metrics: Sequence[str]) -> ComparisonTable:
    """Return a table that compares every row with the baseline: a line per metric, and one for divergence."""
    assert judged.baseline is not None
    label = "row" if judged.table.by else "experiment"
    headings = [label, "metric", "difference", f"{notes.confidence_percent(judged)} interval", *_JUDGED]
    title = f"Compared with {text.one_line(judged.baseline.label)}"
    block = ComparisonTable(title, headings, frozenset([label, "metric", "verdict"]), fixed=2)
    for row in judged.rows:
        if row is judged.baseline:
            continue
        name = text.one_line(row.label)
        for entry in map(METRICS.__getitem__, metrics):
            heading = formatting.metric_heading(entry, judged.table.target)
            block.add(name, heading, *_comparison_cells(entry, judged.versus(entry.name)[row.label]))
            name = ""
        if row.diverged or judged.baseline.diverged:
            block.add(name, "diverged", *_divergence(judged, row))
    block.notes = [*notes.versus_note(judged, metrics), *_no_spread(block)]
    block.warnings = [*notes.partial_pairs(judged, metrics)]
    block.summary = "differences are row − baseline; p is Holm-adjusted"
    return block


def _divergence(judged: AnalysedTable, row: Row) -> Sequence[str]:
    assert judged.baseline is not None
    rates, p = judged.divergence[row.label]
    difference = text.DASH if rates.difference is None else _points(rates.difference)
    counts = f"{row.diverged} of {row.n} vs. {judged.baseline.diverged} of {judged.baseline.n}"
    return [difference, text.DASH, counts, formatting.format_p_value(p), text.DASH, text.DASH]


def _points(share: float) -> str:
    return ("−" if share < 0 else "+") + text.format_percent(abs(share))
