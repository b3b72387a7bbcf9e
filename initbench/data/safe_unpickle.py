"""Safe reader for pickles of arrays and plain values, the Python 2 format in which CIFAR is published.

A pickle is a program. This reader scans it first and rejects pickles with more operations than an array, a
dict and lists of numbers and text need. The functions that build NumPy arrays are replaced by classes of this
file, so no function of another module is ever called. In addition, callers verify a file's checksum before
they read it.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from initbench.errors import DataError

MAX_BYTES = 512 * 1024 * 1024
MAX_OPERATIONS = 500_000
"""Maximum operations per pickle. A label takes one, a name two; 50,000 images with two labels: 200,000."""
MAX_TUPLES = 1000
"""Maximum tuples per pickle, which also bounds their nesting: hashing a tuple recurses in C."""

_NUMBER = re.compile(r"[<>|=]?[biuf][1248]")
_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")


class _Dtype:
    """Replacement for numpy.dtype: the type code, and the byte order, which the state adds."""

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or not _NUMBER.fullmatch(code):
            raise DataError(f"has an array of {str(code)[:40]!r}, which is not a plain numeric type")
        self.code = code

    def __setstate__(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else ""
        if order not in ("<", ">", "|", "="):
            raise DataError("has an array without a byte order")
        self.code = order + self.code.lstrip("<>|=")


class _Array:
    """Replacement for numpy.ndarray while the pickle is read."""

    values: NDArray[Any]

    def __setstate__(self, state: Any) -> None:
        _version, shape, dtype, in_columns, raw = state
        content = raw.encode("latin1") if isinstance(raw, str) else raw
        if not isinstance(dtype, _Dtype) or not isinstance(content, bytes):
            raise DataError("has an array that is not made of plain numbers")
        flat = np.frombuffer(content, np.dtype(dtype.code))
        self.values = flat.reshape(shape, order="F" if in_columns else "C").copy()


def _reconstruct(*_: object) -> _Array:
    """Return an empty array, whose state follows in the pickle."""
    return _Array()


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy", "dtype"):
            return _Dtype
        if (module, name) == ("numpy", "ndarray"):
            return "ndarray"  # an argument of _reconstruct; a string, so that the pickle cannot call it
        if module in _MODULES and name == "_reconstruct":
            return _reconstruct
        raise DataError(f"refers to {module}.{name}, which arrays do not need")

    def persistent_load(self, pid: Any) -> Any:
        raise DataError(f"refers to the external object {pid!r}")


def unpickle(content: bytes, what: str) -> dict[str, Any]:
    """Return the dict pickled in `content`; Python 2 strings become str (latin-1, which is lossless).

    Args:
        content: The pickle.
        what: Name of the content in error messages.

    Raises:
        DataError: If the pickle is damaged, is not a dict with strings as keys, refers to a class or function
            that arrays do not need, or exceeds the limits of this file.
    """
    try:
        _check_operations(content)
        value = _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
    except DataError as error:
        raise DataError(f"{what} is rejected: its pickle {error}") from None
    except Exception as error:  # a damaged pickle may raise anything at all
        raise DataError(f"{what} cannot be read: {type(error).__name__}: {error}") from error
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise DataError(f"{what} does not contain a dict with strings as keys")
    return {key: item.values if isinstance(item, _Array) else item for key, item in value.items()}


def _check_operations(content: bytes) -> None:
    """Raise DataError if the pickle exceeds a limit; no operation is executed."""
    if len(content) > MAX_BYTES:
        raise DataError(f"has {len(content):,} bytes, more than the limit of {MAX_BYTES:,}")
    tuples = 0
    for count, (operation, argument, _) in enumerate(pickletools.genops(content), 1):
        if count > MAX_OPERATIONS:
            raise DataError(f"has more than {MAX_OPERATIONS:,} operations, the limit")
        if operation.name.endswith("PUT") and int(str(argument)) > MAX_OPERATIONS:
            raise DataError(f"has a memo index of {argument}, more than the limit of {MAX_OPERATIONS:,}")
        tuples += operation.name.startswith("TUPLE")
        if tuples > MAX_TUPLES:
            raise DataError(f"has more than {MAX_TUPLES:,} tuples, the limit")
