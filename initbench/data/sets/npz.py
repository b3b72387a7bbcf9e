"""The user's own data set in one NumPy archive, which is treated as untrusted input."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from initbench.data.dataset import (
    DATASETS,
    DataOptions,
    Dataset,
    DataSource,
    LocatedDataset,
    RawData,
    UnavailableError,
)
from initbench.data.download.checksums import checksum
from initbench.data.user_arrays import (
    check_inputs,
    check_labels,
    check_layout,
    inputs_advice,
    labels_advice,
)
from initbench.errors import DataError, InitbenchError
from initbench.machine import require_memory
from initbench.paths import expand_user, file_kind

_KEYS = ("x_train", "y_train", "x_test", "y_test")
_MAX_CLASSES = 1_000_000
_ENCRYPTED = 1
"""Bit of a zip member's flags."""
_CHUNK_BYTES = 1 << 20
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
"""Header reader by format version; version 3 is only for arrays with named fields."""


class NpzOptions(DataOptions):
    """Options of the user's own archive."""

    path: str = Field(min_length=1)
    """Path of the .npz file (x_train, y_train, x_test, y_test).

    Relative to the config, the current folder or the data root; the first that contains it is used."""


def _locate(options: NpzOptions, source: DataSource) -> LocatedDataset:
    path = _find(options.path, source.root)
    return LocatedDataset(
        name="npz",
        fingerprint=checksum(path, "sha256", recheck=source.recheck),
        load=partial(read_npz, path, options.classes),
        files=(path,),
    )


def _find(name: str, root: Path) -> Path:
    relative = expand_user(name)
    candidates = list(dict.fromkeys((relative.absolute(), root / relative)))
    try:
        kinds = [file_kind(path) for path in candidates]
    except OSError as error:
        raise DataError(f"data.path {name[:200]!r} cannot be used: {error.strerror}") from None
    for path, kind in zip(candidates, kinds, strict=True):
        if kind == "file":
            return path
    raise UnavailableError(
        f"the npz data set {name!r} is not on disk",
        tried=[
            f"{path}: {'does not exist' if kind == 'missing' else 'not a file'}"
            for path, kind in zip(candidates, kinds, strict=True)
        ],
        remedies=["set data.path to the file, relative to the config, the current folder or --data-dir"],
    )


def read_npz(path: Path, labels: Sequence[int] | None = None) -> RawData:
    """Read the data set in the archive at `path`.

    Features (N, D), grey images (N, H, W) or colour images (N, H, W, C), uint8 or float; labels (N,)
    integers from 0. `labels` are those selected by `data.classes`, or None for all. Raises DataError that
    says what was found and what was expected.
    """
    arrays = _arrays(path)
    try:
        y_train, y_test = (_labels(key, arrays[key]) for key in ("y_train", "y_test"))
        x_train, x_test = (_inputs(key, arrays[key]) for key in ("x_train", "x_test"))
        _check_together(x_train, y_train, x_test, y_test)
        check_labels(y_train, y_test, labels)
        check_inputs("x_train", x_train)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    classes = int(max(y_train.max(), y_test.max())) + 1
    return RawData(x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test, classes=classes)


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is not an .npz archive (a zip file, as numpy.savez writes it)")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            missing = [key for key in _KEYS if key not in members]
            if missing:
                holds = ", ".join(members) or "nothing"
                raise DataError(f"needs {', '.join(_KEYS)}; lacks {', '.join(missing)}, holds {holds}")
            total = sum(members[key].file_size for key in _KEYS)
            require_memory(2 * total, f"the data set {path}", "use fewer samples or uint8 images")
            return {key: read_member(archive, members[key], key) for key in _KEYS}
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except InitbenchError:
        raise
    except Exception as error:  # zipfile, its decompressors and NumPy raise a dozen kinds for a damaged file
        reason = str(error) or type(error).__name__
        raise DataError(f"{path} cannot be read as an .npz archive: {reason}") from error


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, key: str) -> NDArray[Any]:
    """Read one member; its header is compared with its size before memory is allocated."""
    if member.flag_bits & _ENCRYPTED:
        raise DataError(f"{key} is encrypted; write the archive without a password")
    with archive.open(member) as file:
        try:
            version = np.lib.format.read_magic(file)
            read_header = _HEADERS[version]
        except (ValueError, KeyError):
            raise DataError(f"{key} is not an array in NumPy's format") from None
        shape, in_columns, dtype = read_header(file)
        if dtype.kind not in "biufcSUmMV" or dtype.hasobject:
            raise DataError(f"{key} contains Python objects; expected numbers")
        needed, size = math.prod(shape) * dtype.itemsize, member.file_size - file.tell()
        if min(shape, default=0) < 0 or needed != size:
            raise DataError(
                f"{key} is damaged: {shape} values of {dtype} take {needed:,} bytes, but it has {size:,}"
            )
        content = np.empty(size, np.uint8)
        for start in range(0, size, _CHUNK_BYTES):
            part = file.read(min(_CHUNK_BYTES, size - start))
            content[start : start + _CHUNK_BYTES] = np.frombuffer(part, np.uint8)
    return content.view(dtype).reshape(shape, order="F" if in_columns else "C")


def _labels(key: str, array: NDArray[Any]) -> Tensor:
    if array.dtype.kind not in "iu":
        raise DataError(f"{key} must contain integers, found {array.dtype}{labels_advice(array)}")
    if array.ndim != 1 or not array.size:
        raise DataError(
            f"{key} must have the shape (N,) with N ≥ 1, found {array.shape}{labels_advice(array)}"
        )
    least, most = int(array.min()), int(array.max())
    if least < 0 or most >= _MAX_CLASSES:
        raise DataError(f"{key} must contain class numbers 0 … classes−1, found {least} … {most}")
    return torch.from_numpy(array.astype(np.int64))


def _inputs(key: str, array: NDArray[Any]) -> Tensor:
    """Return inputs as (N, D) or (N, C, H, W); uint8 unchanged, any float as float32."""
    if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
        raise DataError(f"{key} must be uint8 or float, found {array.dtype}{inputs_advice(array)}")
    if array.ndim not in (2, 3, 4) or not array.size:
        raise DataError(f"{key} must be (N, D), (N, H, W) or (N, H, W, C), not empty, found {array.shape}")
    check_layout(key, array.shape)
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4:
        array = array.transpose(0, 3, 1, 2)
    if array.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(array))
    with np.errstate(over="ignore"):  # values too large for float32 become infinite and are reported below
        x = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    broken = int((~x.isfinite()).sum())
    if broken:
        raise DataError(f"{key} must be finite in float32, found {broken:,} values that are NaN or infinite")
    return x


def _check_together(x_train: Tensor, y_train: Tensor, x_test: Tensor, y_test: Tensor) -> None:
    for part, x, y in (("train", x_train, y_train), ("test", x_test, y_test)):
        if len(x) != len(y):
            raise DataError(
                f"x_{part} and y_{part} must have the same length, found {len(x):,} and {len(y):,}"
            )
    if x_train.shape[1:] != x_test.shape[1:]:
        shapes = f"{tuple(x_train.shape[1:])} and {tuple(x_test.shape[1:])}"
        raise DataError(f"x_train and x_test must have samples of the same shape, found {shapes}")
    if x_train.dtype != x_test.dtype:
        raise DataError("x_train and x_test must both be uint8 or both float: uint8 is scaled to [0, 1]")
    if int(max(y_train.max(), y_test.max())) == 0:
        raise DataError("y_train and y_test contain one class only; at least two are needed")


DATASETS.add(
    Dataset(
        name="npz",
        aliases=("numpy",),
        summary="Your own features, grey or colour images from one NumPy archive (.npz).",
        source="the user",
        formula="x_train, y_train (val_fraction of them for validation), x_test, y_test",
        options=NpzOptions,
        locate=_locate,
    )
)
