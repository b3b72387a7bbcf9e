"""Data sets of a test's own making, prepared as a run would have them."""

from __future__ import annotations

import torch

from initbench.data.dataset import DataOptions, LocatedDataset, RawData
from initbench.data.locate import ResolvedDataset
from initbench.data.preprocessing import PreparedData, preprocess


def bundle(raw: RawData, **options: object) -> PreparedData:
    """Return `raw` after preprocessing; `options` are as in a config."""
    located = LocatedDataset(name="own", fingerprint="f", load=lambda: raw)
    chosen = DataOptions.model_validate(options)
    return preprocess(ResolvedDataset(requested="asked", located=located), chosen, "cpu")


def raw_of(x: torch.Tensor, y: torch.Tensor, held_out: int) -> RawData:
    """A set whose validation and test samples are the last ones of x (N, …)."""
    first, second = len(x) - 2 * held_out, len(x) - held_out
    return RawData(
        x_train=x[:first],
        y_train=y[:first],
        x_val=x[first:second],
        y_val=y[first:second],
        x_test=x[second:],
        y_test=y[second:],
        classes=int(y.max()) + 1,
    )
