"""Scans of handwritten digits bundled with scikit-learn: real data without a download."""

from __future__ import annotations

import hashlib
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from initbench.components.target import SampleShape
from initbench.data.dataset import (
    DATASETS,
    DataOptions,
    Dataset,
    DataSource,
    LocatedDataset,
    RawData,
)
from initbench.data.split import stratified_split
from initbench.rng import stream_generator

_SIZES = (1077, 360, 360)
_SPLIT_SEED = 0


def bundled_csv() -> Path | None:
    """Return the file inside scikit-learn, found without importing it (0.9 s), or None if there is none."""
    spec = find_spec("sklearn")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    return path if path.is_file() else None


@cache
def read_scans(csv: Path | None) -> NDArray[np.uint8]:
    """Return the scans as (1797, 65) uint8: 64 values from 0 to 16, row by row, then the label.

    The file is read once per process, however many experiments of a sweep use it.
    """
    if csv is not None:
        return np.loadtxt(csv, delimiter=",", dtype=np.uint8)
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.column_stack([digits.data, digits.target]).astype(np.uint8)


def _locate(_options: DataOptions, _source: DataSource) -> LocatedDataset:
    csv = bundled_csv()
    table = read_scans(csv)
    return LocatedDataset(
        name="digits",
        fingerprint=hashlib.sha256(table.tobytes()).hexdigest(),
        load=partial(_split, table),
        files=(csv,) if csv is not None else (),
    )


def _split(table: NDArray[np.uint8]) -> RawData:
    """Split the scans; x: (N, 1, 8, 8) float32, 0 … 1 (the scans contain counts up to 16)."""
    x = torch.from_numpy(table[:, :-1].astype(np.float32)).view(-1, 1, 8, 8) / 16
    y = torch.from_numpy(table[:, -1].astype(np.int64))
    train, val, test = stratified_split(y, _SIZES, stream_generator(_SPLIT_SEED, "data", "digits"))
    return RawData(
        x_train=x[train],
        y_train=y[train],
        x_val=x[val],
        y_val=y[val],
        x_test=x[test],
        y_test=y[test],
        classes=10,
    )


DATASETS.add(
    Dataset(
        name="digits",
        aliases=("sklearn_digits", "load_digits"),
        summary="1,797 scanned handwritten digits, 8×8 grey, 10 classes, bundled: the offline default.",
        source="Alpaydin and Kaynak 1998 (UCI), the test part, as bundled with scikit-learn",
        formula="1,077 train, 360 validation, 360 test, stratified with a fixed seed",
        locate=_locate,
        form=lambda _options: SampleShape((1, 8, 8), 10),
    )
)
