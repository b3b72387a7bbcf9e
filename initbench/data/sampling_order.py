"""In which order an epoch goes through the training samples.

Legend: N samples, k samples of a block.
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

    Without `labels` every permutation is equally likely. With them, the samples are shuffled, sorted by
    class, cut into blocks of `block` samples, of which the last may be shorter, and the blocks are
    shuffled. One block is the sorted order; blocks of one sample are a plain shuffle again.
    """

    labels: Tensor | None = None
    """(N,), on the CPU; None: nothing is sorted."""
    block: int | None = None
    """k; None: one block of all samples."""

    def permutation(self, samples: int, stream: torch.Generator) -> Tensor:
        """The numbers 0 … samples−1 in the order of one epoch: (N,) int64."""
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
    """What `data.order` chooses (`shuffled`, `sorted` or `blocks(k)`) for samples with `labels` (N,)."""
    if name == "shuffled":
        return SHUFFLED
    size = re.search(r"\d+", name)
    return Order(labels.cpu(), None if size is None else int(size.group()))
