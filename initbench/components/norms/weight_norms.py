"""Norms of the weights: the layer's weight is computed from the trained parameters.

Each is a parametrization of the layer's `weight`, with a right inverse, so that assigning a weight (as an
init does) sets the underlying parameters.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import parametrize

from initbench.components.norm import NORMS, Norm, ShapeIssue
from initbench.components.norms.affine import EpsOptions
from initbench.components.parametrized_weight import weight_of

TINY = 1e-30
"""Lower limit of a row's sum of squares in a denominator: a row of zeros stays 0."""
FIRST_ITERATIONS = 15


class StandardizationOptions(EpsOptions):
    """Options of weight standardization."""

    eps: float = Field(default=1e-5, gt=0.0)
    """Constant added to the variance of a row before the square root."""


class ScaledOptions(EpsOptions):
    """Options of scaled weight standardization."""

    eps: float = Field(default=1e-4, gt=0.0)
    """Lower limit of fan_in · variance of a row in the denominator."""
    affine: bool = True
    """Learn a scale for each output unit."""
    gain: float = Field(default=1.0, gt=0.0)
    """Factor γ for the activation, 1/√Var[φ(z)]: 1.7139588594436646 for relu."""


class SpectralOptions(EpsOptions):
    """Options of spectral norm."""

    eps: float = Field(default=1e-12, gt=0.0)
    """Lower limit of the norm in the denominator."""
    iterations: int = Field(default=1, ge=1, le=1000)
    """Power iterations in each training step."""


def _per_row(values: Tensor, weight: Tensor) -> Tensor:
    return values.view(-1, *[1] * (weight.ndim - 1))


def _row_squares(weight: Tensor) -> Tensor:
    return weight.flatten(1).square().sum(1)


class WeightNorm(nn.Module):
    """Parametrization (g, v) → g·v/‖v‖, row by row. g: (out,), v: (out, in, …)."""

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        """Return the weight."""
        return v * _per_row(g * torch.rsqrt(_row_squares(v).clamp(min=TINY)), v)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return g = ‖W‖ and v = W."""
        return _row_squares(weight).sqrt(), weight


class Standardized(nn.Module):
    """Parametrization W → (W − μ)/√(σ² + ε), row by row. W: (out, in, …)."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self._eps = eps

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight."""
        rows = weight.flatten(1)
        centred = rows - rows.mean(1, keepdim=True)
        scale = torch.rsqrt(centred.square().mean(1, keepdim=True) + self._eps)
        return (centred * scale).view(weight.shape)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return W unchanged."""
        return weight


class ScaledStandardized(nn.Module):
    """Parametrization W → γ·g·(W − μ)/(σ√fan_in), row by row. W: (out, in, …)."""

    def __init__(self, weight: Tensor, options: ScaledOptions) -> None:
        super().__init__()
        self._eps, self._gain = options.eps, options.gain
        self.scale = nn.Parameter(weight.new_ones(len(weight))) if options.affine else None

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight."""
        rows = weight.flatten(1)
        centred = rows - rows.mean(1, keepdim=True)
        factor = self._gain * torch.rsqrt(_row_squares(centred).clamp(min=self._eps))
        if self.scale is not None:
            factor = factor * self.scale
        return (centred * factor.view(-1, 1)).view(weight.shape)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return W unchanged."""
        return weight


class Spectral(nn.Module):
    """Parametrization W → W/σ, σ = uᵀWv being the largest singular value. W: (out, in, …).

    torch's spectral norm has no batching rule. u and v are updated by power iterations in training mode only.
    Products are plain sums, whose order does not depend on the number of stacked runs.
    """

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor, options: SpectralOptions) -> None:
        super().__init__()
        self._eps, self._iterations = options.eps, options.iterations
        rows = weight.detach().flatten(1)
        self.register_buffer("u", rows.new_zeros(rows.shape[0]))
        self.register_buffer("v", rows.new_zeros(rows.shape[1]))
        self.right_inverse(weight)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight; u and v are constants in the backward pass."""
        rows = weight.flatten(1)
        u, v = self._follow(rows.detach(), self._iterations) if self.training else (self.u, self.v)
        sigma = ((rows * v).sum(1) * u).sum()
        return weight / sigma.clamp(min=self._eps)

    @torch.no_grad()
    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return W unchanged; u and v are reset to values that depend on W only."""
        start = torch.randn(len(self.v), generator=torch.Generator().manual_seed(0), dtype=weight.dtype)
        self.v.copy_(self._unit(start))
        self._follow(weight.flatten(1), FIRST_ITERATIONS)
        return weight

    @torch.no_grad()
    def _follow(self, rows: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
        u, v = self.u, self.v
        for _ in range(iterations):
            u = self._unit((rows * v).sum(1))
            v = self._unit((rows * u.view(-1, 1)).sum(0))
        self.u.copy_(u)
        self.v.copy_(v)
        return u, v

    def _unit(self, x: Tensor) -> Tensor:
        return x / x.square().sum().sqrt().clamp(min=self._eps)


def _parametrized(layer: nn.Module, parametrization: nn.Module) -> nn.Module:
    return parametrize.register_parametrization(layer, "weight", parametrization)


def _spectral(layer: nn.Module, options: SpectralOptions) -> nn.Module:
    return _parametrized(layer, Spectral(weight_of(layer), options))


def _scaled(layer: nn.Module, options: ScaledOptions) -> nn.Module:
    return _parametrized(layer, ScaledStandardized(weight_of(layer), options))


def _row_problem(shape: tuple[int, ...], _options: EpsOptions) -> ShapeIssue | None:
    """Return an issue if a unit has a single weight, as in a fully connected net of width 1."""
    if shape != (1,):
        return None
    return "", "weight standardization makes 0 of a unit's single weight, whatever it is"


NORMS.add(
    Norm(
        name="weight",
        aliases=("weight_norm", "weight_normalization", "weight_normalisation"),
        summary="Trains length and direction of each unit's weight separately; starts at the init.",
        formula="W = g·V/‖V‖",
        source="Salimans & Kingma 2016",
        acts_on="weights",
        axes=("I", "H", "W"),
        wrap=lambda layer, _options: _parametrized(layer, WeightNorm()),
    )
)
NORMS.add(
    Norm(
        name="weight_standardization",
        aliases=("weight_standardisation", "ws"),
        summary="Standardises each unit's weight to variance 1: use it with group norm; alone it explodes.",
        formula="Ŵ = (W − μ)/√(σ² + ε)",
        source="Qiao et al. 2019",
        options=StandardizationOptions,
        acts_on="weights",
        axes=("I", "H", "W"),
        wrap=lambda layer, o: _parametrized(layer, Standardized(o.eps)),
        problem=_row_problem,
        scale_free=True,
    )
)
NORMS.add(
    Norm(
        name="scaled_ws",
        aliases=("scaled_weight_standardization", "scaled_weight_standardisation"),
        summary="Standardises each unit's weight to variance 1/fan_in: for nets without norm layers.",
        formula="Ŵ = γ·g·(W − μ)/(σ·√n)",
        source="Brock et al. 2021",
        options=ScaledOptions,
        acts_on="weights",
        axes=("I", "H", "W"),
        wrap=_scaled,
        problem=_row_problem,
        scale_free=True,
    )
)
NORMS.add(
    Norm(
        name="spectral",
        aliases=("spectral_norm", "spectral_normalization", "spectral_normalisation"),
        summary="Divides the weight by its largest singular value: no layer amplifies, but signals shrink.",
        formula="Ŵ = W/σ_max(W)",
        source="Miyato et al. 2018",
        options=SpectralOptions,
        acts_on="weights",
        axes=("O", "I", "H", "W"),
        wrap=_spectral,
        scale_free=True,
    )
)
