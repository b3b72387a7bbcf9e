"""Coverage of the bands: how often the mean over a few nets of a random config lies inside."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable

import pytest
import torch
from torch.nn.functional import normalize

from initbench.components.activation import bound
from initbench.theory import bands
from initbench.theory.bands import PredictedStatistic
from initbench.theory.propagation import propagate
from initbench.theory.types import InputStatistics, TheoryLayer

CONFIGS, GROUPS, NETS, SAMPLES = 100, 24, 4, 24
"""Random configs; for each, so large a sample of means over `NETS` nets."""
ACTIVATIONS = ("relu", "tanh", "gelu", "sigmoid", "elu", "selu", "silu", "softplus", "leaky_relu", "linear")
TWO_SIDED_95 = 1.959964
BIAS_OF_THEORY = 0.002
"""What the leading order in 1/width, and a Gaussian for what is nearly one, may cost."""
Band = Callable[[PredictedStatistic, int], tuple[float, float]]
Sample = tuple[PredictedStatistic, torch.Tensor]


def random_config(stream: torch.Generator) -> tuple[list[TheoryLayer], str]:
    """A stack of 2 to 8 layers: activation, width, σ_w² and the variance of a Gaussian bias are random."""

    def pick(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=stream))

    name = ACTIVATIONS[int(pick(0, len(ACTIVATIONS)))]
    depth, width = int(pick(2, 9)), int(pick(64, 257))
    bias = pick(0.0, 0.3) if pick(0, 1) < 0.5 else 0.0
    layer = TheoryLayer(
        width, width, width, pick(0.5, 3.0), bias_variance=bias, activation=bound(name).nonlinearity
    )
    return [layer] * depth, name


def source_of(x: torch.Tensor) -> InputStatistics:
    unit, squares = normalize(x, dim=1), x.square().mean(1)
    cosines = (unit @ unit.mT)[~torch.eye(len(x), dtype=torch.bool)]
    spread = float(squares.var(correction=0) / squares.mean() ** 2)
    return InputStatistics(
        float(squares.mean()), float(cosines.mean()), len(x), spread, float(cosines.var(correction=0))
    )


def samples_of_config(stream: torch.Generator) -> dict[str, Sample]:
    """Return for each statistic the prediction for one random layer and the means (GROUPS,) of nets."""
    layers, name = random_config(stream)
    width, activation = layers[0].units, bound(name)
    h = x = torch.randn(SAMPLES, width, generator=stream, dtype=torch.float64)
    predicted = propagate([*layers, layers[-1]], source_of(x))
    trusted = sum(one.trusted for one in predicted[: len(layers)])
    if not trusted:
        return {}
    place = int(torch.randint(trusted, (), generator=stream))
    for index in range(place + 1):
        weight = torch.randn(GROUPS * NETS, width, width, generator=stream, dtype=torch.float64)
        bias = torch.randn(GROUPS * NETS, 1, width, generator=stream, dtype=torch.float64)
        h = (activation.phi(h) if index else h) @ weight * math.sqrt(layers[0].sigma_w2 / width)
        h = h + math.sqrt(layers[0].bias_variance) * bias
    act = activation.phi(h)
    shown = {
        "q": h.square().mean((1, 2)),
        "act_mean": act.mean((1, 2)),
        "act_std": act.flatten(1).std(1, correction=0),
    }
    said = predicted[place].statistics
    return {key: (said[key], values.view(GROUPS, NETS).mean(1)) for key, values in shown.items()}


def coverage(samples: list[Sample], band: Band) -> tuple[float, float]:
    """The share of means inside their bands, and its standard error over configs."""
    shares = []
    for statistic, means in samples:
        low, high = band(statistic, NETS)
        shares.append(((means >= low) & (means <= high)).double().mean())
    each = torch.stack(shares)
    return float(each.mean()), float(each.std() / math.sqrt(len(each)))


@pytest.mark.slow
def test_coverage_of_the_bands_over_100_random_configs(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, samples = torch.Generator().manual_seed(11), defaultdict(list)
    for _ in range(CONFIGS):
        for name, sample in samples_of_config(stream).items():
            samples[name].append(sample)
    for name, of_name in samples.items():
        band = bands.q_band if name == "q" else bands.gaussian_band
        assert len(of_name) > CONFIGS * 0.8
        for sigmas, wanted in ((bands.BAND_SIGMAS, 0.9973), (TWO_SIDED_95, 0.95)):
            monkeypatch.setattr(bands, "BAND_SIGMAS", sigmas)
            share, error = coverage(of_name, band)
            print(f"{name}: {sigmas:.2f} sigmas hold {share:.4f} ± {error:.4f}, expected {wanted}")
            tolerance = 3 * error + BIAS_OF_THEORY
            assert abs(share - wanted) < tolerance, name
        monkeypatch.setattr(bands, "BAND_SIGMAS", 0.7 * TWO_SIDED_95)
        assert coverage(of_name, band)[0] < wanted - tolerance, "a band narrower by 30 % is noticed"
        monkeypatch.undo()
