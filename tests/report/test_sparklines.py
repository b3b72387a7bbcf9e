"""The small curves in the table of the verdict show the numbers of the figures."""

from __future__ import annotations

import math
import re

import pytest

from initbench.report.build import build_page
from initbench.report.page import Sparkline, render_page
from initbench.report.views.convergence import convergence_figures
from initbench.report.views.depth_profile import depth_figures
from initbench.report.views.sparklines import sparklines
from tests.report.report_runs import figure_of, record_of, records_of, report_of, stored_run, two_arms


def test_curves_are_those_of_the_figures() -> None:
    report = report_of(two_arms())
    signal_figure = figure_of(depth_figures, report, "depth-activation-std")
    accuracy_figure = figure_of(convergence_figures, report, "validation-accuracy")
    values = [record["value"] for record in signal_figure.rows() if record["step"] == 0]
    height = max(2.0, math.log10(max(values) / min(values)))
    for name, (signal, accuracy) in sparklines(report).items():
        assert isinstance(signal, Sparkline) and isinstance(accuracy, Sparkline)
        layers = [record["layer"] for record in records_of(signal_figure, row=name, step=0)]
        assert len(signal.points) == len(layers) and signal.points[0][0] == 0.0
        for layer, (x, y) in zip(layers, signal.points, strict=True):
            value = record_of(signal_figure, row=name, step=0, layer=layer)["value"]
            assert x == pytest.approx((layer - 1) / (max(layers) - 1))
            assert y == pytest.approx(1 + math.log10(value / max(values)) / height, abs=1e-4)
        means = records_of(accuracy_figure, row=name, kind="mean")
        assert [y for _, y in accuracy.points] == pytest.approx(
            [mean["value"] / 100 for mean in means], abs=1e-5
        )
        assert accuracy.points[-1][0] == 1.0


def test_coordinates_lie_in_the_picture() -> None:
    for curves in sparklines(report_of(two_arms())).values():
        for curve in curves:
            assert isinstance(curve, Sparkline)
            pairs = [tuple(map(float, pair.split(","))) for pair in curve.path.split()]
            assert all(0 <= x <= Sparkline.WIDTH and 0 <= y <= Sparkline.HEIGHT for x, y in pairs)
            assert pairs == sorted(pairs, key=lambda pair: pair[0])


def test_a_row_without_curves_has_empty_cells() -> None:
    run = stored_run("only")
    run.snapshots.clear()
    run.convergence.clear()
    assert sparklines(report_of([run])) == {"only": ["", ""]}


def test_the_page_describes_the_curves() -> None:
    pytest.importorskip("vl_convert")
    text = render_page(build_page(report_of(two_arms())))
    titles = re.findall(r'<svg class="spark"[^>]* aria-label="([^"]+)"><title>([^<]+)</title>', text)
    assert [label for label, _ in titles] == [title for _, title in titles]
    signal, accuracy = (title for _, title in titles[:2])
    assert re.fullmatch(r"std of the activations at init: ×\S+ from the first layer to the last", signal)
    assert re.fullmatch(r"mean validation accuracy: [\d.]+ % after [\d,]+ updates", accuracy)
    assert len(titles) == 4
