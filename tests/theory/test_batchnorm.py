"""Theory of batch norm against nets, drawn and run in float64 by a loop that knows no theory."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from initbench.components.activation import bound
from initbench.theory.batchnorm_propagation import NormedLayer, propagate_batch_norm
from initbench.theory.types import LayerPrediction, TheoryLayer

NETS, WIDTH, DEPTH, SAMPLES, CLASSES = 16, 1024, 3, 64, 8


@dataclass(frozen=True)
class Case:
    """A net of equal layers."""

    activation: str
    sigma_w2: float = 1.0
    eps: float = 1e-5
    bias: float = 0.0


CASES = {
    "relu": Case("relu"),
    "tanh": Case("tanh", bias=0.5),
    "gelu": Case("gelu", sigma_w2=4.0),
    "linear": Case("linear"),
    "relu, a large eps": Case("relu", eps=0.3),
}


def predicted(case: Case, samples: int = SAMPLES) -> list[LayerPrediction]:
    activation = bound(case.activation).nonlinearity
    layer = TheoryLayer(WIDTH, WIDTH, WIDTH, case.sigma_w2, bias_shift=case.bias, activation=activation)
    head = TheoryLayer(WIDTH, CLASSES, CLASSES, case.sigma_w2, bias_shift=case.bias)
    x = inputs()
    variance = float((x - x.mean(0)).square().mean())
    layers = [NormedLayer(layer, case.eps)] * DEPTH
    return propagate_batch_norm(layers, head, variance=variance, samples=samples)


@cache
def inputs() -> Tensor:
    stream = torch.Generator().manual_seed(5)
    return 1.0 + torch.randn(SAMPLES, WIDTH, generator=stream, dtype=torch.float64)


@cache
def measured(case: Case) -> list[dict[str, Tensor]]:
    """Return, by layer and statistic, the values (NETS,) of all nets."""
    stream = torch.Generator().manual_seed(1)
    nets = [one_net(case, stream) for _ in range(NETS)]
    return [
        {name: torch.tensor([net[place][name] for net in nets]) for name in nets[0][place]}
        for place in range(DEPTH + 1)
    ]


def one_net(case: Case, stream: torch.Generator) -> list[dict[str, float]]:
    chosen, kept, act = bound(case.activation), [], inputs()
    for units in (*[WIDTH] * DEPTH, CLASSES):
        weight = torch.randn(WIDTH, units, generator=stream, dtype=torch.float64)
        h = act @ weight * math.sqrt(case.sigma_w2 / WIDTH) + case.bias
        if units == WIDTH:
            h = h - h.mean(0)
            h = (h / (h.square().mean(0) + case.eps).sqrt()).requires_grad_()
            kept.append(h)
            act = chosen.phi(h)
    labels = one_hot(torch.arange(SAMPLES) % CLASSES, CLASSES)
    top = labels.double() - 1.0 / CLASSES
    energies = [float(delta.square().mean()) for delta in (*torch.autograd.grad(h, kept, top), top)]
    shown = []
    for own, (here, above) in zip(kept, pairwise(energies), strict=True):
        act = chosen.phi(own.detach())
        one = {"q": own.detach().square().mean(), "act_mean": act.mean(), "act_std": act.std(correction=0)}
        shown.append({name: float(value) for name, value in one.items()} | {"grad_ratio": here / above})
    return [*shown, {"q": float(h.detach().square().mean())}]


def z_scores(case: Case, said: list[LayerPrediction]) -> dict[tuple[int, str], float]:
    """Return, by layer and statistic, (mean over nets − theory)/(standard error + second order)."""
    found = {}
    for place, (shown, one) in enumerate(zip(measured(case), said, strict=True)):
        for name, values in shown.items():
            value = one.statistics[name].value
            sem = float(values.std()) / math.sqrt(NETS)
            found[place, name] = (float(values.mean()) - value) / (sem + LEFT_OUT * abs(value) + 1e-5)
    return found


MOST_Z = 5.0
LEFT_OUT = 1.0 / SAMPLES**2
"""Relative size of the second order in 1/B."""


@pytest.mark.parametrize("name", CASES)
def test_nets_do_what_theory_says(name: str) -> None:
    found = z_scores(CASES[name], predicted(CASES[name]))
    assert len(found) == 4 * DEPTH + 1
    assert max(map(abs, found.values())) < MOST_Z, found


NEIGHBOURS = {"relu": "gelu", "tanh": "softsign", "gelu": "silu", "linear": "leaky_relu"}


@pytest.mark.parametrize("name", CASES)
def test_a_neighbouring_activation_is_told_apart(name: str) -> None:
    case = CASES[name]
    found = z_scores(case, predicted(replace(case, activation=NEIGHBOURS[case.activation])))
    assert max(map(abs, found.values())) > 2 * MOST_Z


@pytest.mark.parametrize("name", ["relu", "tanh", "relu, a large eps"])
def test_the_size_of_the_batch_counts(name: str) -> None:
    found = z_scores(CASES[name], predicted(CASES[name], samples=SAMPLES // 4))
    assert max(map(abs, found.values())) > MOST_Z


def ratio(case: Case, samples: int) -> float:
    return predicted(case, samples)[0].statistics["grad_ratio"].value


def test_relu_makes_gradients_grow_as_yang_et_al_found() -> None:
    assert ratio(Case("relu", eps=1e-12), 10**7) == pytest.approx(math.pi / (math.pi - 1.0), rel=1e-6)


@pytest.mark.parametrize("samples", [32, 128, 1024])
def test_linear_nets_have_the_known_ratio_to_first_order(samples: int) -> None:
    exact = (samples - 2) / (samples - 3)
    assert ratio(Case("linear", eps=1e-12), samples) == pytest.approx(exact, abs=4.0 / samples**2)


def test_no_scale_of_the_weights_and_no_bias_matters() -> None:
    one, other = predicted(Case("gelu", eps=1e-12)), predicted(Case("gelu", 9.0, eps=1e-12, bias=3.0))
    for place in range(DEPTH):
        for name, statistic in one[place].statistics.items():
            if (place, name) != (DEPTH - 1, "grad_ratio"):  # no norm behind the head
                assert other[place].statistics[name].value == pytest.approx(statistic.value, rel=1e-6)


def test_nothing_is_predicted_of_a_batch_without_variance() -> None:
    relu = TheoryLayer(9, 9, 9, 2.0, activation=bound("relu").nonlinearity)
    said = propagate_batch_norm([NormedLayer(relu, 1e-5)] * 2, relu, variance=0.0, samples=64)
    assert [one.statistics for one in said] == [{}, {}, {}]
