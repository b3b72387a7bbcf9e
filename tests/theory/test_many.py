"""Interpolated expectations against the quadrature that they are made of, between its grid points."""

from __future__ import annotations

import math

import pytest
import torch

from initbench.components.activation import ACTIVATIONS, bound
from initbench.theory import interpolated_expectations
from initbench.theory.interpolated_expectations import NAMES, InterpolatedExpectations
from initbench.theory.preactivation import PreactivationDistribution, evaluate_moments, quadrature_nodes

ELEMENTWISE = [entry.name for entry in ACTIVATIONS if entry.elementwise]
STATED = 2e-6
"""What the module promises."""


def variances() -> torch.Tensor:
    """Up to the 30 that quadrature resolves a sine under."""
    stream = torch.Generator().manual_seed(0)
    exponents = torch.empty(20, dtype=torch.float64).uniform_(
        math.log(1e-4), math.log(30.0), generator=stream
    )
    return exponents.exp()


def worst(name: str, shift: float, half_width: float) -> float:
    """Largest error, relative to what the module states it by."""
    activation = bound(name).nonlinearity
    assert activation is not None
    at = variances()
    found, errors = InterpolatedExpectations(activation, shift=shift, half_width=half_width).at(at), [0.0]
    for i, variance in enumerate(at.tolist()):
        nodes = quadrature_nodes(PreactivationDistribution(variance, shift, half_width), activation.breaks)
        exact = {key: nodes.mean(value) for key, value in evaluate_moments(activation, nodes.h).items()}
        scales = {"act": math.sqrt(exact["act2"]), "act2": exact["act2"], "slope2": exact["slope2"]}
        # Where φ only rounds to 0 far out, there is no kink to tell quadrature of.
        names = [key for key in NAMES if key != "zero" or activation.kinks]
        errors += [abs(float(found[key][i]) - exact[key]) / scales.get(key, 1.0) for key in names]
    return max(errors)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_they_are_as_exact_as_stated(name: str) -> None:
    assert worst(name, 0.0, 0.0) < STATED
    assert worst(name, 0.4, 0.0) < STATED


def test_so_they_are_with_a_uniform_bias() -> None:
    assert worst("tanh", 0.0, 0.3) < STATED and worst("relu", 0.0, 0.3) < STATED


def test_a_wider_grid_would_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpolated_expectations, "GRID_STEP", 0.5)
    assert worst("squared_relu", 0.0, 0.0) > 10 * STATED


def test_a_place_that_nothing_arrives_at_has_its_bias_alone() -> None:
    relu = bound("relu").nonlinearity
    assert relu is not None
    found = InterpolatedExpectations(relu).at(torch.tensor([[0.0, 2.0]], dtype=torch.float64))
    assert {name: value.tolist()[0][0] for name, value in found.items()} == {
        "act": 0.0,
        "act2": 0.0,
        "slope2": 0.0,
        "zero": 1.0,
        "flat": 0.0,
    }
    assert found["act2"][0, 1] == pytest.approx(1.0, rel=STATED)
    lifted = InterpolatedExpectations(relu, shift=0.5).at(torch.zeros(1, dtype=torch.float64))
    assert float(lifted["act"]) == 0.5 and float(lifted["slope2"]) == 1.0
