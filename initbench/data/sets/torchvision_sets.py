"""MNIST, Fashion-MNIST and KMNIST, read by torchvision's parsers from the published archives.

Checksums and mirrors come from torchvision's own classes. Importing torchvision takes about a
second, so it happens inside the functions.
"""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from initbench.data.dataset import DATASETS, DataOptions, Dataset, Form, Located, RawData, Source
from initbench.data.obtain.fetch import Archive, obtain


def published(name: str, class_name: str) -> Archive:
    """The archive behind torchvision's class `class_name`, a subclass of its MNIST."""
    import torchvision

    published_by = getattr(torchvision.datasets, class_name)
    return Archive(
        name=name,
        folder=f"{class_name}/raw",
        checksums=dict(published_by.resources),
        mirrors=tuple(published_by.mirrors),
    )


def _locate(name: str, class_name: str, _options: DataOptions, source: Source) -> Located:
    archive = published(name, class_name)
    paths = obtain(archive, source)
    return Located(
        name=name,
        fingerprint=archive.fingerprint,
        load=partial(_load, paths),
        files=tuple(paths.values()),
    )


def _load(paths: dict[str, Path]) -> RawData:
    """Images (N, 1, 28, 28) uint8, labels (N,) int64."""
    from torchvision.datasets import mnist

    images, labels = mnist.read_image_file, mnist.read_label_file
    return RawData(
        x_train=_parse(images, paths["train-images-idx3-ubyte.gz"]).unsqueeze(1),
        y_train=_parse(labels, paths["train-labels-idx1-ubyte.gz"]),
        x_test=_parse(images, paths["t10k-images-idx3-ubyte.gz"]).unsqueeze(1),
        y_test=_parse(labels, paths["t10k-labels-idx1-ubyte.gz"]),
        classes=10,
    )


def _parse(parser: Callable[[str], Tensor], path: Path) -> Tensor:
    """torchvision's parsers take a path to an uncompressed file."""
    with TemporaryDirectory(prefix="initbench-") as folder:
        plain = Path(folder) / path.stem
        with gzip.open(path) as packed, plain.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked, 1 << 20)
        return parser(str(plain))


DATASETS.add(
    Dataset(
        name="mnist",
        summary="Handwritten digits, 28×28 grey, 10 classes: the usual first real task.",
        source="LeCun, Cortes and Burges 1998",
        formula="60,000 train (val_fraction of them for validation) + 10,000 test",
        locate=partial(_locate, "mnist", "MNIST"),
        form=lambda _options: Form((1, 28, 28), 10),
    )
)
DATASETS.add(
    Dataset(
        name="fashion_mnist",
        summary="Photographs of clothing, 28×28 grey, 10 classes: MNIST's shape, but harder.",
        source="Xiao, Rasul and Vollgraf 2017",
        formula="60,000 train (val_fraction of them for validation) + 10,000 test",
        locate=partial(_locate, "fashion_mnist", "FashionMNIST"),
        form=lambda _options: Form((1, 28, 28), 10),
    )
)
DATASETS.add(
    Dataset(
        name="kmnist",
        summary="Handwritten Japanese characters, 28×28 grey, 10 classes: MNIST's shape, harder to read.",
        source="Clanuwat et al. 2018",
        formula="60,000 train (val_fraction of them for validation) + 10,000 test",
        locate=partial(_locate, "kmnist", "KMNIST"),
        form=lambda _options: Form((1, 28, 28), 10),
    )
)
