"""The figure of the losses of layer-wise pre-training."""

from __future__ import annotations

import io

from rich.console import Console

from initbench.render.run_sections import pretraining_table
from initbench.render.text import format_percent, format_scientific
from initbench.report.views.pretraining import pretraining_figures
from tests.report.report_runs import figure_of, pretrained_runs, record_of, records_of, report_of, two_arms


def test_the_losses_are_those_that_show_prints() -> None:
    runs = pretrained_runs()
    figure = figure_of(pretraining_figures, report_of(runs), "pretraining-loss")
    assert len(records_of(figure)) == 3, "nets without pre-training are not shown"
    text = io.StringIO()
    table = pretraining_table([run for run in runs if "pretrained" in run.run_id])
    assert table is not None
    Console(file=text, width=200).print(table)
    lines = [line.split() for line in text.getvalue().splitlines() if line.startswith("layer")]
    assert len(lines) == 3
    for _, layer, before, after, remaining, _ in lines:
        record = record_of(figure, row="pretrained", layer=int(layer))
        assert (format_scientific(record["start"]), format_scientific(record["end"])) == (before, after)
        assert format_percent(record["remaining"], 1) == remaining
        assert record["n"] == 3


def test_a_layer_whose_loss_diverged_is_not_drawn() -> None:
    runs = pretrained_runs(1)
    runs[1].record["pretraining"]["layers"][1]["loss_end"] = "Infinity"
    figure = figure_of(pretraining_figures, report_of(runs), "pretraining-loss")
    assert figure.columns["layer"] == [1, 3]


def test_runs_without_pretraining_have_no_such_figure() -> None:
    assert not list(pretraining_figures(report_of(two_arms())))
