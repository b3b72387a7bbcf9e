"""Activations that mix channels (axis 1) and have different numbers of inputs and outputs."""

from __future__ import annotations

from functools import cache

import torch
from pydantic import Field
from torch import Tensor, nn

from initbench.components.activation import ACTIVATIONS, Activation, ActivationMoments
from initbench.registry import Options
from initbench.theory.quadrature import gaussian_expectation


class MaxoutOptions(Options):
    """Options of maxout."""

    pieces: int = Field(default=2, ge=2, le=64)
    """Number k of pre-activations of a unit, whose output is the largest of them: k times the weights."""


class CReLU(nn.Module):
    """Concatenation of relu(x) and relu(−x). (N, C, …) → (N, 2C, …)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation."""
        return torch.cat([torch.relu(x), torch.relu(-x)], dim=1)


class Maxout(nn.Module):
    """Maximum of every k neighbouring channels. (N, k·C, …) → (N, C, …)."""

    def __init__(self, pieces: int) -> None:
        super().__init__()
        self._pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation."""
        return x.reshape(x.shape[0], -1, self._pieces, *x.shape[2:]).amax(2)


@cache
def second_moment_of_the_largest(k: int) -> float:
    """Return E[max(z₁, …, z_k)²] for independent z ~ N(0, 1); the maximum has density k·Φ(z)^(k − 1)·p(z)."""
    return gaussian_expectation(lambda z: k * z.square() * torch.special.ndtr(z) ** (k - 1))


ACTIVATIONS.add(
    Activation(
        name="crelu",
        aliases=("concatenated_relu",),
        summary="relu of x and of −x, concatenated: nothing is lost; the next layer has twice the inputs.",
        formula="φ(x) = (max(0, x), max(0, −x))",
        source="Shang et al. 2016",
        build=lambda _, __: CReLU(),
        rounds_alike=True,
        # Each half has E[φ²] = q/2; of the two slopes of one input exactly one is 1.
        moments=lambda _, q: ActivationMoments(forward=q / 2.0, backward=1.0),
        histogram_range=(0.0, 4.0),
        features_out=lambda width, _: 2 * width,
    )
)
ACTIVATIONS.add(
    Activation(
        name="maxout",
        summary="The largest of k learned linear pieces: any convex function, at k times the weights.",
        formula="φ(x) = max(x₁, …, x_k)",
        source="Goodfellow et al. 2013",
        options=MaxoutOptions,
        build=lambda o, _: Maxout(o.pieces),
        rounds_alike=True,
        # One input in k is the largest, and passes its gradient on unchanged.
        moments=lambda o, q: ActivationMoments(second_moment_of_the_largest(o.pieces) * q, 1.0 / o.pieces),
        features_in=lambda width, o: o.pieces * width,
    )
)
