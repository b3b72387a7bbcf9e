"""CIFAR-10 and CIFAR-100, read from the published archive or from the unpacked folder.

Checksums and the URL come from torchvision's classes. The archive is not unpacked to disk, and the checksum
of each pickle is verified in memory right before it is read, because a pickle is a program.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from initbench.components.target import SampleShape
from initbench.data.dataset import (
    DATASETS,
    DataOptions,
    Dataset,
    DataSource,
    LocatedDataset,
    RawData,
    UnavailableError,
)
from initbench.data.download.archive import Archive, find_on_disk, find_or_download
from initbench.data.safe_unpickle import unpickle
from initbench.errors import DataError

_SHAPE = (3, 32, 32)
_VALUES = 3 * 32 * 32
MAX_UNPACKED = 512 * 1024 * 1024
"""Maximum size of the unpacked archive in bytes; the CIFAR archives unpack to less than 200 MB."""


@dataclass(frozen=True, kw_only=True)
class PublishedDataset:
    """Files of one of the two sets, from torchvision; `train`, `test` and `meta` are file names."""

    packed: Archive
    unpacked: Archive
    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: str
    names_key: str
    """Key of the list of class names in `meta`."""


def published_files(name: str, class_name: str) -> PublishedDataset:
    """Return the files of torchvision's class `class_name`, a subclass of its CIFAR10."""
    import torchvision

    dataset_class = getattr(torchvision.datasets, class_name)
    meta = dataset_class.meta["filename"]
    return PublishedDataset(
        packed=Archive(
            name=name,
            folder="",
            checksums={dataset_class.filename: dataset_class.tgz_md5},
            mirrors=(dataset_class.url.removesuffix(dataset_class.filename),),
        ),
        unpacked=Archive(
            name=name,
            folder=dataset_class.base_folder,
            checksums={
                **dict(dataset_class.train_list),
                **dict(dataset_class.test_list),
                meta: dataset_class.meta["md5"],
            },
            mirrors=(),
        ),
        train=tuple(file for file, _ in dataset_class.train_list),
        test=tuple(file for file, _ in dataset_class.test_list),
        meta=meta,
        names_key=dataset_class.meta["key"],
    )


def _locate(name: str, class_name: str, _options: DataOptions, source: DataSource) -> LocatedDataset:
    files = published_files(name, class_name)
    paths = _find(files, source)
    return LocatedDataset(
        name=name,
        fingerprint=files.unpacked.fingerprint,  # of the contents: archive and folder are one data set
        load=partial(_load, files, paths),
        files=tuple(paths.values()),
    )


def _find(files: PublishedDataset, source: DataSource) -> dict[str, Path]:
    """Return the unpacked files if all exist, otherwise the archive, which is downloaded if necessary."""
    unpacked = find_on_disk(files.unpacked, source)
    lacking = [file for file in files.unpacked.checksums if file not in unpacked]
    if not lacking:
        return unpacked
    try:
        return find_or_download(files.packed, source)
    except UnavailableError as error:
        folder = source.root / files.unpacked.folder
        tried = (f"{folder}: no {', '.join(lacking)}", *error.tried)
        raise UnavailableError(error.missing, tried=tried, remedies=error.remedies) from None


def _load(files: PublishedDataset, paths: Mapping[str, Path]) -> RawData:
    """Load images (N, 3, 32, 32) uint8 and labels (N,) int64."""
    wanted = files.unpacked.checksums
    contents = _archive_contents(files, paths) if paths.keys() != wanted.keys() else _folder_contents(paths)
    dicts = {
        file: unpickle(_verified(content, wanted[file], location), location)
        for file, location, content in contents
    }
    lacking = [file for file in wanted if file not in dicts]
    if lacking:
        paths_text = ", ".join(map(str, paths.values()))
        raise DataError(f"{paths_text} lacks {', '.join(lacking)}")
    classes = len(_value(dicts[files.meta], (files.names_key,), files.meta))
    x_train, y_train = _part(dicts, files.train, classes)
    x_test, y_test = _part(dicts, files.test, classes)
    return RawData(x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test, classes=classes)


_Contents = Iterator[tuple[str, str, bytes]]
"""Triples of file name, location and contents."""


def _folder_contents(paths: Mapping[str, Path]) -> _Contents:
    for file, path in paths.items():
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}") from error
        yield file, str(path), content


def _archive_contents(files: PublishedDataset, paths: Mapping[str, Path]) -> _Contents:
    """Yield the wanted members in the archive's order; seeking would unpack it again."""
    (path,) = paths.values()
    wanted = {f"{files.unpacked.folder}/{file}": file for file in files.unpacked.checksums}
    try:
        with gzip.open(path) as packed, tarfile.open(fileobj=_bounded(packed), mode="r|") as archive:
            for member in archive:
                if member.issparse():  # its header may declare holes of any size
                    raise tarfile.TarError(f"{member.name[:200]!r} is a sparse file")
                if member.size > MAX_UNPACKED:  # tarfile would try to read that many bytes beyond the end
                    raise tarfile.TarError(f"{member.name[:200]!r} has {member.size:,} bytes, over the limit")
                opened = archive.extractfile(member) if member.isfile() and member.name in wanted else None
                if opened is not None:
                    yield wanted[member.name], f"{path}: {member.name}", opened.read()
    except (OSError, EOFError, ValueError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"{path} cannot be read as a .tar.gz archive: {error}") from error


def _bounded(packed: gzip.GzipFile) -> io.BufferedReader:
    return io.BufferedReader(_BoundedStream(packed))


class _BoundedStream(io.RawIOBase):
    """A stream that raises OSError after MAX_UNPACKED bytes, as a small archive can unpack to any size."""

    def __init__(self, stream: gzip.GzipFile) -> None:
        self._stream = stream
        self._bytes_left = MAX_UNPACKED

    def readable(self) -> bool:
        """Return True: the stream can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read up to len(buffer) bytes into the buffer and return their number."""
        content = self._stream.read(len(buffer))
        self._bytes_left -= len(content)
        if self._bytes_left < 0:
            raise OSError(f"it unpacks to more than {MAX_UNPACKED:,} bytes, the limit")
        buffer[: len(content)] = content
        return len(content)


def _verified(content: bytes, expected: str, location: str) -> bytes:
    actual = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if actual != expected:
        raise DataError(f"{location} is not the published file: expected md5 {expected}, found {actual}")
    return content


def _part(dicts: Mapping[str, dict[str, Any]], files: tuple[str, ...], classes: int) -> tuple[Tensor, Tensor]:
    parts = [_batch(dicts[file], file, classes) for file in files]
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


def _batch(batch: dict[str, Any], file: str, classes: int) -> tuple[Tensor, Tensor]:
    """Return one file's images and labels after checking them: a pickle may contain anything."""
    data = _value(batch, ("data",), file)
    labels = _value(batch, ("labels", "fine_labels"), file)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (_VALUES,):
        raise DataError(f"{file}: data must be a uint8 array of the shape (N, {_VALUES})")
    numbers = isinstance(labels, list) and all(
        type(label) is int and 0 <= label < classes for label in labels
    )
    if not numbers or len(labels) != len(data):
        raise DataError(f"{file}: labels must be {len(data)} whole numbers from 0 to {classes - 1}")
    return torch.from_numpy(np.ascontiguousarray(data)).view(-1, *_SHAPE), torch.tensor(labels)


def _value(holder: dict[str, Any], keys: tuple[str, ...], file: str) -> Any:
    for key in keys:
        if key in holder:
            return holder[key]
    raise DataError(f"{file} lacks {' or '.join(keys)}, holds {', '.join(holder) or 'nothing'}")


DATASETS.add(
    Dataset(
        name="cifar10",
        suggested_for=("cifar",),
        summary="Small colour photographs, 32×32, 10 classes: the usual task for convolutions.",
        source="Krizhevsky 2009",
        formula="50,000 train (val_fraction of them for validation) + 10,000 test",
        locate=partial(_locate, "cifar10", "CIFAR10"),
        form=lambda _options: SampleShape((3, 32, 32), 10),
    )
)
DATASETS.add(
    Dataset(
        name="cifar100",
        suggested_for=("cifar",),
        summary="Small colour photographs, 32×32, 100 classes of 600 each: CIFAR-10's shape, but harder.",
        source="Krizhevsky 2009",
        formula="50,000 train (val_fraction of them for validation) + 10,000 test, fine labels",
        locate=partial(_locate, "cifar100", "CIFAR100"),
        form=lambda _options: SampleShape((3, 32, 32), 100),
    )
)
