"""Read a batch that the user saved, without trusting the file or executing anything in it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from initbench.data.sets.npz import read_member
from initbench.errors import DataError, InitbenchError, UsageError
from initbench.machine import format_gb, require_memory
from initbench.paths import expand_user, file_kind, read_regular_file
from initbench.pretrain.weight_files import check_header
from initbench.probing.model_inputs import LABELS

MAX_BATCH_BYTES = 4 * 2**30
MAX_PICKLE_BYTES = 16 * 2**20
"""Maximum size of the pickle that describes the tensors in a torch file."""
_MAX_DEPTH = 8
"""Maximum nesting depth of containers."""
_PLAIN_TYPES = (str, bool, int, float, type(None))
_DTYPES = frozenset(
    (
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128),
        *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    )
)


def read_batch(file: str) -> Any:
    """Return the contents of a saved batch: a tensor, or a mapping or tuple with tensors.

    Unnamed arrays of numpy.savez (arr_0, arr_1, …) and safetensors named 0, 1, … become a tuple in that
    order. If the file also has `labels`, the result is a pair of this tuple and the labels.

    Raises:
        UsageError: If the file is not of the format of its suffix. The message starts with the file name.
    """
    path = expand_user(file)
    read = _READERS.get(path.suffix.lower())
    subject = f"--batch {file[:200]}"
    if read is None:
        suffix_text = f"the suffix {path.suffix!r}" if path.suffix else "no suffix"
        raise UsageError(f"{subject} has {suffix_text}; a batch is saved as {', '.join(_READERS)}")
    content = _read_content(path, subject)
    try:
        return _check_plain_tensors(read(content), LABELS, 0)
    except (DataError, UsageError) as error:
        raise UsageError(f"{subject}: {error}") from error
    except InitbenchError:
        raise
    except Exception as error:  # damaged files raise various errors in zipfile, NumPy, safetensors and torch
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UsageError(f"{subject} cannot be read as {path.suffix.lower()}: {reason[:300]}") from error


def _read_content(path: Path, subject: str) -> bytes:
    """Return the bytes of a regular file; raise UsageError if it is empty or unreadable."""
    try:
        kind = file_kind(path)
        if kind != "file":
            problem = {"folder": "is a folder", "missing": "is not there"}.get(kind, "is not a regular file")
            raise UsageError(f"{subject} {problem} (seen from {Path.cwd()})")
        size = path.stat().st_size
        if size > MAX_BATCH_BYTES:
            limit = f"a batch file has at most {format_gb(MAX_BATCH_BYTES)}"
            raise UsageError(f"{subject} has {format_gb(size)}, and {limit}: save fewer samples")
        require_memory(2 * size, f"the batch {path}", "save fewer samples")
        content = read_regular_file(path, MAX_BATCH_BYTES)
    except OSError as error:
        raise UsageError(f"{subject} cannot be read: {error.strerror or error}") from error
    if not content:
        raise UsageError(f"{subject} is empty")
    return content


def _read_safetensors(content: bytes) -> Any:
    try:
        check_header(io.BytesIO(content), len(content))
        return _ordered_tensors(load(content), str)
    except KeyError as error:  # a dtype that safetensors supports and torch does not
        raise UsageError(f"tensors of type {error.args[0]} cannot be used") from error
    except (SafetensorError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"it is no safetensors file: {error}") from error


def _read_npz(content: bytes) -> Any:
    if not zipfile.is_zipfile(io.BytesIO(content)):
        raise UsageError("it is no .npz archive (a zip file, as numpy.savez writes it)")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        total = sum(info.file_size for info in archive.infolist())
        require_memory(2 * total, "the batch", "save fewer samples")
        arrays = {key: _tensor(key, read_member(archive, info, key)) for key, info in members.items()}
    return _ordered_tensors(arrays, "arr_{}".format)


def _tensor(key: str, array: Any) -> Tensor:
    try:
        return torch.from_numpy(array)
    except TypeError:
        raise UsageError(f"{key} holds {array.dtype}; numbers are needed") from None


def _read_torch(content: bytes) -> Any:
    if not zipfile.is_zipfile(io.BytesIO(content)):
        raise UsageError("it is no file that torch.save writes (a zip archive, from torch 1.6 on)")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    require_memory(2 * sum(sizes.values()), "the batch", "save fewer samples")
    if any(size > MAX_PICKLE_BYTES for name, size in sizes.items() if name.endswith(".pkl")):
        raise UsageError("the description of its tensors is too long; save tensors alone")
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # the type of the error depends on the damage
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UsageError(
            "it holds more than tensors, numbers and text in dicts, lists and tuples, or is damaged; objects"
            f" and code are never loaded: save the tensors alone ({reason[:200]})"
        ) from error


_READERS: dict[str, Callable[[bytes], Any]] = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    ".pt": _read_torch,
    ".pth": _read_torch,
}


def _ordered_tensors(tensors: Mapping[str, Tensor], name: Callable[[int], str]) -> Any:
    """Return tensors named by position as a tuple, or as a pair with labels; return others as a dict."""
    names = [name(i) for i in range(len(tensors))]
    inputs = [key for key in tensors if key != LABELS]
    if not inputs or sorted(inputs) != sorted(names[: len(inputs)]):
        return dict(tensors)
    ordered = tuple(tensors[key] for key in names[: len(inputs)])
    return (ordered, tensors[LABELS]) if LABELS in tensors else ordered


def _check_plain_tensors(value: Any, key: str, depth: int) -> Any:
    """Return the value with detached tensors in plain containers; raise UsageError for other types."""
    if depth > _MAX_DEPTH:
        raise UsageError(f"{key} lies more than {_MAX_DEPTH} containers deep")
    if isinstance(value, Mapping):
        return {name: _check_plain_tensors(entry, str(name), depth + 1) for name, entry in value.items()}
    if isinstance(value, tuple | list):
        return tuple(_check_plain_tensors(entry, f"entry {i}", depth + 1) for i, entry in enumerate(value, 1))
    if isinstance(value, Tensor):
        if value.dtype not in _DTYPES or value.layout is not torch.strided or value.is_quantized:
            kind = f"{str(value.dtype).removeprefix('torch.')}, {str(value.layout).removeprefix('torch.')}"
            raise UsageError(f"{key} is a tensor of a kind that cannot be used ({kind}): save it as float32")
        if value.is_meta:
            raise UsageError(f"{key} is on the device meta, which holds no numbers")
        require_memory(
            float(value.numel()) * value.element_size(), f"{key} of the batch", "save fewer samples"
        )
        return value.detach()
    if isinstance(value, _PLAIN_TYPES):
        return value
    raise UsageError(f"{key} is a {type(value).__name__}; a batch holds tensors")
