"""The user's own images or features in idx files, the format of MNIST."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from initbench.data.dataset import DATASETS, Dataset, DataSource, LocatedDataset, RawData
from initbench.data.download.checksums import checksum
from initbench.data.idx_file import read_idx
from initbench.data.user_arrays import ArrayForm, array_form, raw_data
from initbench.data.user_files import ArrayOptions, find_user_path
from initbench.errors import DataError
from initbench.machine import available_bytes

_ARRAYS = {
    "x_train": "train_images_path",
    "y_train": "train_labels_path",
    "x_test": "test_images_path",
    "y_test": "test_labels_path",
}


class IdxOptions(ArrayOptions):
    """Options of the user's own idx files."""

    train_images_path: str = Field(min_length=1)
    """Path of the training images or features, packed with gzip if its name ends in `.gz`.

    Paths are relative to the config, the current folder or the data root."""
    train_labels_path: str = Field(min_length=1)
    """Path of the training labels."""
    test_images_path: str | None = Field(default=None, min_length=1)
    """Path of the test images or features; null to keep `test_fraction` of the training samples."""
    test_labels_path: str | None = Field(default=None, min_length=1)
    """Path of the test labels."""

    @model_validator(mode="after")
    def _test_files_belong_together(self) -> IdxOptions:
        if (self.test_images_path is None) != (self.test_labels_path is None):
            problem = "must be given together with test_labels_path, or neither"
            raise PydanticCustomError(
                "key_fault", "{problem}", {"problem": problem, "at": "test_images_path"}
            )
        return self


def _locate(options: IdxOptions, source: DataSource) -> LocatedDataset:
    names = {array: getattr(options, key) for array, key in _ARRAYS.items()}
    paths = {
        array: find_user_path(name, source.root, "the idx file", key=f"data.{_ARRAYS[array]}")
        for array, name in names.items()
        if name is not None
    }
    contents = [
        f"{array} {checksum(path, 'sha256', recheck=source.recheck)}" for array, path in paths.items()
    ]
    return LocatedDataset(
        name="idx",
        fingerprint=hashlib.sha256("\n".join(contents).encode()).hexdigest(),
        load=partial(_load, paths, array_form(options)),
        files=tuple(paths.values()),
    )


def _load(paths: Mapping[str, Path], form: ArrayForm) -> RawData:
    arrays = {array: read_idx(path, available_bytes() // 2) for array, path in paths.items()}
    try:
        return raw_data(arrays, form)
    except DataError as error:
        files = ", ".join(map(str, paths.values()))
        raise DataError(f"{files}: {error}") from None


DATASETS.add(
    Dataset(
        name="idx",
        aliases=("ubyte", "mnist_format"),
        summary="Your own images or features in idx files, the format of MNIST.",
        source="the user",
        formula="files of inputs and labels (val_fraction of them for validation)",
        options=IdxOptions,
        locate=_locate,
    )
)
