"""Arrays and plain values out of a pickle from Python 2, the format that CIFAR is published in.

A pickle is a program. This reader lets it build NumPy arrays, dicts, lists, numbers and text, and ends
it at the first mention of anything else. Even so, callers verify a file's checksum before they read it.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

from initbench.errors import DataError

_RECONSTRUCT = np.empty(0).__reduce__()[0]
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,  # before NumPy 2
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise DataError(f"names {module}.{name}, which no array needs") from None

    def persistent_load(self, pid: Any) -> Any:
        raise DataError(f"refers to the outside object {pid!r}")


def unpickle(content: bytes, what: str) -> dict[str, Any]:
    """The dict pickled in `content`; text of Python 2 becomes str (latin-1, which loses no byte).

    `what` names the content in messages. Raises DataError when it is damaged, is no dict with text
    for keys, or mentions any class or function beyond those of an array.
    """
    try:
        value = _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
    except DataError as error:
        raise DataError(f"{what} is refused: its pickle {error}") from None
    except Exception as error:  # a damaged pickle may raise anything at all
        raise DataError(f"{what} cannot be read: {type(error).__name__}: {error}") from error
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise DataError(f"{what} does not hold a dict with text for keys")
    return value
