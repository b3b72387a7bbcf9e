"""Files of weights, which are read without executing anything in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from initbench.errors import DataError
from initbench.machine import require_memory
from initbench.paths import file_kind

MAX_HEADER_BYTES = 16 * 1024 * 1024
"""Maximum size of a header, which has about a hundred bytes for each tensor (name, shape, two offsets)."""

_DTYPES = frozenset(
    (
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
        *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    )
)


def read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name: safetensors, or a state_dict as torch.save writes it.

    Nothing in the file is executed. Raises DataError, which says what the file is instead.
    """
    try:
        kind = file_kind(path)
    except OSError as error:
        raise DataError(f"init.scheme.from: {str(path)[:200]} cannot be used: {error.strerror}") from None
    if kind != "file":
        problem = {"folder": "is a folder", "missing": "is not there"}.get(kind, "is not a regular file")
        raise DataError(f"init.scheme.from: the file of weights {path} {problem} (seen from {Path.cwd()})")
    try:
        size = path.stat().st_size
        require_memory(2 * size, f"the file of weights {path}", "check that it is what it should be")
        if path.suffix == ".safetensors":
            with path.open("rb") as file:
                check_header(file, size)
            return _checked(path, load(path.read_bytes()))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, KeyError):  # a dtype that safetensors supports and torch does not
            raise DataError(f"{path} holds tensors of type {error.args[0]}, which cannot be used") from error
        raise DataError(f"{path} cannot be read as a safetensors file: {error}") from error
    return _state_dict(path)


def check_header(file: BinaryIO, size: int) -> None:
    """Check the header of a safetensors file of `size` bytes before the rest is read.

    Raises ValueError if it does not match the size of the file.
    """
    header_size = int.from_bytes(file.read(8), "little")
    if not 2 <= header_size <= min(MAX_HEADER_BYTES, size - 8):
        raise ValueError(
            f"its header says that it has {header_size:,} bytes; the file has {size:,}, and a header has"
            f" at most {MAX_HEADER_BYTES:,}"
        )
    header = json.loads(file.read(header_size))
    entries = [entry for name, entry in header.items() if name != "__metadata__"]
    end = max((int(entry["data_offsets"][1]) for entry in entries), default=0)
    if 8 + header_size + end != size:
        raise ValueError(f"its tensors end at byte {8 + header_size + end:,}, and the file has {size:,}")


def _state_dict(path: Path) -> dict[str, Tensor]:
    try:
        contents: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the type of the error depends on the damage
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"{path} cannot be read as a state_dict, which torch.save(net.state_dict(), …) writes: tensors"
            f" and nothing else; {first}"
        ) from error
    if (
        not isinstance(contents, Mapping)
        or not contents
        or not all(_is_named_tensor(*pair) for pair in contents.items())
    ):
        raise DataError(
            f"{path} holds {_described(contents)} where a state_dict is expected, tensors by name:"
            " save it with"
            " torch.save(net.state_dict(), …)"
        )
    return _checked(path, dict(contents))


def _checked(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors; raise DataError for a dtype that parameters cannot have, such as float8."""
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise DataError(
                f"{path}: the tensor {name!r} is of type {kind}, which cannot be used: save it as float32"
            )
    return tensors


def _is_named_tensor(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor)


def _described(contents: object) -> str:
    if isinstance(contents, Mapping):
        return (
            f"a mapping with {', '.join(map(repr, list(contents)[:4]))}" if contents else "an empty mapping"
        )
    return f"a {type(contents).__name__}"
