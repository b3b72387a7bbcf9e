"""Predictions in the records of a run, read without torch."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
from scipy import integrate, stats

from initbench.components.activation import bound
from initbench.theory import bands
from initbench.theory.bands import PredictedStatistic, recorded_band, recorded_distribution, recorded_value
from initbench.theory.preactivation import PreactivationDistribution, quadrature_nodes
from initbench.theory.types import LayerPrediction

PREDICTION = LayerPrediction(
    {
        "q": PredictedStatistic(2.0, 0.4),
        "log_q": PredictedStatistic(0.67, 0.2),
        "act_std": PredictedStatistic(0.8, 0.1),
        "grad_ratio": PredictedStatistic(1.0),
    },
    backward_trusted=False,
)


def test_a_record_has_the_shown_statistics() -> None:
    assert PREDICTION.as_data() == {
        "q": {"value": 2.0, "sd": 0.4, "trusted": True},
        "act_std": {"value": 0.8, "sd": 0.1, "trusted": True},
        "grad_ratio": {"value": 1.0, "sd": None, "trusted": False},
    }
    assert LayerPrediction(bias_shift=0.1).as_data() == {}, "there is nothing that a bias could describe"


@pytest.mark.parametrize("nets", [1, 3, 16])
def test_a_recorded_band_is_that_of_the_prediction(nets: int) -> None:
    theory = PREDICTION.as_data()
    for name in bands.STATISTICS:
        assert recorded_band(theory, name, nets) == PREDICTION.band(name, nets)
    assert recorded_band(theory, "q", nets) == bands.q_band(PREDICTION.statistics["q"], nets)
    act_std = recorded_band(theory, "act_std", nets)
    assert act_std == pytest.approx((0.8 - 0.3 / math.sqrt(nets), 0.8 + 0.3 / math.sqrt(nets)))


@pytest.mark.parametrize(
    "theory",
    [
        None,
        {},
        {"q": {"value": "NaN", "sd": 0.1, "trusted": True}},
        {"q": {"value": None, "sd": 0.1, "trusted": True}},
    ],
)
def test_a_missing_value_has_no_band(theory: dict[str, Any] | None) -> None:
    assert recorded_value(theory, "q") is None
    assert recorded_band(theory, "q", 3) is None
    assert recorded_distribution(theory) is None


def test_a_value_that_is_not_trusted_has_no_band() -> None:
    theory = {"q": {"value": 1.0, "sd": 0.1, "trusted": False}}
    assert recorded_value(theory, "q") == 1.0
    assert recorded_band(theory, "q", 3) is None
    theory["q"] |= {"sd": None, "trusted": True}
    assert recorded_band(theory, "q", 3) is None


def test_the_distribution_without_a_bias_is_normal() -> None:
    share_below = recorded_distribution({"q": {"value": 4.0}})
    assert share_below is not None
    for x in (-3.0, 0.0, 1.0, 5.0):
        assert share_below(x) == pytest.approx(stats.norm(0.0, 2.0).cdf(x), abs=1e-12)


@pytest.mark.parametrize("shift, half_width", [(0.5, 0.0), (0.0, 1.5), (-0.3, 0.4), (0.0, 1e-9)])
def test_the_distribution_with_a_bias_is_that_of_the_sum(shift: float, half_width: float) -> None:
    variance = 0.25
    law = PreactivationDistribution(variance, shift, half_width)
    theory = {"q": {"value": law.second_moment}, "bias": {"shift": shift, "half_width": half_width}}
    share_below = recorded_distribution(theory)
    assert share_below is not None
    for x in (-2.0, -0.5, 0.0, 0.7, 3.0):
        if half_width < 1e-6:
            wanted = stats.norm(shift, 0.5).cdf(x)
        else:
            ends = (shift - half_width, shift + half_width)
            wanted = integrate.quad(lambda b, x=x: stats.norm(b, 0.5).cdf(x), *ends)[0] / (2 * half_width)
        assert share_below(x) == pytest.approx(wanted, abs=1e-8)


@pytest.mark.parametrize("ratio", [0.1, 1.0, 4.0, 8.0, 12.0])
def test_few_biases_are_enough_beside_a_wide_gaussian(ratio: float) -> None:
    relu = bound("relu").nonlinearity
    assert relu is not None
    law = PreactivationDistribution(1.0, 0.2, ratio)
    nodes = quadrature_nodes(law, relu.breaks)
    ends = (0.2 - ratio, 0.2 + ratio)
    for moment in (1, 2):
        wanted = integrate.quad(
            lambda b, m=moment: stats.truncnorm(-b, math.inf, b).moment(m) * stats.norm.cdf(b),
            *ends,
            limit=200,
        )[0] / (2 * ratio)
        assert nodes.mean(relu.phi(nodes.h) ** moment) == pytest.approx(wanted, rel=2e-6)


def test_reading_a_record_needs_no_torch() -> None:
    program = "import sys, initbench.theory.bands, initbench.report.build; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
