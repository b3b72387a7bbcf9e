"""The user's own data set in one NumPy archive; nothing in the file is trusted."""

from __future__ import annotations

import zipfile
import zlib
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
    Located,
    RawData,
    Source,
    UnavailableError,
)
from initbench.data.obtain.checksums import checksum
from initbench.data.user_arrays import (
    check_inputs,
    check_labels,
    check_layout,
    inputs_advice,
    labels_advice,
)
from initbench.errors import DataError

_KEYS = ("x_train", "y_train", "x_test", "y_test")
_MOST_CLASSES = 1_000_000


class NpzOptions(DataOptions):
    """Options of the user's own archive."""

    path: str = Field(min_length=1)
    """The .npz file (x_train, y_train, x_test, y_test), relative to the current folder or the data root."""


def _locate(options: NpzOptions, source: Source) -> Located:
    path = _find(options.path, source.root)
    return Located(
        name="npz",
        fingerprint=checksum(path, "sha256", recheck=source.recheck),
        load=partial(read, path, options.classes),
        files=(path,),
    )


def _find(named: str, root: Path) -> Path:
    relative = Path(named).expanduser()
    candidates = list(dict.fromkeys((relative.absolute(), root / relative)))
    for path in candidates:
        if path.is_file():
            return path
    raise UnavailableError(
        f"the npz data set {named!r} is not on disk",
        tried=[f"{path}: {'not a file' if path.exists() else 'not there'}" for path in candidates],
        remedies=["set data.path to the file, relative to the current folder or to --data-dir"],
    )


def read(path: Path, chosen: Sequence[int] | None = None) -> RawData:
    """The data set in the archive at `path`, of which `chosen` labels are going to be used, or all.

    Features (N, D), grey images (N, H, W) or colour images (N, H, W, C), uint8 or float; labels
    (N,) integers from 0. Raises DataError saying what was found and what was expected.
    """
    arrays = _arrays(path)
    try:
        y_train, y_test = (_labels(key, arrays[key]) for key in ("y_train", "y_test"))
        x_train, x_test = (_inputs(key, arrays[key]) for key in ("x_train", "x_test"))
        _check_together(x_train, y_train, x_test, y_test)
        check_labels(y_train, y_test, chosen)
        check_inputs("x_train", x_train)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    classes = int(max(y_train.max(), y_test.max())) + 1
    return RawData(x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test, classes=classes)


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is not an .npz archive (a zip file, as numpy.savez writes it)")
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in _KEYS if key not in archive.files]
            if missing:
                holds = ", ".join(archive.files) or "nothing"
                raise DataError(
                    f"{path}: needs {', '.join(_KEYS)}; lacks {', '.join(missing)}, holds {holds}"
                )
            arrays = {key: archive[key] for key in _KEYS}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise DataError(f"{path} cannot be read as an .npz archive: {error}") from error
    for key, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise DataError(f"{path}: {key} is not an array in NumPy's format")
    return arrays


def _labels(key: str, array: NDArray[Any]) -> Tensor:
    if not np.issubdtype(array.dtype, np.integer):
        raise DataError(f"{key} must hold integers, found {array.dtype}{labels_advice(array)}")
    if array.ndim != 1 or not array.size:
        raise DataError(
            f"{key} must have the shape (N,) with N ≥ 1, found {array.shape}{labels_advice(array)}"
        )
    least, most = int(array.min()), int(array.max())
    if least < 0 or most >= _MOST_CLASSES:
        raise DataError(f"{key} must hold class numbers 0 … classes−1, found {least} … {most}")
    return torch.from_numpy(array.astype(np.int64))


def _inputs(key: str, array: NDArray[Any]) -> Tensor:
    """(N, D), or (N, C, H, W); uint8 as it is, any float as float32."""
    if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
        raise DataError(f"{key} must be uint8 or float, found {array.dtype}{inputs_advice(array)}")
    if array.ndim not in (2, 3, 4) or not array.size:
        raise DataError(
            f"{key} must be (N, D), (N, H, W) or (N, H, W, C), none of them 0, found {array.shape}"
        )
    check_layout(key, array.shape)
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4:
        array = array.transpose(0, 3, 1, 2)
    if array.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(array))
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite, found right below
        x = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    broken = int((~x.isfinite()).sum())
    if broken:
        raise DataError(f"{key} must be finite in float32, found {broken:,} values that are NaN or infinite")
    return x


def _check_together(x_train: Tensor, y_train: Tensor, x_test: Tensor, y_test: Tensor) -> None:
    for part, x, y in (("train", x_train, y_train), ("test", x_test, y_test)):
        if len(x) != len(y):
            raise DataError(f"x_{part} and y_{part} must be of one length, found {len(x):,} and {len(y):,}")
    if x_train.shape[1:] != x_test.shape[1:]:
        shapes = f"{tuple(x_train.shape[1:])} and {tuple(x_test.shape[1:])}"
        raise DataError(f"x_train and x_test must have samples of one shape, found {shapes}")
    if x_train.dtype != x_test.dtype:
        raise DataError("x_train and x_test must both be uint8 or both float: uint8 is scaled to [0, 1]")
    if int(max(y_train.max(), y_test.max())) == 0:
        raise DataError("y_train and y_test hold one class only, at least two are needed")


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
