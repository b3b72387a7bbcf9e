"""Theory in the figures of a report: values, bands and distributions; and histograms without a scale."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
import torch
from scipy import stats

from initbench.components.activation import ACTIVATIONS, bound
from initbench.report.build import figures_of
from initbench.report.figure import start_engine
from initbench.report.report_runs import ReportRuns
from initbench.report.views.depth_profile import depth_figures
from initbench.report.views.histogram_grid import BINS, IDENTITY_IF_POSITIVE, histogram_figures
from initbench.store.store import StoredRun
from initbench.theory.bands import PredictedStatistic, q_band
from initbench.theory.types import LayerPrediction
from tests.report.report_runs import figure_of, record_of, records_of, report_of, stored_run

Q, STD, RATIO = 0.8, 0.3, 0.5
PREDICTION = LayerPrediction(
    {
        "q": PredictedStatistic(Q, 0.1),
        "act_std": PredictedStatistic(STD, 0.02),
        "saturated_fraction": PredictedStatistic(0.1, 0.2),
        "grad_ratio": PredictedStatistic(RATIO, 0.1),
    }
)
COUNTS = [0, 1, 3, 12, 40, 12, 3, 1]


def run(
    seed: int = 0, *, activation: str = "relu", histograms: dict[str, Any] | None = None, **options: Any
) -> StoredRun:
    """A run with theory at init, and with histograms of pre-activations and gradients.

    Args:
        seed: Seed.
        activation: Name of the activation.
        histograms: Section of a layer → what replaces its keys in every layer.
        options: Options of `stored_run`.
    """
    plain = stored_run(seed=seed, **options)
    record, snapshots = json.loads(json.dumps([plain.record, plain.snapshots]))
    record["config"]["model"]["activation"] = {"name": activation}
    for snapshot in snapshots:
        for layer in snapshot["layers"]:
            for section in ("pre", "grad"):
                q = layer[section]["q" if section == "pre" else "pre_q"]
                span = [-4.0 * q**0.5, 4.0 * q**0.5]
                layer[section]["histogram"] = {
                    "span": span, "counts": COUNTS, "below": 0, "above": 0, "nan": 0
                }  # fmt: skip
                layer[section] |= (histograms or {}).get(section, {})
            if snapshot["when"] == "init" and layer["act"] is not None:
                layer["theory"] = PREDICTION.as_data()
    return StoredRun(plain.run_id, record, plain.convergence, snapshots)


def report(seeds: int = 3, **options: Any) -> ReportRuns:
    return report_of([run(seed, **options) for seed in range(seeds)])


@pytest.mark.parametrize("seeds", [1, 3])
def test_bands_are_those_of_the_mean_of_the_seeds_at_init(seeds: int) -> None:
    shown = report(seeds)
    q = figure_of(depth_figures, shown, "depth-q")
    low, high = q_band(PREDICTION.statistics["q"], seeds)
    for record in records_of(q, step=0)[:-1]:
        assert record["theory"] == Q
        assert (record["theory_low"], record["theory_high"]) == pytest.approx((low, high), rel=1e-5)
    std = record_of(figure_of(depth_figures, shown, "depth-activation-std"), step=0, layer=1)
    reach = 3 * 0.02 / seeds**0.5
    assert (std["theory_low"], std["theory_high"]) == pytest.approx((STD - reach, STD + reach), rel=1e-5)
    later = [record for record in q.rows() if record["step"] > 0]
    assert later and all(record["theory"] is record["theory_low"] is None for record in later)
    assert record_of(q, step=0, layer=4)["theory"] is None, "nothing is predicted for the head"


def test_shares_have_bands_between_0_and_1() -> None:
    record = record_of(figure_of(depth_figures, report(bounded=True), "depth-saturated"), step=0, layer=1)
    assert record["theory"] == 0.1 and record["theory_low"] == 0.0 and record["theory_high"] < 1.0


def test_the_gradient_is_expected_from_the_last_layer_back() -> None:
    figure = figure_of(depth_figures, report(), "depth-gradient")
    head = record_of(figure, step=0, layer=4)
    assert head["theory"] == head["value"]
    for layer in (1, 2, 3):
        expected = record_of(figure, step=0, layer=layer)["theory"]
        assert expected == pytest.approx(head["value"] * RATIO ** (4 - layer), rel=1e-5)


def test_runs_without_theory_have_no_values_of_theory() -> None:
    for figure in figures_of(report_of([stored_run(seed=seed) for seed in range(3)])):
        assert not any(figure.columns.get("theory", [])), figure.key
        assert "theory" not in figure.caption, figure.key


def test_pre_activations_have_the_predicted_gaussian() -> None:
    figure = figure_of(histogram_figures, report(), "histograms-pre-activation")
    record = record_of(figure, step=0, layer=2)
    widest = max(entry["pre"]["q"] for entry in run().snapshots[0]["layers"])
    reach = 4.0 * widest**0.5
    normal = stats.norm(0.0, Q**0.5)
    size = 2 * reach / BINS
    shares = [normal.cdf(-reach + (i + 1) * size) - normal.cdf(-reach + i * size) for i in range(BINS)]
    middle = BINS // 2
    drawn = record["theory"]
    assert drawn[middle] == drawn[middle - 1] > 0.0
    for i, share in enumerate(shares):
        if drawn[i] is not None:
            assert drawn[i] / drawn[middle] == pytest.approx(share / shares[middle], abs=2e-3)
    assert sum(share is not None for share in drawn) > 4
    assert all(not later["theory"] for later in records_of(figure) if later["step"] > 0)


def test_a_curve_and_bars_of_the_same_distribution_have_the_same_height() -> None:
    edges = [0.25 * i for i in range(17)]
    normal = stats.norm(0.0, Q**0.5)
    shares = [normal.cdf(high) - normal.cdf(low) for low, high in pairwise(edges)]
    counts = [round(1e6 * share) for share in shares]
    counts[0] += 500_000  # relu's zeros are in the first bin
    histogram = {"edges": edges, "counts": counts, "below": 0, "above": 0, "nan": 0}
    options = {"act": {"histogram": histogram, "zero_fraction": 500_000 / sum(counts)}}
    made = run()
    for snapshot in made.snapshots:
        for layer in snapshot["layers"][:-1]:
            layer["act"] |= options["act"]
    record = record_of(
        figure_of(histogram_figures, report_of([made]), "histograms-activation"), step=0, layer=1
    )
    drawn = [(bar, curve) for bar, curve in zip(record["shares"], record["theory"], strict=True) if curve]
    assert len(drawn) > 8
    for bar, curve in drawn:
        assert curve == pytest.approx(bar, abs=0.6)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "linear", "tanh", "gelu"])
def test_activations_have_a_curve_where_they_equal_the_pre_activation(activation: str) -> None:
    edges = [-2.0 + 0.25 * i for i in range(17)]
    made = run(activation=activation)
    for snapshot in made.snapshots:
        for layer in snapshot["layers"][:-1]:
            layer["act"]["histogram"] = {
                "edges": edges, "counts": [9] * 16, "below": 0, "above": 0, "nan": 0
            }  # fmt: skip
            layer["act"]["zero_fraction"] = 0.0
    figure = figure_of(histogram_figures, report_of([made]), "histograms-activation")
    curve = record_of(figure, step=0, layer=1)["theory"]
    if activation not in IDENTITY_IF_POSITIVE:
        assert curve is None
        return
    assert all(share is not None for share in curve[8:12])
    negative = curve[4:8]
    assert negative == (curve[8:12][::-1] if activation == "linear" else [None] * 4)


def test_the_activations_that_are_listed_equal_their_positive_input() -> None:
    h = torch.tensor([0.01, 0.5, 1.0, 3.0, 20.0], dtype=torch.float64)

    def keeps(name: str) -> bool:
        activation = bound(name)
        return activation.entry.elementwise and bool(torch.allclose(activation.phi(h), h, rtol=1e-12))

    assert {name for name in ACTIVATIONS.names() if keeps(name)} == set(IDENTITY_IF_POSITIVE)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 3.7e-9, 0.1])
def test_exact_zeros_of_a_gradient_leave_the_bin_at_zero(scale: float) -> None:
    counts = [0, 1, 3, 12, 540, 12, 3, 1]
    histogram = {"span": [-4.0 * scale, 4.0 * scale], "counts": counts, "below": 0, "above": 0, "nan": 0}
    shown = report(1, histograms={"grad": {"histogram": histogram, "zero_fraction": 528 / sum(counts)}})
    figure = figure_of(histogram_figures, shown, "histograms-gradient")
    record = record_of(figure, step=0, layer=2)
    half = BINS // 2
    size = BINS // len(counts)
    assert record["shares"][half : half + size] == [100] * size
    assert record["shares"][half + size : half + 2 * size] == [100] * size
    assert record["shares"][half - size : half] == [100] * size
    assert record["zeros"] == pytest.approx(528 / sum(counts), rel=1e-5)


NOTHING = {"span": [0.0, 0.0], "counts": [0, 0, 0, 0, 64, 0, 0, 0], "below": 0, "above": 0, "nan": 0}


@pytest.mark.parametrize(
    "counts, zeros, outside",
    [({}, 1.0, 0.0), ({"above": 64, "nan": 64, "below": 64}, 0.25, 0.75)],
    ids=["all zero", "not finite"],
)
@pytest.mark.parametrize("section", ["pre", "grad"])
def test_a_tensor_without_a_scale_has_no_bars(
    section: str, counts: dict[str, int], zeros: float, outside: float, capfd: pytest.CaptureFixture[str]
) -> None:
    shown = report(1, histograms={section: {"histogram": NOTHING | counts, "zero_fraction": zeros}})
    key = {"pre": "histograms-pre-activation", "grad": "histograms-gradient"}[section]
    figure = figure_of(histogram_figures, shown, key)
    record = record_of(figure, step=0, layer=2)
    assert record["shares"] == [0] * BINS and record["width"] > 0.0
    assert (record["zeros"], record["outside"]) == (zeros, outside)
    assert record["theory"] is None
    assert any("without bars" in note for note in figure.notes)
    pytest.importorskip("vl_convert")
    assert "<svg" in start_engine().vegalite_to_svg(figure.complete_spec(), show_warnings=True)
    assert capfd.readouterr().err == ""


def test_one_layer_without_a_scale_does_not_change_the_axis_of_the_others() -> None:
    made = run()
    for snapshot in made.snapshots:
        snapshot["layers"][1]["grad"] |= {"histogram": NOTHING, "zero_fraction": 1.0}
    figure = figure_of(histogram_figures, report_of([made]), "histograms-gradient")
    other = figure_of(histogram_figures, report(1), "histograms-gradient")
    assert record_of(figure, step=0, layer=1) == record_of(other, step=0, layer=1)
    assert max(record_of(figure, step=0, layer=2)["shares"]) == 0


def test_figures_with_theory_compile_without_warnings(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("vl_convert")
    for figure in figures_of(report(bounded=True)):
        assert "<svg" in start_engine().vegalite_to_svg(figure.complete_spec(), show_warnings=True)
        assert capfd.readouterr().err == "", figure.key
