"""Reader of idx files, the format of MNIST, packed with gzip or not."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from initbench.errors import DataError

_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
"""NumPy's name of each type number of the format."""
_MAX_AXES = 4


def read_idx(path: Path, max_bytes: int) -> NDArray[Any]:
    """Return the values of an idx file: two zeros, a type, the number of axes, the sizes, the values.

    Args:
        path: The file; it is unpacked if its name ends in `.gz`.
        max_bytes: Maximum number of bytes of the unpacked file.

    Raises:
        DataError: If the file cannot be read, is larger, or is not an idx file.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as packed:
            content = packed.read(max_bytes + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be unpacked: {str(error).lower()}") from error
    if len(content) > max_bytes:
        raise DataError(f"{path} unpacks to more than {max_bytes:,} bytes, the limit")
    type_number, axes = content[2:4] if len(content) > 4 and content[:2] == b"\0\0" else (0, 0)
    start = 4 + 4 * axes
    if type_number not in _TYPES or not 1 <= axes <= _MAX_AXES or len(content) <= start:
        raise DataError(f"{path} is not an idx file")
    dtype, shape = np.dtype(_TYPES[type_number]), struct.unpack(f">{axes}I", content[4:start])
    if len(content) != start + math.prod(shape) * dtype.itemsize:
        raise DataError(f"{path} is not an idx file: {shape} values do not fill its {len(content):,} bytes")
    return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))
