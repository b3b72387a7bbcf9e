"""Cache data sets in memory, so that each is prepared once for all experiments that use it."""

from __future__ import annotations

import torch

from initbench.data.dataset import DataOptions
from initbench.data.locate import ResolvedDataset
from initbench.data.preprocessing import PreparedData, preprocess

MAX_BYTES = 1e9
"""Maximum size of the cache, unless a single data set is larger. MNIST takes 0.2e9."""


class DatasetCache:
    """A cache of prepared data sets; the least recently used are dropped if it gets too large."""

    def __init__(self, most_bytes: float = MAX_BYTES) -> None:
        self._most = most_bytes
        self._kept: dict[str, PreparedData] = {}

    def of(self, resolved: ResolvedDataset, options: DataOptions, device: torch.device) -> PreparedData:
        """Return the data set prepared with these options; raise DataError as `preprocess` does."""
        key = repr((resolved.located.name, resolved.located.fingerprint, resolved.requested, options, device))
        bundle = self._kept.pop(key, None)
        if bundle is None:
            bundle = preprocess(resolved, options, device)
        self._kept[key] = bundle
        while len(self._kept) > 1 and sum(map(tensor_bytes, self._kept.values())) > self._most:
            del self._kept[next(iter(self._kept))]
        return bundle


def tensor_bytes(data: PreparedData) -> float:
    """Return the size of the tensors of a data set, in bytes."""
    splits = [tensor for split in (data.train, data.val, data.test) for tensor in (split.x, split.y)]
    tensors = splits if data.unlabelled is None else [*splits, data.unlabelled]
    return float(sum(tensor.numel() * tensor.element_size() for tensor in tensors))
