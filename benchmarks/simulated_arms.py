"""Simulate arms of runs with known true values, for benchmarks/compare_statistics.py."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtr

from initbench.analysis.stats.summary import Scale

Floats = NDArray[np.float64]
Arm = dict[int, float | None]
CORRELATION = 0.5
"""Correlation of the standard normal numbers that runs with a shared seed are computed from."""


@dataclass(frozen=True)
class Values:
    """A result as a function of a standard normal number, and its mean (geometric on the log scale)."""

    make: Callable[[Floats], Floats]
    mean: float


@dataclass(frozen=True)
class Law:
    """Two arms that differ in mean, spread and shape."""

    name: str
    about: str
    first: Values
    second: Values
    diverging: float = 0.0
    """Probability that a run diverges and has no value, independently of its result."""
    scale: Scale = "linear"

    @property
    def difference(self) -> float:
        """Return the true difference; a ratio on the log scale."""
        a, b = self.first.mean, self.second.mean
        return a / b if self.scale == "log" else a - b


def _normal(mean: float, std: float) -> Values:
    return Values(lambda z: mean + std * z, mean)


def _lognormal(std: float, scale: Scale = "linear") -> Values:
    return Values(lambda z: np.exp(std * z), math.exp(std**2 / 2.0) if scale == "linear" else 1.0)


def _accuracy(right: float, wrong: float) -> Values:
    return Values(lambda z: betaincinv(right, wrong, ndtr(z)), right / (right + wrong))


NORMAL = Law("normal", "N(0, 1) and N(½, 2²)", _normal(0.0, 1.0), _normal(0.5, 2.0))
LAWS = (
    NORMAL,
    Law(
        "normal, runs diverge",
        "the same, and each run diverges with probability 0.2, independent of its value",
        NORMAL.first,
        NORMAL.second,
        diverging=0.2,
    ),
    Law(
        "accuracies near 1",
        "Beta(60, 2) and Beta(20, 2), with means 0.968 and 0.909",
        _accuracy(60.0, 2.0),
        _accuracy(20.0, 2.0),
    ),
    Law("lognormal", "exp N(0, 1) and exp N(0, ½²)", _lognormal(1.0), _lognormal(0.5)),
    Law(
        "lognormal, log scale",
        "the same, geometric means and ratios",
        _lognormal(1.0, "log"),
        _lognormal(0.5, "log"),
        scale="log",
    ),
)


def experiments(
    kinds: list[Values], n: int, replications: int, *, shared: bool, diverging: float, seed: Any
) -> Iterator[list[Arm]]:
    """Draw arms of n seeds, `replications` times for each kind; with `shared`, arms share seeds."""
    stream = np.random.default_rng(seed)
    shape = (replications, len(kinds), n)
    z = stream.normal(size=shape)
    if shared:
        common = stream.normal(size=(replications, 1, n))
        z = math.sqrt(CORRELATION) * common + math.sqrt(1.0 - CORRELATION) * z
    lost = (stream.random(shape) < diverging).tolist()
    made = np.stack([kind.make(z[:, i]) for i, kind in enumerate(kinds)], axis=1).tolist()
    for values, gone in zip(made, lost, strict=True):
        yield [
            {k: None if out else value for k, (value, out) in enumerate(zip(own, missing, strict=True))}
            for own, missing in zip(values, gone, strict=True)
        ]
