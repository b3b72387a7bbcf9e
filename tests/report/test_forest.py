"""The forest plots of means and of differences from the baseline."""

from __future__ import annotations

import pytest

from initbench.analysis.metrics import METRICS
from initbench.render.compare.metric_detail import metric_table
from initbench.report.figure import rounded
from initbench.report.views.convergence import convergence_figures
from initbench.report.views.forest import FOREST_METRICS, forest_figures
from tests.report.report_runs import figure_of, record_of, report_of, stored_run, two_arms

RUNS = [
    *two_arms(5),
    *(stored_run("close", seed, accuracy=0.004 * ((seed * 3) % 4 - 1)) for seed in range(5)),
    stored_run("broken", 0, status="diverged"),
    stored_run("broken", 1, status="diverged"),
    stored_run("single"),
]


CLASSIFICATION = [name for name in FOREST_METRICS if not METRICS[name].is_optional]
"""Metrics that runs with class targets have."""


def key_of(metric: str) -> str:
    return f"forest-{metric.replace('_', '-')}"


def joined(number: str, interval: str) -> str:
    return f"{number} {interval}" if interval.startswith("[") else f"{number} ({interval})"


@pytest.mark.parametrize("metric", CLASSIFICATION)
def test_means_intervals_and_letters_are_those_of_compare(metric: str) -> None:
    report = report_of(RUNS)
    figure = figure_of(forest_figures, report, key_of(metric))
    table = report.tables[0]
    scale = 100.0 if METRICS[metric].form == "percent" else 1.0
    printed = {row[0].text: [cell.text for cell in row] for row in metric_table(table, metric, "").rows}
    for row in table.rows:
        record = record_of(figure, row=row.label)
        _, _, mean, _, interval, letters = printed[row.label]
        expected = row.metrics[metric].mean
        assert record["value"] == (None if expected is None else rounded(scale * expected))
        bounds = table.interval(row, metric)
        low_high = [None, None] if bounds is None else [scale * bounds.low, scale * bounds.high]
        assert [record["low"], record["high"]] == list(map(rounded, low_high))
        assert record["letters"] == letters
        assert record["n"] == row.n
        if expected is not None:
            assert record["estimate"] == (mean if bounds is None else joined(mean, interval))
        else:
            assert record["estimate"] == "" and record["missing"]


@pytest.mark.parametrize("metric", CLASSIFICATION)
def test_differences_and_verdicts_are_those_of_compare(metric: str) -> None:
    report = report_of(RUNS, baseline="kaiming")
    figure = figure_of(forest_figures, report, key_of(metric))
    table = report.tables[0]
    scale = 100.0 if METRICS[metric].form == "percent" else 1.0
    printed = {row[0].text: [cell.text for cell in row] for row in metric_table(table, metric, "").rows}
    for label, comparison in table.versus(metric).items():
        record = record_of(figure, row=label)
        difference, interval, verdict, p, _, seeds = printed[label][5:]
        assert record["verdict"] == verdict
        if comparison.difference.difference is None:
            assert record["value"] is None and record["missing"]
            continue
        assert record["value"] == rounded(scale * comparison.difference.difference)
        assert record["estimate"].startswith(difference)
        assert (record["p_text"], record["seeds_needed"]) == (p, seeds)
        assert record["p"] == rounded(comparison.p_adjusted)
        assert record["filled"] == (comparison.p_adjusted is not None and comparison.p_adjusted < 0.05)
        if comparison.difference.interval is not None:
            assert record["low"] == rounded(scale * comparison.difference.interval.low)
            assert record["high"] == rounded(scale * comparison.difference.interval.high)
            assert record["estimate"] == joined(difference, interval)
    baseline = record_of(figure, row="kaiming")
    assert (baseline["value"], baseline["verdict"], baseline["filled"]) == (0.0, "baseline", False)


def test_rows_are_in_the_order_of_the_comparison() -> None:
    report = report_of(RUNS, baseline="kaiming")
    for figure in forest_figures(report):
        assert figure.columns["row"] == [row.label for row in report.tables[0].rows]
        assert figure.columns["order"] == list(range(len(report.rows)))


def test_a_row_without_a_mean_says_why() -> None:
    report = report_of([*RUNS, stored_run("slow", accuracy=-0.3)])
    accuracy = figure_of(forest_figures, report, "forest-test-accuracy")
    assert record_of(accuracy, row="broken")["missing"] == "diverged"
    steps = figure_of(forest_figures, report, "forest-steps-to-target")
    assert record_of(steps, row="slow")["missing"] == "not reached"


def test_the_takeaway_names_the_best_row_and_the_verdicts() -> None:
    report = report_of(RUNS)
    assert figure_of(forest_figures, report, "forest-test-accuracy").takeaway.startswith(
        "single has the best"
    )
    report = report_of(RUNS, baseline="kaiming")
    takeaway = figure_of(forest_figures, report, "forest-test-accuracy").takeaway
    assert takeaway.startswith("Compared with kaiming, ") and "worse: xavier" in takeaway
    assert "diverged: broken" in takeaway and "not enough seeds: single" in takeaway


def test_one_row_has_no_forest_plot() -> None:
    assert not list(forest_figures(report_of([stored_run("only", seed) for seed in range(3)])))


def test_rows_of_different_budgets_are_not_compared() -> None:
    longer = [stored_run("longer", seed, accuracy=0.01) for seed in range(3)]
    for run in longer:
        run.record["steps"] = 2000
    figure = figure_of(forest_figures, report_of([*two_arms(), *longer]), "forest-test-accuracy")
    first, second = figure.takeaway.split(". 2,000 steps: ")
    assert first.startswith("1,000 steps: kaiming has the best mean, ") and "longer" not in first
    assert second.startswith("longer is the only row with a mean, ")
    assert "Rows of different data or budgets are not compared" in figure.caption
    curves = figure_of(convergence_figures, report_of([*two_arms(), *longer]), "validation-accuracy")
    first, second = curves.takeaway.split(". 2,000 steps: ")
    assert first.startswith("1,000 steps: kaiming ends with the best mean ") and "longer" not in first
    assert second.startswith("longer ends with the mean validation accuracy ")
