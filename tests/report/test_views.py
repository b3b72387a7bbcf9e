"""The views of histograms, depth and convergence show the numbers of the runs."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from initbench.probing.log_slopes import VANISHING_RATIO
from initbench.render.layer_means import layers_at
from initbench.report.figure import ReportFigure, rounded, start_engine
from initbench.report.report_runs import MAX_MOMENTS
from initbench.report.views.convergence import convergence_figures
from initbench.report.views.depth_profile import depth_figures
from initbench.report.views.heat_map import heat_map_figures
from initbench.report.views.histogram_grid import BINS, _rebinned, histogram_figures
from tests.render.synthetic import EDGES
from tests.report.report_runs import figure_of, record_of, records_of, report_of, stored_run, two_arms

COLOURS = {"kaiming": "#0072B2", "xavier": "#D55E00"}


@st.composite
def histograms(draw: st.DrawFn) -> tuple[list[float], list[float]]:
    """Return counts and edges of a histogram with bins of different widths."""
    counts = draw(st.lists(st.integers(0, 10**6).map(float), min_size=1, max_size=24))
    widths = draw(st.lists(st.floats(1e-3, 5), min_size=len(counts), max_size=len(counts)))
    start = draw(st.floats(-10, 10))
    return counts, [start + sum(widths[:i]) for i in range(len(counts) + 1)]


def rebin(counts: list[float], edges: list[float], reach: float) -> tuple[list[float], float]:
    """Return the new counts of one histogram, and the sum of the counts outside."""
    new, outside = _rebinned(np.array([counts]), np.array([edges]), reach)
    return new[0].tolist(), float(outside[0])


@given(histograms(), st.floats(1e-2, 20))
def test_rebinning_conserves_counts(histogram: tuple[list[float], list[float]], reach: float) -> None:
    counts, edges = histogram
    new, outside = rebin(counts, edges, reach)
    assert len(new) == BINS and min(new) >= 0.0 and outside >= 0.0
    assert math.fsum(new) + outside == pytest.approx(math.fsum(counts), rel=1e-9, abs=1e-6)
    if edges[0] >= -reach and edges[-1] <= reach:
        assert outside == pytest.approx(0.0, abs=1e-6 * max(1.0, math.fsum(counts)))


@given(st.integers(0, BINS - 1), st.floats(0.1, 10))
def test_a_bin_moves_to_where_it_lies(position: int, reach: float) -> None:
    size = 2 * reach / BINS
    start = -reach + position * size
    new, outside = rebin([8.0], [start + 0.25 * size, start + 0.75 * size], reach)
    assert new[position] == pytest.approx(8.0) and outside == pytest.approx(0.0, abs=1e-9)
    halves, _ = rebin([8.0], [start + 0.5 * size, start + 1.5 * size], reach)
    assert halves[position] == pytest.approx(4.0)


def test_counts_are_spread_evenly_over_new_bins() -> None:
    counts, outside = rebin([32.0, 96.0], [-4.0, 0.0, 4.0], 2.0)
    assert counts == pytest.approx([1.0] * (BINS // 2) + [3.0] * (BINS // 2))
    assert outside == pytest.approx(64.0)
    counts, outside = rebin([5.0], [-1.0, 1.0], 4.0)
    assert sum(counts) == pytest.approx(5.0)
    assert sum(counts[: BINS * 3 // 8]) == pytest.approx(0.0)
    assert outside == pytest.approx(0.0)


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_exact_zeros_are_not_in_the_bin_at_zero(layer: int) -> None:
    run = stored_run()
    figure = figure_of(histogram_figures, report_of([run]), "histograms-activation")
    record = record_of(figure, layer=layer, step=0)
    # The first bin has 160 of 238 entries, 100 of which are exact zeros.
    assert record["zeros"] == rounded(100 / 238)
    assert record["shares"] == [100, 67, 33, 17, 8, 3, 2, 0]
    assert (record["low"], record["width"], record["outside"]) == (EDGES[0], 0.5, 0.0)


def test_entries_outside_the_histogram_are_counted() -> None:
    run = stored_run()
    run.snapshots[0]["layers"][0]["act"]["histogram"] |= {"below": 3, "above": 2, "nan": 7}
    figure = figure_of(histogram_figures, report_of([run]), "histograms-activation")
    assert record_of(figure, layer=1, step=0)["outside"] == rounded(12 / 250)


@pytest.mark.parametrize(("when", "step"), [("init", 0), ("end", 1000)])
@pytest.mark.parametrize(
    ("key", "statistic"),
    [
        ("activation-std", "act_std"),
        ("q", "pre_q"),
        ("gradient", "gradient"),
        ("dead-units", "dead"),
        ("saturated", "saturated"),
    ],
)
def test_depth_profiles_are_the_means_that_show_prints(
    key: str, statistic: str, when: str, step: int
) -> None:
    runs = [stored_run("tanh", seed, bounded=True) for seed in range(3)]
    figure = figure_of(depth_figures, report_of(runs), f"depth-{key}")
    layers = layers_at(runs, when)
    values = {layer.index: getattr(layer, statistic) for layer in layers}
    assert {record["layer"] for record in records_of(figure, step=step)} == {
        index for index, value in values.items() if value is not None
    }
    for record in records_of(figure, step=step):
        assert record["value"] == pytest.approx(values[record["layer"]], rel=1e-5)
        assert record["least"] <= record["value"] <= record["most"]


def test_seeds_are_the_ends_of_the_bars() -> None:
    runs = two_arms()
    figure = figure_of(depth_figures, report_of(runs), "depth-activation-std")
    for layer in (1, 2, 3):
        seeds = [run.snapshots[0]["layers"][layer - 1]["act"]["std"] for run in runs[:3]]
        record = record_of(figure, row="kaiming", step=0, layer=layer)
        assert (record["least"], record["most"]) == (rounded(min(seeds)), rounded(max(seeds)))


def test_the_limit_is_that_of_the_diagnosis() -> None:
    figure = figure_of(depth_figures, report_of([stored_run()]), "depth-q")
    first = record_of(figure, step=0, layer=1)["value"]
    assert record_of(figure, step=0, layer=2)["limit"] == rounded(VANISHING_RATIO * first)
    figure = figure_of(depth_figures, report_of([stored_run()]), "depth-gradient")
    last = record_of(figure, step=0, layer=3)["value"]
    assert record_of(figure, step=0, layer=1)["limit"] == pytest.approx(VANISHING_RATIO * last)


@pytest.mark.parametrize(
    ("key", "metric", "scale"),
    [("validation-accuracy", "final_val_accuracy", 100.0), ("training-loss", "final_train_loss", 1.0)],
)
def test_means_and_intervals_of_curves_are_those_of_compare(key: str, metric: str, scale: float) -> None:
    report = report_of([*two_arms(), stored_run("xavier", 3, status="diverged")])
    figure = figure_of(convergence_figures, report, key)
    for row in report.rows:
        record = record_of(figure, row=row.name, kind="mean", step=1000.0)
        mean, interval = row.row.metrics[metric].mean, row.table.interval(row.row, metric)
        assert mean is not None and interval is not None
        assert record["value"] == pytest.approx(scale * mean, rel=1e-5)
        ends = [scale * interval.low, scale * interval.high]
        assert [record["low"], record["high"]] == pytest.approx(ends, rel=1e-4)


def test_every_seed_has_its_curve_and_a_divergence_its_cross() -> None:
    runs = [stored_run("fine", seed) for seed in range(2)] + [stored_run("broken", status="diverged")]
    figure = figure_of(convergence_figures, report_of(runs), "training-loss")
    for run in runs[:2]:
        records = records_of(figure, row="fine", kind="seed", seed=run.record["seed"])
        assert {record["step"]: record["value"] for record in records} == {
            float(entry["step"]): rounded(entry["train_loss"]) for entry in run.convergence
        }
    cross = record_of(figure, kind="diverged")
    assert (cross["row"], cross["step"]) == ("broken", 437)
    assert cross["value"] == rounded(runs[2].convergence[-2]["train_loss"])
    assert not records_of(figure, row="broken", kind="mean")


def test_at_most_nine_probes_are_kept_with_both_ends() -> None:
    run = stored_run()
    first = run.snapshots[0]
    run.snapshots[1:1] = [{**copy.deepcopy(first), "when": "train", "step": step} for step in range(1, 40)]
    figure = figure_of(depth_figures, report_of([run]), "depth-q")
    steps = sorted(set(figure.columns["step"]))
    assert len(steps) == MAX_MOMENTS and (steps[0], steps[-1]) == (0, 1000)


def drawn(figure: ReportFigure, **values: Any) -> str:
    """Return the picture of a figure with these values of its parameters."""
    spec = figure.complete_spec(legend=False)
    names = [parameter["name"] for parameter in spec["params"]]
    assert set(values) <= set(names)
    spec["params"] = [
        {"name": parameter["name"], "value": values.get(parameter["name"], parameter["value"])}
        for parameter in spec["params"]
    ]
    return str(start_engine().vegalite_to_svg(spec))


@pytest.mark.parametrize("build", [histogram_figures, depth_figures, heat_map_figures, convergence_figures])
def test_hidden_rows_are_not_drawn(build: Any) -> None:
    for figure in build(report_of(two_arms())):
        picture = drawn(figure)
        marks = {name: colour for name, colour in COLOURS.items() if colour in picture or name in picture}
        assert set(marks) == set(COLOURS), figure.key
        without = drawn(figure, hidden=["xavier"])
        assert COLOURS["xavier"] not in without and "xavier" not in without, figure.key
        assert COLOURS["kaiming"] in without or "kaiming" in without, figure.key


@pytest.mark.parametrize("build", [histogram_figures, depth_figures, heat_map_figures])
def test_step_and_layer_change_the_picture(build: Any) -> None:
    runs = two_arms()
    for run in runs:
        run.snapshots[-1]["layers"][0]["act"]["histogram"]["counts"] = [10, 1, 2, 3, 4, 5, 6, 7]
        for layer in run.snapshots[-1]["layers"][:-1]:
            layer["act"]["dead_fraction"] = 0.9
    for figure in build(report_of(runs)):
        first = drawn(figure)
        if "gradient" not in figure.key:
            assert drawn(figure, step=1000) != first, figure.key
        assert drawn(figure, layer=2) != first, figure.key
