"""Fixed, stratified cuts of a labelled set."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def stratified_split(labels: Tensor, sizes: Sequence[int], generator: torch.Generator) -> list[Tensor]:
    """Disjoint index sets of the given sizes, each with the class shares of `labels` (N,).

    Every class is shuffled and its members spread evenly over [0, 1]; the cuts are made in that
    order. With k classes, a cut misses the share of a class of n samples by at most
    1/2 + k·n/2N samples. Indices come back sorted. `sizes` must add up to N.
    """
    assert sum(sizes) == len(labels)
    shuffled = torch.randperm(len(labels), generator=generator)
    shuffled_labels = labels[shuffled]
    position = torch.empty(len(labels), dtype=torch.float64)
    for label in torch.unique(labels):
        members = shuffled_labels == label
        count = int(members.sum())
        position[members] = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    # Stable: members of different classes at the same place stay in their shuffled order.
    order = shuffled[position.argsort(stable=True)]
    return [part.sort().values for part in torch.split(order, list(sizes))]
