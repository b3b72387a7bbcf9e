"""Random splits of a set, stratified by class where there are classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def stratified_split(labels: Tensor, sizes: Sequence[int], generator: torch.Generator) -> list[Tensor]:
    """Return disjoint index sets of the given sizes, each with the class shares of `labels` (N,).

    Every class is shuffled and its members are spread evenly over [0, 1]; the set is cut in that order. With
    k classes, the number of samples of a class of n differs from its share by at most 1/2 + k·n/2N per cut.
    Indices are sorted. `sizes` must add up to N.
    """
    assert sum(sizes) == len(labels)
    shuffled = torch.randperm(len(labels), generator=generator)
    shuffled_labels = labels[shuffled]
    position = torch.empty(len(labels), dtype=torch.float64)
    for label in torch.unique(labels):
        members = shuffled_labels == label
        count = int(members.sum())
        position[members] = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    # Stable: members of different classes at the same position keep their shuffled order.
    order = shuffled[position.argsort(stable=True)]
    return [part.sort().values for part in torch.split(order, list(sizes))]


def random_split(samples: int, sizes: Sequence[int], generator: torch.Generator) -> list[Tensor]:
    """Return disjoint index sets of the given sizes, drawn at random from 0 … samples−1 and sorted.

    `sizes` must add up to `samples`.
    """
    assert sum(sizes) == samples
    order = torch.randperm(samples, generator=generator)
    return [part.sort().values for part in torch.split(order, list(sizes))]
