"""Theory of maps against nets, drawn and run in float64 by a loop that knows no theory."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, one_hot

from initbench.components.activation import bound
from initbench.theory.conv_propagation import Head, MapLayer, propagate_maps
from initbench.theory.propagation import propagate
from initbench.theory.types import InputStatistics, LayerPrediction, TheoryLayer

NETS, WIDTH, SAMPLES, SIDE, CLASSES, EPS = 60, 96, 8, 6, 10, 1e-5


@dataclass(frozen=True)
class Case:
    """A net of convolutions."""

    activation: str
    sigma_w2: float
    strides: tuple[int, ...] = (1, 2, 1)
    kernel: int = 3
    bias_std: float = 0.0
    shift: float = 0.0
    half_width: float = 0.0
    norm: str | None = None
    averaged: bool = False
    side: int = SIDE


CASES = {
    "relu": Case("relu", 2.0),
    "relu, all places averaged": Case("relu", 2.0, strides=(1, 1), averaged=True),
    "tanh with biases": Case("tanh", 1.5, bias_std=0.3),
    "sigmoid, a large kernel": Case("sigmoid", 1.5, strides=(1, 2), kernel=5),
    "gelu, every bias the same": Case("gelu", 1.5, shift=0.2),
    "relu and layer norm": Case("relu", 0.02, norm="layer"),
    "tanh and rms norm": Case("tanh", 3.0, norm="rms", bias_std=0.2),
    "dense relu, rms norm, uniform biases": Case(
        "relu", 1.0, (1, 1, 1), 1, half_width=0.3, norm="rms", side=1
    ),
    "dense gelu, layer norm, every bias the same": Case(
        "gelu", 1.0, (1, 1, 1), 1, shift=0.5, norm="layer", side=1
    ),
}


@cache
def inputs(side: int) -> Tensor:
    """Samples and places differ in their energy by far."""
    stream = torch.Generator().manual_seed(7)
    x = torch.randn(SAMPLES, 12, side, side, generator=stream, dtype=torch.float64)
    return x * torch.exp(0.7 * torch.randn(SAMPLES, 1, side, side, generator=stream, dtype=torch.float64))


def predicted(case: Case) -> list[LayerPrediction]:
    activation, x = bound(case.activation).nonlinearity, inputs(case.side)
    layers, channels, window = [], x.shape[1], case.kernel**2
    for stride in case.strides:
        layer = TheoryLayer(
            channels * window,
            WIDTH * window / stride**2,
            WIDTH,
            case.sigma_w2,
            bias_variance=case.bias_std**2,
            bias_shift=case.shift,
            bias_half_width=case.half_width,
            activation=activation,
        )
        layers.append(MapLayer(layer, case.kernel, stride, None if case.norm is None else EPS))
        channels = WIDTH
    side = -(-case.side // math.prod(case.strides))
    fan_in = WIDTH if case.averaged else WIDTH * side**2
    head = replace(layers[-1].layer, fan_in=fan_in, fan_out=CLASSES, units=CLASSES, activation=None)
    return propagate_maps(layers, Head(head, case.averaged), x.square().mean(1))


@cache
def measured(case: Case) -> list[dict[str, Tensor]]:
    """Return, by layer and statistic, the values (NETS,) of all nets."""
    stream = torch.Generator().manual_seed(1)
    nets = [one_net(case, stream) for _ in range(NETS)]
    return [
        {name: torch.tensor([net[place][name] for net in nets]) for name in nets[0][place]}
        for place in range(len(nets[0]))
    ]


def biases(case: Case, units: int, stream: torch.Generator) -> Tensor:
    gaussian = torch.randn(units, generator=stream, dtype=torch.float64)
    uniform = 2.0 * torch.rand(units, generator=stream, dtype=torch.float64) - 1.0
    return case.shift + case.bias_std * gaussian + case.half_width * uniform


def one_net(case: Case, stream: torch.Generator) -> list[dict[str, float]]:
    chosen, kept = bound(case.activation), []
    act = inputs(case.side)
    for stride in case.strides:
        weight = torch.randn(WIDTH, act.shape[1], case.kernel, case.kernel, generator=stream, dtype=act.dtype)
        bias = biases(case, WIDTH, stream)
        weight *= math.sqrt(case.sigma_w2 / weight[0].numel())
        h = conv2d(act, weight, bias, stride, case.kernel // 2)
        if case.norm is not None:
            mean = h.mean((1, 2, 3), keepdim=True) if case.norm == "layer" else 0.0
            h = (h - mean) / ((h - mean).square().mean((1, 2, 3), keepdim=True) + EPS).sqrt()
        kept.append(h.requires_grad_())
        act = chosen.phi(h)
    seen = act.mean((2, 3)) if case.averaged else act.flatten(1)
    weight = torch.randn(CLASSES, seen.shape[1], generator=stream, dtype=act.dtype)
    logits = seen @ weight.mT * math.sqrt(case.sigma_w2 / seen.shape[1]) + biases(case, CLASSES, stream)
    labels = one_hot(torch.randint(CLASSES, (SAMPLES,), generator=stream), CLASSES)
    # Any δ at the head will do that is alike for all samples, as theory takes it to be.
    top = labels - 1.0 / CLASSES
    deltas = [*torch.autograd.grad(logits, kept, top.double()), top]
    energies = [float(delta.double().square().mean()) for delta in deltas]
    shown = []
    for h, (here, above) in zip(kept, pairwise(energies), strict=True):
        act = chosen.phi(h.detach())
        one = {"q": h.detach().square().mean(), "act_mean": act.mean(), "act_std": act.std(correction=0)}
        if case.activation == "relu":
            one["zero_fraction"] = (act == 0).double().mean()
        shown.append({name: float(value) for name, value in one.items()} | {"grad_ratio": here / above})
    return [*shown, {"q": float(logits.detach().square().mean())}]


def z_scores(case: Case, said: list[LayerPrediction]) -> dict[tuple[int, str], float]:
    """Return, by layer and statistic, (mean over nets − theory)/(standard error + rounding)."""
    found = {}
    for place, (shown, one) in enumerate(zip(measured(case), said, strict=True)):
        for name, values in shown.items():
            if name in one.statistics:
                error = float(values.mean()) - one.statistics[name].value
                sem = float(values.std()) / math.sqrt(NETS)
                found[place, name] = error / (sem + 1e-4 * abs(one.statistics[name].value) + 1e-12)
    return found


MOST_Z = 5.0


@pytest.mark.parametrize("name", CASES)
def test_nets_do_what_theory_says(name: str) -> None:
    found = z_scores(CASES[name], predicted(CASES[name]))
    assert len(found) >= 4 * len(CASES[name].strides)
    assert max(map(abs, found.values())) < MOST_Z, found


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.norm is None])
def test_a_neighbouring_scale_is_told_apart(name: str) -> None:
    case = CASES[name]
    found = z_scores(case, predicted(replace(case, sigma_w2=1.15 * case.sigma_w2)))
    assert max(map(abs, found.values())) > 2 * MOST_Z


NEIGHBOURS = {"relu": "leaky_relu", "tanh": "softsign", "gelu": "silu"}


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.norm is not None])
def test_behind_a_norm_a_neighbouring_activation_is_told_apart(name: str) -> None:
    case = CASES[name]
    found = z_scores(case, predicted(replace(case, activation=NEIGHBOURS[case.activation])))
    assert max(map(abs, found.values())) > 2 * MOST_Z


def test_borders_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def unpadded(layer: MapLayer, maps: Tensor) -> Tensor:
        """Return the sum over each position's receptive field if the padding continued the map."""
        return padded(layer, maps) * layer.kernel**2 / padded(layer, torch.ones_like(maps))

    padded = MapLayer.gathered
    monkeypatch.setattr(MapLayer, "gathered", unpadded)
    found = z_scores(CASES["relu"], predicted(CASES["relu"]))
    assert max(map(abs, found.values())) > 2 * MOST_Z


def relu_layer(fan_in: float, units: int) -> TheoryLayer:
    return TheoryLayer(fan_in, units, units, 2.0, activation=bound("relu").nonlinearity)


@pytest.mark.parametrize(("side", "factor"), [(8, 0.9212), (4, 0.7616), (16, 0.9774)])
def test_what_zero_padding_costs_a_layer(side: int, factor: float) -> None:
    """The largest eigenvalue of the averaging, ((1 + 2cos(π/(H + 1)))/3)² (path graph, in two directions)."""
    assert ((1 + 2 * math.cos(math.pi / (side + 1))) / 3) ** 2 == pytest.approx(factor, abs=5e-5)
    layers = [MapLayer(relu_layer(90, 10), 3) for _ in range(80 if side < 16 else 400)]
    said = propagate_maps(layers, Head(relu_layer(10, 10), averaged=True), energy(side))
    q = [one.statistics["q"].value for one in said[-4:-1]]
    assert q[2] / q[1] == pytest.approx(factor, abs=5e-5)
    # Far from the head, what the gradient loses is the same: the averaging is its own adjoint.
    assert said[2].statistics["grad_ratio"].value == pytest.approx(factor, abs=5e-5)


def energy(side: int) -> Tensor:
    stream = torch.Generator().manual_seed(2)
    return torch.rand(1, side, side, generator=stream, dtype=torch.float64)


@pytest.mark.parametrize(
    ("side", "kernel", "stride"), [(7, 3, 1), (8, 3, 2), (7, 5, 2), (9, 3, 3), (5, 1, 1)]
)
def test_gradients_take_the_adjoint_way(side: int, kernel: int, stride: int) -> None:
    layer, maps = MapLayer(relu_layer(9, 9), kernel, stride), energy(side)
    gathered = layer.gathered(maps)
    above = torch.rand(gathered.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    below = layer.scattered(above, maps.shape)
    assert float((gathered * above).sum()) == pytest.approx(float((maps * below).sum()), rel=1e-12)


def test_maps_of_one_place_are_a_plain_stack() -> None:
    layers = [
        TheoryLayer(100, 80, 80, 1.3, bias_half_width=0.2, activation=bound("gelu").nonlinearity)
        for _ in range(3)
    ]
    head = TheoryLayer(80, 10, 10, 1.0)
    wide = [replace(layer, units=10**9) for layer in layers]
    known = propagate([*wide, head], InputStatistics(0.7, 0.0, 4))
    said = propagate_maps(
        [MapLayer(layer) for layer in layers],
        Head(head),
        torch.full((4, 1, 1), 0.7, dtype=torch.float64),
    )
    for one, other in zip(known, said, strict=True):
        assert not other.trusted and set(other.statistics) == set(one.statistics) - {"log_q"}
        for name, statistic in other.statistics.items():
            # The finite-width terms of the plain stack go as 1/classes at the head.
            if name != "grad_ratio" or one is not known[-2]:
                assert statistic.value == pytest.approx(one.statistics[name].value, rel=1e-5)


def test_nothing_is_predicted_past_what_float32_can_hold() -> None:
    layers = [MapLayer(replace(relu_layer(90, 10), sigma_w2=1e-30), 3) for _ in range(4)]
    said = propagate_maps(layers, Head(relu_layer(10, 10)), energy(4))
    assert [sorted(one.statistics) for one in said] == [
        ["act_mean", "act_std", "q", "zero_fraction"],
        ["act_mean", "act_std", "q", "zero_fraction"],
        [],
        [],
        [],
    ]
