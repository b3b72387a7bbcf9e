"""Share a prepared data set with worker processes: they map its memory instead of preparing it again.

The memory belongs to no file (memfd_create(2)) and is freed with its last process. A worker maps it
privately, so that it cannot change what others read.
"""

from __future__ import annotations

import os
import secrets
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from initbench.data.preprocessing import PreparedData

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
                data: PreparedData = _replace_leaves(self.layout, _Position, lambda leaf: leaf.view(memory))
                return data
        return None


class SharedDataOwner:
    """A prepared data set in shared memory, which stays there as long as this object."""

    def __init__(self, data: PreparedData) -> None:
        """Copy the tensors of the data set, which must be on the CPU, to shared memory.

        Raises OSError or RuntimeError if there is no such memory.
        """
        placed: list[tuple[_Position, Tensor]] = []
        size = _TOKEN_BYTES

        def place(tensor: Tensor) -> _Position:
            """Assign the next free position to the tensor."""
            nonlocal size
            position = _Position(size, tensor.dtype, tuple(tensor.shape))
            placed.append((position, tensor))
            size += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
            return position

        layout = _replace_leaves(data, Tensor, place)
        descriptor = os.memfd_create("initbench-data")
        weakref.finalize(self, os.close, descriptor)
        os.ftruncate(descriptor, size)
        path = f"/proc/{os.getpid()}/fd/{descriptor}"
        memory = torch.from_file(path, shared=True, size=size, dtype=torch.uint8)
        token = secrets.token_bytes(_TOKEN_BYTES)
        memory[:_TOKEN_BYTES] = torch.frombuffer(bytearray(token), dtype=torch.uint8)
        for position, tensor in placed:
            position.view(memory).copy_(tensor)
        self.location = SharedData(path, size, token, layout)


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
