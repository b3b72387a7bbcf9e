"""Order of the training samples within an epoch.

Legend: N samples, k samples in a block.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

ORDER_PATTERN = r"^(shuffled|sorted|blocks\([1-9][0-9]{0,9}\))$"


@dataclass(frozen=True)
class Order:
    """A permutation of the samples for each random stream.

    Without `labels` every permutation is equally likely. With labels, the samples are shuffled, sorted by
    class and cut into blocks of `block` samples, of which the last may be shorter, and the blocks are
    shuffled. A single block gives the sorted order; blocks of one sample give a plain shuffle.
    """

    labels: Tensor | None = None
    """Labels (N,) on the CPU, or None not to sort."""
    block: int | None = None
    """Block size k, or None for one block of all samples."""

    def permutation(self, samples: int, stream: torch.Generator) -> Tensor:
        """Return the numbers 0 … samples−1 in the order of one epoch: (N,) int64."""
        shuffled = torch.randperm(samples, generator=stream)
        if self.labels is None:
            return shuffled
        by_class = shuffled[self.labels[shuffled].argsort(stable=True)]
        if self.block is None or self.block >= samples:
            return by_class
        block = torch.arange(samples) // self.block
        turn = torch.randperm(int(block[-1]) + 1, generator=stream)
        return by_class[turn[block].argsort(stable=True)]


SHUFFLED = Order()


def order_of(name: str, labels: Tensor) -> Order:
    """Return the Order for a value of `data.order` (`shuffled`, `sorted` or `blocks(k)`) and labels (N,)."""
    if name == "shuffled":
        return SHUFFLED
    size = re.search(r"\d+", name)
    return Order(labels.cpu(), None if size is None else int(size.group()))
