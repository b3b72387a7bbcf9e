"""MNIST, Fashion-MNIST and KMNIST, read from the published archives.

Checksums and mirrors are those of torchvision. It is imported only if a file is missing, because the import
takes more than a second.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

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
)
from initbench.data.download.archive import Archive, find_on_disk, find_or_download
from initbench.data.download.checksums import cache_folder, checksum
from initbench.data.idx_file import read_idx
from initbench.errors import DataError

_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
_MAX_UNPACKED = 64 * 1024 * 1024
"""Maximum size of an unpacked file in bytes; the largest of these files unpacks to 47 MB."""
MD5 = {
    "MNIST": (
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
    "FashionMNIST": (
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
    "KMNIST": (
        "bdb82020997e1d708af4cf47b453dcf7",
        "e144d726b3acfaa3e44228e80efcd344",
        "5c965bf0a639b31b8f53240b1b52f4d7",
        "7320c461ea6c1c855c0b718fb2a4b134",
    ),
}
"""Name of torchvision's class → checksums of its four files."""
UNPACKED_MD5 = {
    "MNIST": (
        "6bbc9ace898e44ae57da46a324031adb",
        "a25bea736e30d166cdddb491f175f624",
        "2646ac647ad5339dbf082846283269ea",
        "27ae3e4e09519cfbb04c329615203637",
    ),
    "FashionMNIST": (
        "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "9018921c3c673c538a1fc5bad174d6f9",
        "8181f5470baa50b63fa0f6fddb340f0a",
        "15d484375f8d13e6eb1aabb0c3f46965",
    ),
}
"""Name of torchvision's class → checksums of the unpacked files, which torchvision reads; where known."""


def published_archive(name: str, class_name: str) -> Archive:
    """Return the archive of torchvision's class `class_name`, with torchvision's mirrors."""
    import torchvision

    mirrors = tuple(getattr(torchvision.datasets, class_name).mirrors)
    return replace(_archive(name, class_name), mirrors=mirrors)


def _archive(name: str, class_name: str) -> Archive:
    checksums = dict(zip(_FILES, MD5[class_name], strict=True))
    return Archive(name=name, folder=f"{class_name}/raw", checksums=checksums, mirrors=())


def _locate(name: str, class_name: str, _options: DataOptions, source: DataSource) -> LocatedDataset:
    archive = _archive(name, class_name)
    paths, fingerprint = find_on_disk(archive, source), archive.fingerprint
    if len(paths) < len(_FILES):
        unpacked, unpacked_fingerprint = _unpacked(archive, class_name, source)
        paths, fingerprint = {**unpacked, **paths}, unpacked_fingerprint or fingerprint
    if len(paths) < len(_FILES):
        paths, fingerprint = (
            find_or_download(published_archive(name, class_name), source),
            archive.fingerprint,
        )
    return LocatedDataset(
        name=name,
        fingerprint=fingerprint,
        load=partial(_load, paths),
        files=tuple(paths.values()),
    )


def _unpacked(archive: Archive, class_name: str, source: DataSource) -> tuple[dict[str, Path], str]:
    """Return the unpacked files by the names of the packed ones, and a fingerprint.

    Files with known checksums are verified and count as the same data set as the packed files; the
    fingerprint is empty then. Other files are identified by a fingerprint of their contents.
    """
    bare = [file.removesuffix(".gz") for file in _FILES]
    md5s = UNPACKED_MD5.get(class_name)
    if md5s is not None:
        verified = find_on_disk(replace(archive, checksums=dict(zip(bare, md5s, strict=True))), source)
        return {f"{file}.gz": path for file, path in verified.items()}, ""
    folders = dict.fromkeys(root / archive.folder for root in (source.root, cache_folder()))
    paths = {
        f"{file}.gz": next((folder / file for folder in folders if (folder / file).is_file()), None)
        for file in bare
    }
    present = {file: path for file, path in paths.items() if path is not None}
    if len(present) < len(bare):
        return {}, ""
    contents = {file: checksum(path, "md5", recheck=source.recheck) for file, path in present.items()}
    return present, replace(archive, checksums=contents).fingerprint


def _load(paths: dict[str, Path]) -> RawData:
    """Load images (N, 1, 28, 28) uint8 and labels (N,) int64."""
    x_train, y_train, x_test, y_test = (_read_bytes(paths[file]) for file in _FILES)
    for path, x, y in ((_FILES[0], x_train, y_train), (_FILES[2], x_test, y_test)):
        if x.shape != (len(y), 28, 28) or y.dim() != 1 or not len(y) or int(y.max()) > 9:
            raise DataError(f"{paths[path]} and its labels are not images of 28 × 28 in 10 classes")
    return RawData(
        x_train=x_train.unsqueeze(1),
        y_train=y_train.long(),
        x_test=x_test.unsqueeze(1),
        y_test=y_test.long(),
        classes=10,
    )


def _read_bytes(path: Path) -> Tensor:
    values = read_idx(path, _MAX_UNPACKED)
    if values.dtype != np.uint8:
        raise DataError(f"{path} is not an idx file of bytes")
    return torch.from_numpy(values)


DATASETS.add(
    Dataset(
        name="mnist",
        summary="Handwritten digits, 28×28 grey, 10 classes: the usual first real task.",
        source="LeCun, Cortes and Burges 1998",
        formula="60,000 train (val_fraction of them for validation) + 10,000 test",
        locate=partial(_locate, "mnist", "MNIST"),
        form=lambda _options: SampleShape((1, 28, 28), 10),
    )
)
DATASETS.add(
    Dataset(
        name="fashion_mnist",
        aliases=("fashion",),
        summary="Photographs of clothing, 28×28 grey, 10 classes: MNIST's shape, but harder.",
        source="Xiao, Rasul and Vollgraf 2017",
        formula="60,000 train (val_fraction of them for validation) + 10,000 test",
        locate=partial(_locate, "fashion_mnist", "FashionMNIST"),
        form=lambda _options: SampleShape((1, 28, 28), 10),
    )
)
DATASETS.add(
    Dataset(
        name="kmnist",
        aliases=("kuzushiji_mnist",),
        summary="Handwritten Japanese characters, 28×28 grey, 10 classes: MNIST's shape, harder to read.",
        source="Clanuwat et al. 2018",
        formula="60,000 train (val_fraction of them for validation) + 10,000 test",
        locate=partial(_locate, "kmnist", "KMNIST"),
        form=lambda _options: SampleShape((1, 28, 28), 10),
    )
)
