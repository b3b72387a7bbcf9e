"""Files of weights: read without running anything that is in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from initbench.errors import DataError

_DTYPES = frozenset(
    (
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
        *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    )
)


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name: safetensors, or a state_dict as torch.save writes it.

    Nothing in the file is run. Raises DataError saying what was found instead.
    """
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "is not there"
        raise DataError(f"init.scheme.from: the file of weights {path} {problem} (seen from {Path.cwd()})")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if path.suffix == ".safetensors":
        try:
            return _checked(path, load(content))
        except KeyError as error:  # a type that the format has, and torch has not
            raise DataError(
                f"{path} holds tensors of type {error.args[0]}, which cannot be taken over"
            ) from error
        except (SafetensorError, ValueError, AttributeError, RuntimeError) as error:
            raise DataError(f"{path} cannot be read as a safetensors file: {error}") from error
    return _state_dict(path)


def _state_dict(path: Path) -> dict[str, Tensor]:
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises what the damage happens to lead to
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"{path} cannot be read as a state_dict, which torch.save(net.state_dict(), …) writes: tensors"
            f" and nothing else; {first}"
        ) from error
    if (
        not isinstance(found, Mapping)
        or not found
        or not all(_is_named_tensor(*pair) for pair in found.items())
    ):
        raise DataError(
            f"{path} holds {_described(found)} where a state_dict is expected, tensors by name: save it with"
            " torch.save(net.state_dict(), …)"
        )
    return _checked(path, dict(found))


def _checked(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors; raises DataError for one of a type that no parameter can be computed with, such as float8."""
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise DataError(
                f"{path}: the tensor {name!r} is of type {kind}, which cannot be taken over: save it as float32"
            )
    return tensors


def _is_named_tensor(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor)


def _described(found: object) -> str:
    if isinstance(found, Mapping):
        return f"a mapping with {', '.join(map(repr, list(found)[:4]))}" if found else "an empty mapping"
    return f"a {type(found).__name__}"
