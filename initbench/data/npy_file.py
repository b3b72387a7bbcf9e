"""Reader of arrays in NumPy's format, which is treated as untrusted input."""

from __future__ import annotations

import math
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from initbench.errors import DataError
from initbench.machine import require_memory

_CHUNK_BYTES = 1 << 20
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
"""Header reader by format version; version 3 is only for arrays with named fields."""


def read_npy(path: Path) -> NDArray[Any]:
    """Return the array of a .npy file.

    Raises:
        DataError: If the file cannot be read, or does not contain an array of numbers.
        AllocationError: If there is not enough memory.
    """
    try:
        size = path.stat().st_size
        require_memory(2.0 * size, f"the array {path}", "use a part of the array")
        with path.open("rb") as file:
            return read_array(file, size, str(path))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def read_array(file: IO[bytes], size: int, name: str) -> NDArray[Any]:
    """Return an array; its header is compared with its size before memory is allocated.

    Args:
        file: The open file at its beginning.
        size: Number of bytes of the file.
        name: Name of the array, the beginning of the messages.

    Raises:
        DataError: If it is not in NumPy's format, is damaged, or contains anything but numbers and texts.
    """
    try:
        version = np.lib.format.read_magic(file)
        shape, in_columns, dtype = _HEADERS[version](file)
    except Exception as error:  # NumPy parses the header as Python, which raises a dozen kinds
        raise DataError(f"{name} is not an array in NumPy's format") from error
    if dtype.kind not in "biufcSUmMV" or dtype.hasobject:
        raise DataError(f"{name} contains Python objects; expected numbers")
    needed, remaining = math.prod(shape) * dtype.itemsize, size - file.tell()
    if min(shape, default=0) < 0 or needed != remaining:
        raise DataError(
            f"{name} is damaged: {shape} values of {dtype} take {needed:,} bytes, but it has {remaining:,}"
        )
    content = np.empty(remaining, np.uint8)
    for start in range(0, remaining, _CHUNK_BYTES):
        part = file.read(min(_CHUNK_BYTES, remaining - start))
        content[start : start + _CHUNK_BYTES] = np.frombuffer(part, np.uint8)
    return content.view(dtype).reshape(shape, order="F" if in_columns else "C")
