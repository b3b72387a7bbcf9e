"""The user's own data set in one NumPy archive, which is treated as untrusted input."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from initbench.components.target import TargetKind
from initbench.data.dataset import (
    DATASETS,
    DataOptions,
    Dataset,
    DataSource,
    LocatedDataset,
    RawData,
)
from initbench.data.download.checksums import checksum
from initbench.data.user_arrays import raw_data
from initbench.data.user_files import find_user_path
from initbench.errors import DataError, InitbenchError
from initbench.machine import require_memory

_KEYS = ("x_train", "y_train", "x_test", "y_test")
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
    targets: Literal["auto", "classes", "sequence", "dense", "real", "labels"] = "auto"
    """Kind of y: class labels (N,), of positions (N, T) or pixels (N, H, W), real values, or labels.

    `labels` are several labels of 0 and 1 for each sample, (N, D), or masks (N, H, W). `auto` takes integers
    (N,) for classes, arrays of only 0 and 1 with more axes for labels, and floating-point numbers for real
    values. Real values are not standardised."""


def _locate(options: NpzOptions, source: DataSource) -> LocatedDataset:
    path = find_user_path(options.path, source.root, "the npz data set")
    return LocatedDataset(
        name="npz",
        fingerprint=checksum(path, "sha256", recheck=source.recheck),
        load=partial(read_npz, path, options.classes, options.targets),
        files=(path,),
    )


def read_npz(path: Path, labels: Sequence[int] | None = None, targets: str = "auto") -> RawData:
    """Read the data set in the archive at `path`.

    Features (N, D), grey images (N, H, W) or colour images (N, H, W, C), uint8 or float, or token ids (N, T)
    for targets (N, T). `labels` are the classes selected by `data.classes`, or None for all; `targets` is the
    kind of y, or `auto`. Raises DataError that says what was found and what was expected.
    """
    arrays = _arrays(path)
    try:
        return raw_data(arrays, labels, target=None if targets == "auto" else TargetKind(targets))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


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
