"""Batches of training samples for each run of a cohort.

Legend: K runs, B batch size, N samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from initbench.data.sampling_order import SHUFFLED, Order
from initbench.errors import UsageError
from initbench.rng import stream_generator


def check_batch_size(samples: int, batch_size: int) -> None:
    """Raise UsageError unless a batch can be filled from `samples`."""
    if not 1 <= batch_size <= samples:
        raise UsageError(
            f"train.batch_size must be from 1 to the number of training samples, {samples:,};"
            f" found {batch_size:,}"
        )


def first_batch(x: Tensor, batch_size: int, seed: int, order: Order = SHUFFLED) -> Tensor:
    """Return the samples of x (N, …) in a run's first update, before augmentation: (B, …)."""
    return x[Batches(len(x), batch_size, [seed], x.device, order=order).indices(0)[0]]


class Batches:
    """Batches as indices into the training split, from one permutation per seed and epoch.

    The order depends only on the seed and the epoch, not on other runs of the cohort, and every step can be
    computed directly, so a resumed run continues where it stopped. Samples at the end of an epoch that do not
    fill a batch are dropped: every batch has B samples. `stream` is the name of the random stream.
    """

    def __init__(
        self,
        samples: int,
        batch_size: int,
        seeds: Sequence[int],
        device: torch.device | str = "cpu",
        stream: Sequence[str | int] = ("order",),
        *,
        order: Order = SHUFFLED,
    ) -> None:
        check_batch_size(samples, batch_size)
        self._stream = tuple(stream)
        self.samples = samples
        self.batch_size = batch_size
        self.seeds = list(seeds)
        self.device = torch.device(device)
        self.order = order
        self._epoch = -1
        self._orders = torch.empty(0)

    @property
    def per_epoch(self) -> int:
        """Number of batches in one epoch: ⌊N / B⌋."""
        return self.samples // self.batch_size

    def indices(self, step: int) -> Tensor:
        """Return the sample indices of step `step` (from 0), one row per run: (K, B) int64."""
        epoch, batch = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._orders = epoch, self._permutations(epoch)
        start = batch * self.batch_size
        return self._orders[:, start : start + self.batch_size]

    def keep(self, alive: Sequence[int]) -> None:
        """Keep only the rows `alive` (indices of current rows), in that order."""
        self.seeds = [self.seeds[row] for row in alive]
        if self._epoch >= 0:
            self._orders = self._orders[list(alive)]

    def _permutations(self, epoch: int) -> Tensor:
        """Return each run's order of the samples in `epoch`: (K, N). Runs with the same seed share it."""
        drawn = {
            seed: self.order.permutation(self.samples, stream_generator(seed, *self._stream, epoch))
            for seed in dict.fromkeys(self.seeds)
        }
        rows = [drawn[seed] for seed in self.seeds]
        orders = torch.stack(rows) if rows else torch.empty((0, self.samples), dtype=torch.int64)
        return orders.to(self.device)
