"""Whitening: a linear map that makes features uncorrelated with variance 1.

Legend: N samples, D features, λ eigenvalues of the covariance, U its eigenvectors as columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from initbench.determinism import one_thread

_CHUNK_VALUES = 1 << 22


@dataclass(frozen=True)
class Whitening:
    """x ↦ (x − mean) · matrix, fitted on one set of samples and applied to any."""

    mean: Tensor
    """(D,) float64."""
    matrix: Tensor
    """(D, D) float64."""
    flat: bool
    """Whether a sample becomes (D,); otherwise it keeps its shape."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return x (N, …), on the CPU, whitened as float32: (N, D) if flat, else (N, …)."""
        mapped = torch.empty(x.shape[0], self.matrix.shape[1])
        with one_thread():
            for rows, chunk in zip(_chunks(mapped), _chunks(x.flatten(1)), strict=True):
                rows.copy_((chunk.double() - self.mean) @ self.matrix)
        return mapped if self.flat else mapped.view(x.shape)


def fit_whitening(x: Tensor, kind: Literal["pca", "zca"], eps: float) -> Whitening:
    """Fit the whitening of the samples x (N, …), on the CPU in float64 with one thread.

    With λ̄ the mean eigenvalue, `pca` has the matrix U (Λ + eps·λ̄)^−½, largest eigenvalue first, each
    column of U with its largest entry positive; `zca` has U (Λ + eps·λ̄)^−½ Uᵀ, the whitening that
    changes the samples least (Bell and Sejnowski 1997). Directions in which the samples are constant up to
    rounding become 0 in every set to which the map is applied.
    """
    with one_thread():
        flat = x.flatten(1)
        mean = torch.stack([chunk.double().sum(0) for chunk in _chunks(flat)]).sum(0) / len(flat)
        covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64)
        for chunk in _chunks(flat):
            centred = chunk.double() - mean
            covariance.addmm_(centred.mT, centred)
        values, vectors = torch.linalg.eigh(covariance / len(flat))
        values, vectors = values.flip(0), vectors.flip(1)
        scaled = vectors * _signs(vectors) * _inverse_roots(values, eps)
        matrix = scaled if kind == "pca" else scaled @ (vectors * _signs(vectors)).mT
    return Whitening(mean, matrix, flat=kind == "pca")


def _inverse_roots(values: Tensor, eps: float) -> Tensor:
    """Return (λ + eps·λ̄)^−½ for decreasing eigenvalues (D,), and 0 for those within rounding error of 0."""
    rounding = len(values) * torch.finfo(torch.float64).eps * values[0]
    roots = (values + eps * values.mean()).rsqrt()
    return torch.where(values > rounding, roots, 0.0)


def _signs(vectors: Tensor) -> Tensor:
    """Return the sign of the largest entry of each column, since the sign of an eigenvector is arbitrary."""
    return vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()


def _chunks(x: Tensor) -> tuple[Tensor, ...]:
    """Return x (N, D) in chunks, to avoid a float64 copy of the whole."""
    return torch.split(x, max(1, _CHUNK_VALUES // x.shape[1]))
