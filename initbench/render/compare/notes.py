"""Notes below a table: the meaning of its symbols, and warnings about missing or few runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from initbench.analysis.metrics import METRICS
from initbench.analysis.stats.mean_difference import Method
from initbench.render import text
from initbench.render.compare.analysed_table import MAX_LETTERED, AnalysedTable
from initbench.render.compare.run_counts import unfinished_note

FEW = 3
"""Number of seeds below which the spread is unreliable."""
_MAX_NAMED = 6
_TEST = "paired t-test if rows share seeds and data, otherwise Welch's t-test"


def spread_note(*, geometric: bool) -> str:
    """Return the note that explains ±."""
    suffix = "; E[δ²] ratios are geometric means" if geometric else ""
    return f"± is the standard deviation over seeds{suffix}."


def letters_note(judged: AnalysedTable, metrics: Iterable[str], *, of_cells: bool = False) -> list[str]:
    """Return the note that explains the letters and the adjustment of p; empty without letters.

    In a table with too many rows, the note gives the reason why there are none.

    Args:
        judged: The table.
        metrics: Metrics that the table shows.
        of_cells: Whether the table is a pivot, whose cells are the rows.
    """
    metrics = list(metrics)
    if judged.baseline is not None:
        return []
    if len(judged.rows) > MAX_LETTERED and metrics:
        return [
            f"No letters: with more than {MAX_LETTERED} rows there are too many pairs to compare; choose"
            " fewer rows or use --baseline."
        ]
    if not any(judged.shown_letters(metric) for metric in metrics):
        return []
    rows = max(sum(judged.is_testable(row, metric) for row in judged.rows) for metric in metrics)
    pairs = text.plural(rows * (rows - 1) // 2, "pair")
    if of_cells:
        return [
            "Cells that share a letter, anywhere in the table, do not differ significantly"
            f" ({_alpha(judged)}). Test: {_TEST}; p is Holm-adjusted over all pairs of the {rows} cells"
            f" with at least two runs ({pairs})."
        ]
    return [
        f"Rows that share a letter in a column do not differ significantly ({_alpha(judged)})."
        f" Test: {_TEST}; p is Holm-adjusted over all pairs of rows in the column (at most {pairs})."
        " A single run cannot be tested."
    ]


def letters_phrase(judged: AnalysedTable, metrics: Iterable[str]) -> str:
    """Return the meaning of the letters in a few words; empty without letters."""
    has_letters = judged.baseline is None and any(judged.shown_letters(metric) for metric in metrics)
    return "same letter: no significant difference" if has_letters else ""


def short_note(*phrases: str) -> str:
    """Return the one-line summary that replaces all notes; empty phrases are skipped."""
    return "; ".join(filter(None, phrases))


def interval_note(judged: AnalysedTable) -> str:
    """Return the note that explains [ , ]."""
    return (
        f"[ , ] is the {confidence_percent(judged)} confidence interval of the mean (Student's t):"
        " where the mean over many more seeds may lie, not where single seeds lie."
    )


def versus_note(judged: AnalysedTable, metrics: Sequence[str]) -> list[str]:
    """Return the notes that explain the columns of the comparison with a baseline."""
    comparisons = [judged.versus(metric) for metric in metrics]
    tested = max(
        (sum(comparison.p_adjusted is not None for comparison in rows.values()) for rows in comparisons),
        default=0,
    )
    count = text.plural(tested, "row")
    return [
        "Differences are row − baseline (accuracies in percentage points; × is a ratio), with"
        f" {confidence_percent(judged)} confidence intervals. Test: {_TEST}.",
        f"p is Holm-adjusted over the {count} compared with the baseline, separately for each metric. The"
        " verdict follows p, so it may be 'no difference shown' although the interval excludes 0. g is"
        " Hedges' effect size.",
        "seeds: runs per row needed to detect a difference of this size with 80 % power (a rough estimate if"
        " there are few seeds). Divergence rates are compared with Fisher's exact test.",
    ]


def partial_pairs(judged: AnalysedTable, metrics: Sequence[str]) -> Iterator[str]:
    """Yield a warning if differences omit seeds that the means in the table include."""
    comparisons = [judged.versus(metric) for metric in metrics] if judged.baseline else []
    fewer = {
        label: comparison.difference.n_a
        for rows in comparisons
        for label, comparison in rows.items()
        if comparison.difference.method in (Method.PAIRED, Method.SIGN)
    }
    sizes = {row.label: row.n - row.diverged for row in judged.rows}
    most = sizes.get(judged.baseline.label, 0) if judged.baseline else 0
    labels = [f"{label} ({n} shared)" for label, n in fewer.items() if n < max(sizes[label], most)]
    if labels:
        names = _join_labels(labels)
        yield f"Differences use only the seeds shared with the baseline, not all seeds of the table: {names}."


def confidence_percent(judged: AnalysedTable) -> str:
    """Return the confidence level in percent, as in `95 %`."""
    return f"{100 * judged.confidence:g} %"


def _alpha(judged: AnalysedTable) -> str:
    """Return the significance level, as in `α = 0.05`."""
    return f"α = {1.0 - judged.confidence:.4g}"


def row_warnings(judged: AnalysedTable) -> list[str]:
    """Return warnings about missing, diverged or too few runs, and about rows that average over keys."""
    return [*_runs(judged), *_few(judged), *_averages(judged)]


def _runs(judged: AnalysedTable) -> Iterator[str]:
    yield from unfinished_note(judged.rows)
    diverged = sum(row.diverged for row in judged.rows)
    if diverged:
        runs = text.plural(diverged, "run")
        yield f"{runs} diverged: counted in n, but not in the means of losses and accuracies."


def _few(judged: AnalysedTable) -> Iterator[str]:
    single = [row.label for row in judged.rows if row.n == 1]
    if single:
        yield f"A single run (n = 1) has no spread, no interval and no test: {_join_labels(single)}."
    few = [row.label for row in judged.rows if 1 < row.n < FEW]
    if few:
        yield f"Fewer than {FEW} seeds, so the spread is unreliable: {_join_labels(few)}."


def _averages(judged: AnalysedTable) -> Iterator[str]:
    for row in judged.rows:
        if row.group.repeats:
            runs = text.plural(row.group.repeats, "run")
            yield f"{text.one_line(row.label)} omits {runs} of the same training under another name."
        if row.group.varies:
            keys = ", ".join(
                f"{key} ({', '.join(map(str, values))})" for key, values in row.group.varies.items()
            )
            yield f"{text.one_line(row.label)} averages over {text.one_line(keys)}."


def _join_labels(labels: Sequence[str]) -> str:
    listed = ", ".join(map(text.one_line, labels[:_MAX_NAMED]))
    more = len(labels) - _MAX_NAMED
    return f"{listed} and {text.plural(more, 'row')} more" if more > 0 else listed


def describe_metric(metric: str) -> str:
    """Return the meaning of a metric, and whether higher or lower is better."""
    entry = METRICS[metric]
    better = f", {entry.better} is better" if entry.better else ""
    return f"{entry.meaning}{better}"
