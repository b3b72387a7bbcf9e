"""What has to be said under a table: what its signs mean, and what is missing from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from initbench.analysis.metrics import METRICS
from initbench.analysis.stats.mean_difference import Method
from initbench.render import text
from initbench.render.compare.analysed_table import MAX_LETTERED, AnalysedTable
from initbench.render.compare.run_counts import unfinished_note

FEW = 3
"""With fewer seeds a spread says little."""
_MAX_NAMED = 6
_TEST = "paired t where rows share seeds and data, else Welch's"


def spread_note(*, geometric: bool) -> str:
    """What ± is."""
    suffix = "; E[δ²] ratios are geometric means" if geometric else ""
    return f"± is the standard deviation over seeds{suffix}."


def letters_note(judged: AnalysedTable, metrics: Iterable[str], *, of_cells: bool = False) -> list[str]:
    """What the letters mean, and over which family p was adjusted; why there are none in a large table.

    `of_cells`: whether rows stand in the cells of a pivot.
    """
    metrics = list(metrics)
    if judged.baseline is not None:
        return []
    if len(judged.rows) > MAX_LETTERED and metrics:
        return [
            f"No letters: with more than {MAX_LETTERED} rows there are too many pairs. Choose fewer rows,"
            " or hold them against one with --baseline."
        ]
    if not any(judged.shown_letters(metric) for metric in metrics):
        return []
    rows = max(sum(judged.is_testable(row, metric) for row in judged.rows) for metric in metrics)
    pairs = text.plural(rows * (rows - 1) // 2, "pair")
    if of_cells:
        return [
            "Cells that share a letter, in any row and column, cannot be told apart"
            f" at {confidence_percent(judged)}:"
            f" {_TEST}, p adjusted by Holm over all pairs of the {rows} cells with two runs and more"
            f" ({pairs})."
        ]
    return [
        f"Rows that share a letter in a column cannot be told apart at {confidence_percent(judged)}:"
        f" {_TEST}, p adjusted by Holm over the column's pairs of rows (at most {pairs})."
        " A single run cannot be told apart."
    ]


def letters_phrase(judged: AnalysedTable, metrics: Iterable[str]) -> str:
    """Return what letters mean in a few words; nothing where there are none."""
    has_letters = judged.baseline is None and any(judged.shown_letters(metric) for metric in metrics)
    return f"same letter: no difference shown at {confidence_percent(judged)}" if has_letters else ""


def short_note(*phrases: str) -> str:
    """Return the line that stands for all notes."""
    return "; ".join(filter(None, phrases))


def interval_note(judged: AnalysedTable) -> str:
    """What an interval is."""
    return (
        f"[ , ] is the {confidence_percent(judged)} interval of the mean, by Student's t:"
        " where the mean of very many seeds may lie. It is not where single seeds lie."
    )


def versus_note(judged: AnalysedTable, metrics: Sequence[str]) -> list[str]:
    """What a difference is, and its family."""
    comparisons = [judged.versus(metric) for metric in metrics]
    tested = max(
        (sum(comparison.p_adjusted is not None for comparison in rows.values()) for rows in comparisons),
        default=0,
    )
    count = text.plural(tested, "row")
    return [
        "Differences are row − baseline, accuracies in points (× is a ratio),"
        f" with {confidence_percent(judged)} intervals: {_TEST}.",
        f"p is adjusted by Holm over the {count} held against the baseline, metric by metric. The verdict"
        " follows p, so that an interval may leave out 0 where nothing is shown. g is Hedges' effect size.",
        "seeds: runs that each row needs to show a difference of this size 4 times in 5, an estimate from few"
        " seeds. Divergence is held against divergence by an exact test.",
    ]


def partial_pairs(judged: AnalysedTable, metrics: Sequence[str]) -> Iterator[str]:
    """Yield a warning if differences skip seeds, so that they are not those of the means in the table."""
    comparisons = [judged.versus(metric) for metric in metrics] if judged.baseline else []
    fewer = {
        label: comparison.difference.n_a
        for rows in comparisons
        for label, comparison in rows.items()
        if comparison.difference.method in (Method.PAIRED, Method.SIGN)
    }
    sizes = {row.label: row.n - row.diverged for row in judged.rows}
    most = sizes.get(judged.baseline.label, 0) if judged.baseline else 0
    labels = [f"{label} ({n})" for label, n in fewer.items() if n < max(sizes[label], most)]
    if labels:
        yield f"Over the seeds that both rows have, and not all of the table's: {_join_labels(labels)}."


def confidence_percent(judged: AnalysedTable) -> str:
    """The confidence in percent."""
    return f"{100 * judged.confidence:g} %"


def row_warnings(judged: AnalysedTable) -> list[str]:
    """Runs that are missing, diverged or too few, and rows that average over keys."""
    return [*_runs(judged), *_few(judged), *_averages(judged)]


def _runs(judged: AnalysedTable) -> Iterator[str]:
    yield from unfinished_note(judged.rows)
    diverged = sum(row.diverged for row in judged.rows)
    if diverged:
        runs = text.plural(diverged, "run")
        yield f"{runs} diverged and counted in n; losses and accuracies are those of the runs that finished."


def _few(judged: AnalysedTable) -> Iterator[str]:
    single = [row.label for row in judged.rows if row.n == 1]
    if single:
        yield f"n = 1, so that no spread, interval or test can be given: {_join_labels(single)}."
    few = [row.label for row in judged.rows if 1 < row.n < FEW]
    if few:
        yield f"Fewer than {FEW} seeds, whose spread says little: {_join_labels(few)}."


def _averages(judged: AnalysedTable) -> Iterator[str]:
    for row in judged.rows:
        if row.group.repeats:
            runs = text.plural(row.group.repeats, "run")
            yield f"{text.one_line(row.label)} leaves out {runs} of the same training under another name."
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
    """A metric in words."""
    entry = METRICS[metric]
    better = f", {entry.better} is better" if entry.better else ""
    return f"{entry.meaning}{better}"
