"""The figures about batch norm."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from initbench.analysis.metrics import METRICS
from initbench.render.run_sections import norm_tables
from initbench.render.text import format_percent, format_share
from initbench.report.figure import rounded
from initbench.report.views.batch_norm import batch_norm_figures
from tests.report.report_runs import figure_of, normed_runs, record_of, records_of, report_of, two_arms


def printed(seeds: int) -> list[list[str]]:
    """Return the words of each line of the tables that show prints about batch norm."""
    console = Console(file=io.StringIO(), width=200)
    for table in norm_tables(normed_runs(seeds)[seeds:], all_layers=True, width=200):
        console.print(table)
    return [line.split() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


@pytest.mark.parametrize("seeds", [1, 3])
def test_gaps_and_ratios_are_those_that_show_prints(seeds: int) -> None:
    report = report_of(normed_runs(seeds))
    gaps = figure_of(batch_norm_figures, report, "norm-running-mean-gap")
    ratios = figure_of(batch_norm_figures, report, "norm-running-variance-ratio")
    lines = [line for line in printed(seeds) if line[:1] == ["layer"]]
    assert len(lines) == 3
    for _, layer, *words in lines:
        chain = [word for word in words if word != "→"]
        gap, ratio = (
            [record_of(figure, layer=int(layer), step=step)["value"] for step in (0, 500, 1000)]
            for figure in (gaps, ratios)
        )
        assert chain == [format_share(value) for value in [*gap, *ratio]]


def test_accuracies_are_those_that_show_prints() -> None:
    report = report_of(normed_runs())
    lines = {line[0]: line for line in printed(3) if line[1:2] == ["statistics"]}
    row = next(row for row in report.rows if row.name == "batch")
    for column, (key, moment) in enumerate((("init", "init"), ("end", "final"))):
        figure = figure_of(batch_norm_figures, report, f"norm-accuracy-{key}")
        assert len(records_of(figure)) == 3, "the net without batch norm is not shown"
        for kind, suffix in (("running", ""), ("batch", "_batch"), ("population", "_population")):
            record = record_of(figure, row="batch", statistics=f"{kind} statistics")
            assert format_percent(record["value"] / 100, 1) == lines[kind][2 + 2 * column]
            metric = METRICS[f"{moment}_val_accuracy{suffix}"]
            interval = row.table.interval(row.row, metric.name)
            assert interval is not None and record["n"] == 3
            assert (record["low"], record["high"]) == (
                rounded(100 * interval.low),
                rounded(100 * interval.high),
            )


def test_nets_without_batch_norm_have_no_such_figures() -> None:
    assert not list(batch_norm_figures(report_of(two_arms())))


def test_the_takeaway_is_about_the_last_step() -> None:
    figure = figure_of(batch_norm_figures, report_of(normed_runs()), "norm-running-variance-ratio")
    assert figure.takeaway == "Ratio of the running variances: batch: 3.915 to 3.915 at step 1,000."
