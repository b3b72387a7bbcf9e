"""Small archives in the format CIFAR is published in: pickles that Python 2 could have written."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

CLASSES = 5
"""Fewer than the real sets have: the number is read from the file."""


class Python2Pickler(pickle._Pickler):  # type: ignore[misc, name-defined]
    """Writes bytes as the text of Python 2, which Python 3's own pickler never does."""

    def save_bytes(self, value: bytes) -> None:
        if len(value) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(value)]) + value)
        else:
            self.write(pickle.BINSTRING + len(value).to_bytes(4, "little") + value)
        self.memoize(value)

    dispatch = {**pickle._Pickler.dispatch, bytes: save_bytes}  # type: ignore[attr-defined]  # noqa: RUF012


def python2(value: Any) -> bytes:
    """`value` pickled with protocol 2, text as bytes, under the names that NumPy 1 had."""
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def images(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def batch(name: str, count: int, seed: int, *, fine: bool) -> dict[bytes, Any]:
    labels = [(number + seed) % CLASSES for number in range(count)]
    own: dict[bytes, Any] = {b"fine_labels": labels, b"coarse_labels": [0] * count}
    return {
        b"filenames": [f"image_{number}.png".encode() for number in range(count)],
        b"batch_label": name.encode(),
        **(own if fine else {b"labels": labels}),
        b"data": images(count, seed),
    }


@dataclass
class Cifar:
    """One of the two sets, small: its class in torchvision and the files inside the archive."""

    name: str
    class_name: str
    folder: str
    packed: str
    files: dict[str, bytes]

    def archive(self, **changes: bytes | None) -> bytes:
        """Return the .tar.gz, with some members changed or (None) omitted."""
        return packed(self.folder, {**self.files, **changes})

    def publish(self, monkeypatch: pytest.MonkeyPatch, tar: bytes, mirror: str = "") -> None:
        """Make torchvision's class say that this is what was published, members as in `files`."""
        from torchvision import datasets

        known = getattr(datasets, self.class_name)

        def md5(file: str) -> str:
            return hashlib.md5(self.files[file]).hexdigest()

        monkeypatch.setattr(known, "tgz_md5", hashlib.md5(tar).hexdigest())
        monkeypatch.setattr(known, "url", f"{mirror or 'http://mirror.invalid/'}{self.packed}")
        for part in ("train_list", "test_list"):
            monkeypatch.setattr(known, part, [[file, md5(file)] for file, _ in getattr(known, part)])
        meta = known.meta["filename"]
        monkeypatch.setattr(known, "meta", {**known.meta, "md5": md5(meta)})


def packed(folder: str, files: Mapping[str, bytes | None]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            if content is not None:
                member = tarfile.TarInfo(f"{folder}/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def cifar10() -> Cifar:
    names = [b"airplane", b"automobile", b"bird", b"cat", b"deer"]
    files = {"batches.meta": python2({b"num_cases_per_batch": 12, b"label_names": names, b"num_vis": 3072})}
    for number in range(1, 6):
        name = f"training batch {number} of 5"
        files[f"data_batch_{number}"] = python2(batch(name, 12, number, fine=False))
    files["readme.html"] = b"<html></html>"
    files["test_batch"] = python2(batch("testing batch 1 of 1", 10, 6, fine=False))
    return Cifar("cifar10", "CIFAR10", "cifar-10-batches-py", "cifar-10-python.tar.gz", files)


def cifar100() -> Cifar:
    names = [b"apple", b"aquarium_fish", b"baby", b"bear", b"beaver"]
    files = {
        "meta": python2({b"fine_label_names": names, b"coarse_label_names": [b"all"]}),
        "test": python2(batch("testing batch 1 of 1", 10, 6, fine=True)),
        "train": python2(batch("training batch 1 of 1", 60, 1, fine=True)),
    }
    return Cifar("cifar100", "CIFAR100", "cifar-100-python", "cifar-100-python.tar.gz", files)
