"""The figures about internal covariate shift."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from initbench.analysis.metrics import METRICS
from initbench.analysis.run_summary import summarise_run
from initbench.render.run_sections import shift_table
from initbench.render.text import format_share
from initbench.report.views.covariate_shift import covariate_shift_figures
from tests.report.report_runs import figure_of, record_of, records_of, report_of, shifted_runs, two_arms


@pytest.mark.parametrize(("key", "column"), [("gradient", 1), ("input-drift", 3)])
def test_the_means_of_layers_are_those_that_show_prints(key: str, column: int) -> None:
    runs = shifted_runs()
    figure = figure_of(covariate_shift_figures, report_of(runs), f"shift-{key}-depth")
    text = io.StringIO()
    table = shift_table([run for run in runs if "small" in run.run_id], all_layers=True, width=200)
    assert table is not None
    Console(file=text, width=200).print(table)
    lines = [line.split() for line in text.getvalue().splitlines()]
    layers = [line for line in lines if line[:1] in (["layer"], ["head"])]
    assert len(layers) == 4
    for _, index, *cells in layers:
        record = record_of(figure, row="small", layer=int(index))
        assert format_share(record["value"]) == cells[column - 1]
        assert record["least"] <= record["value"] <= record["most"]


@pytest.mark.parametrize(("key", "metric"), [("input-drift", "input_drift"), ("gradient", "gradient_shift")])
def test_the_mean_over_the_updates_is_the_metric_of_compare(key: str, metric: str) -> None:
    runs = shifted_runs(1)
    figure = figure_of(covariate_shift_figures, report_of(runs), f"shift-{key}-step")
    for run in runs:
        records = records_of(figure, row=run.record["experiment"], layer=None)
        assert [record["step"] for record in records] == [1, 101, 201, 301][key == "input-drift" :]
        mean = math.fsum(record["value"] for record in records) / len(records)
        expected = METRICS[metric].value(summarise_run(run), None)
        assert expected is not None and math.isclose(mean, expected, rel_tol=1e-5)


def test_a_selected_layer_has_its_own_line() -> None:
    runs = shifted_runs(2)
    figure = figure_of(covariate_shift_figures, report_of(runs), "shift-gradient-step")
    record = record_of(figure, row="large", step=101, layer=3)
    expected = [run.shifts[1]["layers"][2]["gradient_shift"] for run in runs if "large" in run.run_id]
    assert record["value"] == pytest.approx(sum(expected) / 2)
    assert (record["least"], record["most"]) == (pytest.approx(min(expected)), pytest.approx(max(expected)))
    assert {parameter["name"] for parameter in figure.spec["params"]} >= {"layer", "hidden"}


def test_a_diverged_measurement_is_no_point() -> None:
    runs = shifted_runs(1)
    for layer in runs[0].shifts[2]["layers"]:
        layer["gradient_shift"] = "NaN"
    figure = figure_of(covariate_shift_figures, report_of(runs), "shift-gradient-step")
    assert {record["step"] for record in records_of(figure, row="small")} == {1, 101, 301}


def test_runs_without_measurements_have_no_such_figures() -> None:
    assert not list(covariate_shift_figures(report_of(two_arms())))
