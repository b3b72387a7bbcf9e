"""Cache data sets in memory, so that each is prepared once for all experiments and workers that use it."""

from __future__ import annotations

from collections.abc import Callable

import torch

from initbench.data.dataset import DataOptions
from initbench.data.locate import ResolvedDataset
from initbench.data.preprocessing import PreparedData, preprocess
from initbench.runner.shared_data import DataLocation, DataOwner, SharedDataOwner, to_device

MAX_BYTES = 1e9
"""Maximum size of the cache, unless a single data set is larger. MNIST takes 0.2e9."""


class DatasetCache:
    """A cache of prepared data sets; the least recently used are dropped if it gets too large."""

    def __init__(self, most_bytes: float = MAX_BYTES) -> None:
        self._most = most_bytes
        self._kept: dict[str, PreparedData] = {}
        self._shared: dict[str, DataOwner] = {}

    def of(
        self,
        resolved: ResolvedDataset,
        options: DataOptions,
        device: torch.device,
        shared: DataLocation | None = None,
    ) -> PreparedData:
        """Return the data set prepared with these options; raise DataError as `preprocess` does.

        `shared`: where another process has it already.
        """
        key = _key(resolved, options, device)
        bundle = self._kept.pop(key, None)
        if bundle is None and shared is not None:
            bundle = shared.open()
            if bundle is not None and device.type != "cpu":
                bundle = to_device(bundle, device)
        if bundle is None:
            bundle = preprocess(resolved, options, device)
        self._kept[key] = bundle
        while len(self._kept) > 1 and sum(map(tensor_bytes, self._kept.values())) > self._most:
            dropped = next(iter(self._kept))
            del self._kept[dropped]
            self._shared.pop(dropped, None)
        return bundle

    def share(
        self,
        resolved: ResolvedDataset,
        options: DataOptions,
        create_owner: Callable[[PreparedData], DataOwner] = SharedDataOwner,
    ) -> DataLocation | None:
        """Return where other processes find the data set on the CPU; None if memory cannot be shared.

        From then on, this process uses the data of the owner, too. The owner is dropped with the data set.
        """
        device = torch.device("cpu")
        key, data = _key(resolved, options, device), self.of(resolved, options, device)
        if key not in self._shared:
            try:
                owner = create_owner(data)
            except (OSError, RuntimeError):  # a system without /proc, or too little memory
                return None
            self._shared[key] = owner
            self._kept[key] = owner.data
        return self._shared[key].location


def _key(resolved: ResolvedDataset, options: DataOptions, device: torch.device) -> str:
    located = resolved.located
    return repr((located.name, located.fingerprint, resolved.requested, options, device))


def tensor_bytes(data: PreparedData) -> float:
    """Return the size of the tensors of a data set, in bytes."""
    splits = [tensor for split in (data.train, data.val, data.test) for tensor in (split.x, split.y)]
    tensors = splits if data.unlabelled is None else [*splits, data.unlabelled]
    return float(sum(tensor.numel() * tensor.element_size() for tensor in tensors))
