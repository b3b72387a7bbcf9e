"""Cache of data sets whose tensors take long to compute, as safetensors files in the cache folder.

Worker processes read the tensors from there. A file that is missing or damaged is computed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from initbench.components.target import TargetKind
from initbench.data.dataset import RawData
from initbench.data.download.checksums import cache_folder
from initbench.errors import DataError

MAX_BYTES = 20e9
"""Maximum size of the cache; beyond it, the least recently used files are removed."""


def cached_data(recipe: str, compute: Callable[[], RawData]) -> RawData:
    """Return the data set that `recipe` identifies, from the cache or else from `compute`.

    Args:
        recipe: Everything that determines the tensors: contents, options, and a version of the code.
        compute: Function that returns the data set; it is stored if there is space on the disk.
    """
    path = _path_of(recipe)
    stored = _read(path)
    if stored is not None:
        return stored
    raw = compute()
    with contextlib.suppress(OSError, SafetensorError):
        _write(path, raw)
    return raw


def store_data(recipe: str, raw: RawData) -> Path:
    """Store a data set unless it is in the cache, and return its file, for `load_stored_data`.

    Raises:
        DataError: If the file cannot be written.
    """
    path = _path_of(recipe)
    if _read(path) is None:
        try:
            _write(path, raw)
        except (OSError, SafetensorError) as error:
            raise DataError(f"the data set cannot be written to {path}: {error}") from error
    return path


def contents_digest(raw: RawData) -> str:
    """Return a hash of the tensors and of what they mean."""
    digest = hashlib.sha256()
    for name, value in vars(raw).items():
        is_tensor = isinstance(value, Tensor)
        digest.update(repr((name, (value.dtype, tuple(value.shape)) if is_tensor else value)).encode())
        if is_tensor:
            digest.update(value.contiguous().numpy())
    return digest.hexdigest()


def load_stored_data(path: Path) -> RawData:
    """Return the data set in a file of `store_data`.

    Raises:
        DataError: If the file has been removed or damaged.
    """
    raw = _read(path)
    if raw is None:
        raise DataError(f"{path}, which held the data set, is gone or damaged: run the command again")
    return raw


def _path_of(recipe: str) -> Path:
    return cache_folder() / "arrays" / f"{hashlib.sha256(recipe.encode()).hexdigest()}.safetensors"


def _read(path: Path) -> RawData | None:
    """Return the data set in a file; None if it is missing or damaged."""
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            facts = json.loads(file.metadata()["facts"])
        facts["target"] = TargetKind(facts["target"])
        facts["class_names"] = facts["class_names"] and tuple(facts["class_names"])
        path.touch()  # the most recently used file is removed last
        return RawData(**tensors, **facts)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None


def _write(path: Path, raw: RawData) -> None:
    tensors = {  # clones, since tensors of a file cannot share memory
        name: value.clone(memory_format=torch.contiguous_format)
        for name, value in vars(raw).items()
        if isinstance(value, Tensor)
    }
    facts = {name: value for name, value in vars(raw).items() if name not in tensors}
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
    os.close(handle)
    try:
        save_file(tensors, temporary, {"facts": json.dumps(facts)})
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _prune(path)


def _prune(newest: Path) -> None:
    """Remove the least recently used files until the cache has at most MAX_BYTES; keep `newest`."""
    sizes = {path: path.stat() for path in newest.parent.glob("*.safetensors")}
    total = sum(status.st_size for status in sizes.values())
    for path, status in sorted(sizes.items(), key=lambda item: item[1].st_mtime):
        if total <= MAX_BYTES:
            return
        if path != newest:
            path.unlink(missing_ok=True)
            total -= status.st_size
