"""The heat map of a sweep over two keys."""

from __future__ import annotations

import pytest

from initbench.render.compare.pivot import pivot_table
from initbench.report.figure import rounded
from initbench.report.views.sweep_map import sweep_figures, swept_keys
from tests.report.report_runs import figure_of, record_of, records_of, report_of, swept_runs, two_arms


@pytest.mark.parametrize("by", [("init.scheme", "train.lr"), ("train.lr", "init.scheme")])
def test_the_cells_are_those_of_the_pivot_that_compare_prints(by: tuple[str, str]) -> None:
    report = report_of(swept_runs(), by=by)
    figure = figure_of(sweep_figures, report, "sweep-map")
    table = pivot_table(report.tables[0], "best_val_accuracy", "")
    for label, *cells in ([cell.text for cell in row] for row in table.rows):
        for across, words in zip(table.headings[1:], cells, strict=True):
            record = record_of(figure, down=label, across=across)
            assert words.startswith(record["words"])
            if record["value"] is not None and record["diverged"] == 0:
                assert words == f"{record['words']} {record['detail']} (2)"
    for row in report.tables[0].rows:
        record = record_of(figure, row=row.label)
        mean = row.metrics["best_val_accuracy"].mean
        assert record["value"] == (None if mean is None else rounded(100 * mean))


def test_the_axes_are_in_the_order_of_numbers() -> None:
    figure = figure_of(sweep_figures, report_of(swept_runs(), by=("init.scheme", "train.lr")), "sweep-map")
    assert figure.spec["encoding"]["x"]["scale"]["domain"] == ["0.01", "0.1", "0.3"]
    assert figure.spec["encoding"]["y"]["scale"]["domain"] == ["lsuv", "zeros"]


def test_diverged_cells_are_marked() -> None:
    figure = figure_of(sweep_figures, report_of(swept_runs()), "sweep-map")
    for record in records_of(figure, across="0.3"):
        assert (record["value"], record["words"], record["diverged"]) == (None, "diverged (2)", 2)
    partly = record_of(figure, down="zeros", across="0.1")
    assert partly["value"] is not None and partly["detail"] == "1 of 2 diverged"
    assert figure.takeaway == (
        f"The best mean, {record_of(figure, best=True)['words']} %, is that of init.scheme=lsuv and"
        " train.lr=0.01; in 2 cells of 6 all runs diverged."
    )


def test_experiments_that_differ_in_two_keys_form_a_map_without_options() -> None:
    report = report_of(swept_runs())
    assert swept_keys(report.tables[0]) == ("init.scheme", "train.lr")
    assert len(records_of(figure_of(sweep_figures, report, "sweep-map"))) == 6


def test_other_comparisons_have_no_map() -> None:
    runs = swept_runs()
    assert not list(sweep_figures(report_of(two_arms())))
    assert not list(sweep_figures(report_of(runs, by=("init.scheme",))))
    assert not list(sweep_figures(report_of([run for run in runs if "lsuv" in run.run_id])))
    for run in runs[:2]:
        run.record["config"]["model"] = {**run.record["config"]["model"], "width": 99}
    assert not list(sweep_figures(report_of(runs))), "three keys differ"
