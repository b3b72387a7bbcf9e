"""Arrays and plain values out of a pickle from Python 2, the format that CIFAR is published in.

A pickle is a program. This reader scans it first, and refuses one with more steps than an array, a dict and
lists of numbers and text need. What builds NumPy's arrays is replaced by classes of this file, so that no
function of another module is ever called. Even so, callers verify a file's checksum before they read it.
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
"""Steps of one pickle. A label takes one and a name two: 50,000 images with two labels each take 200,000."""
MAX_TUPLES = 1000
"""Tuples of one pickle, which bounds how deep they nest: hashing one recurses in C."""

_NUMBER = re.compile(r"[<>|=]?[biuf][1248]")
_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")


class _Dtype:
    """Stands for numpy.dtype: the type code, and the byte order that the state adds."""

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or not _NUMBER.fullmatch(code):
            raise DataError(f"has an array of {str(code)[:40]!r}, which are no plain numbers")
        self.code = code

    def __setstate__(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else ""
        if order not in ("<", ">", "|", "="):
            raise DataError("has an array whose numbers have no byte order")
        self.code = order + self.code.lstrip("<>|=")


class _Array:
    """Stands for numpy.ndarray while the pickle is read."""

    values: NDArray[Any]

    def __setstate__(self, state: Any) -> None:
        _version, shape, dtype, in_columns, raw = state
        content = raw.encode("latin1") if isinstance(raw, str) else raw
        if not isinstance(dtype, _Dtype) or not isinstance(content, bytes):
            raise DataError("has an array that is not made of plain numbers")
        flat = np.frombuffer(content, np.dtype(dtype.code))
        self.values = flat.reshape(shape, order="F" if in_columns else "C").copy()


def _reconstruct(*_: object) -> _Array:
    """Make an array that is still empty: its state follows in the pickle."""
    return _Array()


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy", "dtype"):
            return _Dtype
        if (module, name) == ("numpy", "ndarray"):
            return "ndarray"  # an argument of _reconstruct, which can be called by nobody
        if module in _MODULES and name == "_reconstruct":
            return _reconstruct
        raise DataError(f"names {module}.{name}, which no array needs")

    def persistent_load(self, pid: Any) -> Any:
        raise DataError(f"refers to the outside object {pid!r}")


def unpickle(content: bytes, what: str) -> dict[str, Any]:
    """The dict pickled in `content`; text of Python 2 becomes str (latin-1, which loses no byte).

    `what` names the content in messages. Raises DataError when it is damaged, is no dict with text
    for keys, mentions any class or function beyond those of an array, or takes more steps than a file of
    CIFAR can.
    """
    try:
        _check_operations(content)
        value = _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
    except DataError as error:
        raise DataError(f"{what} is refused: its pickle {error}") from None
    except Exception as error:  # a damaged pickle may raise anything at all
        raise DataError(f"{what} cannot be read: {type(error).__name__}: {error}") from error
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise DataError(f"{what} does not hold a dict with text for keys")
    return {key: item.values if isinstance(item, _Array) else item for key, item in value.items()}


def _check_operations(content: bytes) -> None:
    """Refuse a pickle by its operations alone, before any of them is carried out."""
    if len(content) > MAX_BYTES:
        raise DataError(f"has {len(content):,} bytes, more than the limit of {MAX_BYTES:,}")
    tuples = 0
    for count, (operation, argument, _) in enumerate(pickletools.genops(content), 1):
        if count > MAX_OPERATIONS:
            raise DataError(f"has more than {MAX_OPERATIONS:,} operations, the limit")
        if operation.name.endswith("PUT") and int(str(argument)) > MAX_OPERATIONS:
            raise DataError(
                f"remembers a value as number {argument}; at most {MAX_OPERATIONS:,} are possible"
            )
        tuples += operation.name.startswith("TUPLE")
        if tuples > MAX_TUPLES:
            raise DataError(f"has more than {MAX_TUPLES:,} tuples, the limit")
