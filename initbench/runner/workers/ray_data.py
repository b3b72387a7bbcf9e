"""Keep prepared data sets in the object store of Ray: each node holds one copy for all of its actors."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, field
from typing import Any

import torch

from initbench.data.preprocessing import PreparedData
from initbench.errors import DataError
from initbench.machine import format_gb
from initbench.runner.shared_data import DataLocation, memory_layout, read_layout
from initbench.runner.workers.ray_connection import import_ray


@dataclass(frozen=True)
class ObjectStoreData:
    """Location of a prepared data set in the object store."""

    reference: Any
    """Reference to the bytes of the tensors."""
    sha256: str
    """Hash of these bytes."""
    layout: PreparedData = field(repr=False)
    """The data set, with positions in the memory instead of tensors."""

    def open(self) -> PreparedData:
        """Return the data set in the memory of this node, which fetches it if necessary.

        All actors of the node read the same memory. Trainings only take samples out of it by index.

        Raises:
            DataError: If the bytes are not those that the driver sent.
        """
        memory = import_ray().get(self.reference)
        if hashlib.sha256(memory.data).hexdigest() != self.sha256:
            raise DataError(
                "the data set in Ray's object store is damaged: its hash is not that of the driver"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the memory is read-only
            return read_layout(self.layout, torch.from_numpy(memory))


class ObjectStoreOwner:
    """A prepared data set in the object store, which stays there as long as this object."""

    def __init__(self, data: PreparedData) -> None:
        """Copy the tensors of the data set, which must be on the CPU, to the object store.

        Raises:
            DataError: If they do not fit.
        """
        ray = import_ray()
        layout = memory_layout(data)
        memory = torch.zeros(layout.size, dtype=torch.uint8)
        layout.fill(memory)
        digest = hashlib.sha256(memory.numpy().data).hexdigest()
        try:
            reference = ray.put(memory.numpy())
        except ray.exceptions.RayError as error:
            raise DataError(
                f"the data set {data.name} ({format_gb(layout.size)}) does not fit into Ray's object store"
            ) from error
        self.location: DataLocation = ObjectStoreData(reference, digest, layout.data)
        self.data = data
