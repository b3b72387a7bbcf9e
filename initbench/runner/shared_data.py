"""Share a prepared data set with worker processes: they map its memory instead of preparing it again.

On one machine, the memory belongs to no file (memfd_create(2)) and is freed with its last process. A worker
maps it privately, so that it cannot change what others read.
"""

from __future__ import annotations

import os
import secrets
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from initbench.data.preprocessing import PreparedData, Split

_ALIGNMENT = 64
"""Alignment of a tensor in bytes, as torch aligns its own memory."""
_TOKEN_BYTES = _ALIGNMENT


@dataclass(frozen=True)
class _Position:
    """Position of a tensor in a memory of bytes."""

    offset: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    def view(self, memory: Tensor) -> Tensor:
        """Return the tensor at this position of the memory."""
        size = self.dtype.itemsize * torch.Size(self.shape).numel()
        return memory[self.offset : self.offset + size].view(self.dtype).view(self.shape)


class DataLocation(Protocol):
    """Location of a prepared data set outside of the memory of a process; it can be pickled."""

    def open(self) -> PreparedData | None:
        """Return the data set on the CPU, or None if it is not available from this process."""


class DataOwner(Protocol):
    """Keeps a prepared data set where other processes can open it, as long as the owner exists."""

    location: DataLocation
    data: PreparedData
    """The data set for the use of this process."""


@dataclass(frozen=True)
class MemoryLayout:
    """Positions of the tensors of a data set in one memory of bytes."""

    data: PreparedData
    """The data set, with positions in the memory instead of tensors."""
    size: int
    """Number of bytes."""
    tensors: tuple[tuple[_Position, Tensor], ...]
    """The tensors to copy to their positions."""

    def fill(self, memory: Tensor) -> None:
        """Copy the tensors into the memory, bytes of this size."""
        for position, tensor in self.tensors:
            position.view(memory).copy_(tensor)


def memory_layout(data: PreparedData, offset: int = 0) -> MemoryLayout:
    """Return positions for the tensors of a data set on the CPU, the first of them at `offset`."""
    tensors: list[tuple[_Position, Tensor]] = []
    size = offset

    def assign(tensor: Tensor) -> _Position:
        """Assign the next free position to the tensor."""
        nonlocal size
        position = _Position(size, tensor.dtype, tuple(tensor.shape))
        tensors.append((position, tensor))
        size += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
        return position

    return MemoryLayout(_replace_leaves(data, Tensor, assign), size, tuple(tensors))


def read_layout(positions: PreparedData, memory: Tensor) -> PreparedData:
    """Return the data set of a layout, with views of the memory as tensors."""
    data: PreparedData = _replace_leaves(positions, _Position, lambda position: position.view(memory))
    return data


def to_device(data: PreparedData, device: torch.device) -> PreparedData:
    """Return the data set with its samples on the device."""
    train, val, test = (
        Split(x=split.x.to(device), y=split.y.to(device)) for split in (data.train, data.val, data.test)
    )
    unlabelled = None if data.unlabelled is None else data.unlabelled.to(device)
    return replace(data, train=train, val=val, test=test, unlabelled=unlabelled)


@dataclass(frozen=True)
class SharedData:
    """Location of a prepared data set in the memory of a live process; it can be pickled."""

    path: str
    """Path of the memory under /proc."""
    size: int
    """Number of bytes."""
    token: bytes
    """Random first bytes of the memory, which tell it from later memory at the same path."""
    layout: PreparedData = field(repr=False)
    """The data set, with positions in the memory instead of tensors."""

    def open(self) -> PreparedData | None:
        """Map the data set, or return None if it is no longer there or cannot be opened."""
        with suppress(OSError, RuntimeError):
            memory = torch.from_file(self.path, shared=False, size=self.size, dtype=torch.uint8)
            if memory[:_TOKEN_BYTES].numpy().tobytes() == self.token:
                return read_layout(self.layout, memory)
        return None


class SharedDataOwner:
    """A prepared data set in shared memory, which stays there as long as this object."""

    def __init__(self, data: PreparedData) -> None:
        """Copy the tensors of the data set, which must be on the CPU, to shared memory.

        Raises OSError or RuntimeError if there is no such memory.
        """
        if not can_share():
            raise OSError("this system has no anonymous memory that other processes can map")
        layout = memory_layout(data, _TOKEN_BYTES)
        descriptor = os.memfd_create("initbench-data")
        weakref.finalize(self, os.close, descriptor)
        os.ftruncate(descriptor, layout.size)
        path = f"/proc/{os.getpid()}/fd/{descriptor}"
        memory = torch.from_file(path, shared=True, size=layout.size, dtype=torch.uint8)
        token = secrets.token_bytes(_TOKEN_BYTES)
        memory[:_TOKEN_BYTES] = torch.frombuffer(bytearray(token), dtype=torch.uint8)
        layout.fill(memory)
        self.location: DataLocation = SharedData(path, layout.size, token, layout.data)
        self.data = self.location.open() or data


def can_share() -> bool:
    """Return whether this system has anonymous memory that other processes can map."""
    return hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir()


def _replace_leaves(value: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """Return a copy of a tree of dataclasses in which `change` has replaced every value of this type."""
    if isinstance(value, kind):
        return change(value)
    if not is_dataclass(value) or isinstance(value, type):
        return value
    parts = {each.name: getattr(value, each.name) for each in fields(value) if each.init}
    return replace(value, **{name: _replace_leaves(part, kind, change) for name, part in parts.items()})
