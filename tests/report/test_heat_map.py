"""The heat maps of layers and steps."""

from __future__ import annotations

import math

import pytest

from initbench.render.layer_means import layers_at
from initbench.report.figure import rounded
from initbench.report.panels import MAX_PANELS
from initbench.report.views.heat_map import heat_map_figures
from tests.report.report_runs import figure_of, record_of, records_of, report_of, stored_run, two_arms


@pytest.mark.parametrize(("when", "step"), [("init", 0), ("end", 1000)])
@pytest.mark.parametrize(("key", "statistic"), [("activation-std", "act_std"), ("gradient", "gradient")])
def test_the_cells_are_the_means_that_show_prints(when: str, step: int, key: str, statistic: str) -> None:
    runs = two_arms()
    figure = figure_of(heat_map_figures, report_of(runs), f"heat-{key}")
    for layer in layers_at(runs[:3], when):
        expected = getattr(layer, statistic)
        records = records_of(figure, row="kaiming", step=step, layer=layer.index)
        assert [record["value"] for record in records] == ([] if expected is None else [rounded(expected)])


def test_a_cell_reaches_to_the_next_probe_of_its_row() -> None:
    often, seldom = stored_run("often"), stored_run("seldom")
    del seldom.snapshots[1]
    figure = figure_of(heat_map_figures, report_of([often, seldom]), "heat-gradient")
    ends = {
        (record["row"], record["step"]): (record["column"], record["next_column"])
        for record in records_of(figure, layer=1)
    }
    assert ends == {
        ("often", 0): (0, 1),
        ("often", 500): (1, 2),
        ("often", 1000): (2, 3),
        ("seldom", 0): (0, 2),
        ("seldom", 1000): (2, 3),
    }


def test_a_gradient_of_zero_is_a_grey_cell_and_no_number_is_no_cell() -> None:
    run = stored_run()
    layers = run.snapshots[0]["layers"]
    layers[0]["grad"]["pre_q"], layers[1]["grad"]["pre_q"] = 0.0, "NaN"
    figure = figure_of(heat_map_figures, report_of([run]), "heat-gradient")
    assert record_of(figure, step=0, layer=1)["value"] == 0.0
    assert not records_of(figure, step=0, layer=2)
    assert "Grey: zero." in figure.caption
    domain = figure.spec["layer"][1]["encoding"]["color"]["scale"]["domain"]
    assert domain[0] > 0 and math.isclose(domain[1], 2.5e-4)


def test_runs_with_a_single_probe_have_no_heat_map() -> None:
    run = stored_run()
    del run.snapshots[1:]
    assert not list(heat_map_figures(report_of([run])))


def test_rows_without_a_panel_are_counted() -> None:
    report = report_of([stored_run(f"row{index}") for index in range(MAX_PANELS + 2)])
    for figure in heat_map_figures(report):
        assert figure.notes == ["Of 8 rows, the first 6 that are not hidden are drawn, or as many as fit."]
        assert len(set(figure.columns["row"])) == MAX_PANELS + 2


def test_diverged_rows_do_not_stretch_the_colours() -> None:
    fine, broken = stored_run("fine"), stored_run("broken", status="diverged")
    broken.snapshots.append({**fine.snapshots[1], "layers": [dict(x) for x in fine.snapshots[1]["layers"]]})
    broken.snapshots[0]["layers"][0]["grad"]["pre_q"] = 1e30
    figure = figure_of(heat_map_figures, report_of([fine, broken]), "heat-gradient")
    scale = figure.spec["layer"][1]["encoding"]["color"]["scale"]
    assert scale["domain"][1] == max(record["value"] for record in records_of(figure, row="fine"))
    assert scale["clamp"] and "have the colour of its end" in figure.caption
    alone = figure_of(heat_map_figures, report_of([broken]), "heat-gradient")
    assert alone.spec["layer"][1]["encoding"]["color"]["scale"]["domain"][1] == 1e30
