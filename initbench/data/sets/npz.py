"""The user's own data set in one NumPy archive, which is treated as untrusted input."""

from __future__ import annotations

import zipfile
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from pydantic import Field

from initbench.data.dataset import (
    DATASETS,
    Dataset,
    DataSource,
    LocatedDataset,
    RawData,
)
from initbench.data.download.checksums import checksum
from initbench.data.npy_file import read_array
from initbench.data.user_arrays import ArrayForm, array_form, raw_data
from initbench.data.user_files import ArrayOptions, find_user_path
from initbench.errors import DataError, InitbenchError
from initbench.machine import require_memory

_PARTS = ("train", "test", "val")
_ENCRYPTED = 1
"""Bit of a zip member's flags."""


class NpzOptions(ArrayOptions):
    """Options of the user's own archive."""

    path: str = Field(min_length=1)
    """Path of the .npz file (x_train, y_train and optionally x_test, y_test, x_val, y_val).

    Relative to the config, the current folder or the data root; the first that contains it is used."""


def _locate(options: NpzOptions, source: DataSource) -> LocatedDataset:
    path = find_user_path(options.path, source.root, "the npz data set")
    return LocatedDataset(
        name="npz",
        fingerprint=checksum(path, "sha256", recheck=source.recheck),
        load=partial(read_npz, path, array_form(options)),
        files=(path,),
    )


def read_npz(path: Path, form: ArrayForm) -> RawData:
    """Read the data set in the archive at `path`.

    Raises DataError that says what was found and what was expected (`raw_data`).
    """
    arrays = _arrays(path)
    try:
        return raw_data(arrays, form)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is not an .npz archive (a zip file, as numpy.savez writes it)")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            present = [
                part for part in _PARTS if part == "train" or {f"x_{part}", f"y_{part}"} & set(members)
            ]
            keys = [f"{axis}_{part}" for part in present for axis in "xy"]
            missing = [key for key in keys if key not in members]
            if missing:
                holds = ", ".join(members) or "nothing"
                raise DataError(f"needs {', '.join(keys)}; lacks {', '.join(missing)}, holds {holds}")
            total = sum(members[key].file_size for key in keys)
            require_memory(2 * total, f"the data set {path}", "use fewer samples or uint8 images")
            return {key: read_member(archive, members[key], key) for key in keys}
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
        return read_array(file, member.file_size, key)


DATASETS.add(
    Dataset(
        name="npz",
        aliases=("numpy",),
        summary="Your own features, images, masks or token ids from one NumPy archive (.npz).",
        source="the user",
        formula="x_train, y_train, x_test, y_test, x_val, y_val; or by test_fraction and val_fraction",
        options=NpzOptions,
        locate=_locate,
    )
)
