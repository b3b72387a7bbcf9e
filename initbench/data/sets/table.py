"""The user's own table: features and a target in the columns of a CSV, TSV or Parquet file."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from initbench.components.target import TargetKind
from initbench.data.array_cache import cached_data
from initbench.data.dataset import DATASETS, Dataset, DataSource, LocatedDataset, RawData
from initbench.data.download.checksums import checksum
from initbench.data.table_file import SUFFIXES, TableReader, TypedColumn
from initbench.data.user_arrays import hold_out
from initbench.data.user_files import HeldOutOptions, find_user_path
from initbench.errors import DataError
from initbench.machine import require_memory

_RECIPE = "table/1"
"""Version of the code that turns files into tensors."""
_MAX_CATEGORIES = 1000


class TableOptions(HeldOutOptions):
    """Options of a table."""

    path: str = Field(min_length=1)
    """Path of the file, whose suffix tells its format: `.csv`, `.tsv` or `.parquet` (extra `table`).

    Its first line names the columns. Relative to the config, the current folder or the data root."""
    test_path: str | None = Field(default=None, min_length=1)
    """Path of a file with test samples and the same columns; null to keep `test_fraction` of the rows."""
    target: str | None = Field(default=None, min_length=1)
    """Column to predict; null for the last one."""
    target_kind: Literal["auto", "classes", "real"] = "auto"
    """Kind of the target: `classes`, or `real` numbers for regression.

    `auto` means `real` for numbers of which some are written with a fraction (or stored as floats), and
    otherwise classes, which are numbered in the order of their values."""
    features: list[str] | None = Field(default=None, min_length=1)
    """Columns of the inputs; null for all but the target.

    A column of numbers is one feature. A column of texts is a category, with one feature of 0 or 1 for each
    of its values."""
    categories: list[str] = Field(default=[])
    """Columns of numbers that are categories, such as postal codes."""
    normalize: Literal["global", "per_feature", "none"] = "per_feature"
    """Subtract the mean and divide by the standard deviation of the training split.

    `global` uses one mean and standard deviation for all values, `per_feature` one for each feature."""


@dataclass(frozen=True)
class ColumnRoles:
    """Names of the columns that a data set uses."""

    features: tuple[str, ...]
    target: str
    categories: tuple[str, ...]
    kind: str
    """Kind of the target: auto, classes or real."""

    @property
    def all(self) -> list[str]:
        """Names of all columns, the target last."""
        return [*self.features, self.target]


def _locate(options: TableOptions, source: DataSource) -> LocatedDataset:
    names = {"data.path": options.path, "data.test_path": options.test_path}
    files = [
        _table_file(find_user_path(name, source.root, "the table", key=key))
        for key, name in names.items()
        if name is not None
    ]
    contents = [
        f"{checksum(file.path, 'sha256', recheck=source.recheck)}{file.path.suffix}" for file in files
    ]
    fingerprint = hashlib.sha256(" ".join(contents).encode()).hexdigest()
    return LocatedDataset(
        name="table",
        fingerprint=fingerprint,
        load=partial(
            _load,
            fingerprint,
            files,
            options.target,
            None if options.features is None else tuple(options.features),
            tuple(options.categories),
            options.target_kind,
            options.test_fraction,
        ),
        files=tuple(file.path for file in files),
    )


def _table_file(path: Path) -> TableReader:
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path} is not a table: its name must end in {', '.join(SUFFIXES)}")
    return TableReader(path)


def _load(
    fingerprint: str,
    files: Sequence[TableReader],
    target: str | None,
    features: tuple[str, ...] | None,
    categories: tuple[str, ...],
    kind: str,
    test_fraction: float,
) -> RawData:
    recipe = f"{_RECIPE} {fingerprint} {target!r} {features!r} {categories!r} {kind} test={test_fraction}"
    columns = _columns(files[0], target, features, categories, kind)
    return cached_data(recipe, partial(read_tables, files, columns, test_fraction))


def _columns(
    file: TableReader,
    target: str | None,
    features: tuple[str, ...] | None,
    categories: tuple[str, ...],
    kind: str,
) -> ColumnRoles:
    """Return the columns to use; raise DataError if they contradict each other."""
    names = file.column_names()
    target = names[-1] if target is None else target
    features = tuple(name for name in names if name != target) if features is None else features
    if target in features:
        raise DataError(f"{file.path}: data.features lists the target {target!r}")
    if not features:
        raise DataError(f"{file.path} has only the column {target!r}; at least one feature is needed")
    if unused := [name for name in categories if name not in (*features, target)]:
        raise DataError(f"{file.path}: data.categories lists {unused[0]!r}, which is not a feature")
    return ColumnRoles(features, target, categories, kind)


def read_tables(files: Sequence[TableReader], columns: ColumnRoles, test_fraction: float) -> RawData:
    """Read one file, or one of training and one of test samples.

    Args:
        files: The files.
        columns: The columns to use.
        test_fraction: Share of the rows that becomes the test part if there is one file.

    Raises:
        DataError: If a file is not a table of complete rows, or a column cannot be used.
    """
    tables = [file.read(columns.all, columns.categories) for file in files]
    rows = [len(table[0].values) for table in tables]
    encoded: list[NDArray[np.float32]] = []
    for index, name in enumerate(columns.features):
        encoded += _encode_feature(name, [table[index] for table in tables], files)
    purpose = f"the table {files[0].path} with {len(encoded):,} features"
    require_memory(4.0 * sum(rows) * len(encoded), purpose, "list fewer columns under data.features")
    x = torch.from_numpy(np.stack(encoded, axis=1))
    targets = [table[-1] for table in tables]
    names: tuple[str, ...] = ()
    _check_types(columns.target, targets, files)
    kind = _target_kind(columns.kind, targets, files)
    if kind is TargetKind.CLASSES:
        y, names = _encode_classes(targets, files)
    else:
        y = torch.from_numpy(np.concatenate([target.values for target in targets]).astype(np.float32))
    if len(files) == 1:
        train, test = hold_out(y, test_fraction, kind)
    else:
        train, test = torch.split(torch.arange(sum(rows)), rows)
    return RawData(
        x_train=x[train],
        y_train=y[train],
        x_test=x[test],
        y_test=y[test],
        classes=len(names),
        target=kind,
        class_names=names or None,
    )


def _target_kind(stated: str, targets: Sequence[TypedColumn], files: Sequence[TableReader]) -> TargetKind:
    """Return the kind of the target: the stated one, or for `auto` real values if it has fractions."""
    if stated == "real" and targets[0].is_text:
        name = targets[0].name
        raise DataError(f"{files[0].path}: the target {name} has texts, so data.target_kind cannot be real")
    is_real = stated == "real" or (stated == "auto" and not (targets[0].is_text or targets[0].is_integer))
    return TargetKind.REAL if is_real else TargetKind.CLASSES


def _encode_feature(
    name: str, columns: Sequence[TypedColumn], files: Sequence[TableReader]
) -> list[NDArray[np.float32]]:
    """Return the features (N,) of one column of all files, N rows: itself, or one per category."""
    _check_types(name, columns, files)
    if not columns[0].is_text:
        return [np.concatenate([column.values for column in columns]).astype(np.float32)]
    codes, values = _codes(name, columns, files)
    limit = max(2, min(_MAX_CATEGORIES, len(codes) // 2))
    if len(values) > limit:
        raise DataError(
            f"{files[0].path}: {name}: {len(values):,} different texts in {len(codes):,} rows are too many"
            f" categories (at most {limit:,}); leave the column out of data.features"
        )
    return [(codes == code).astype(np.float32) for code in range(len(values))]


def _encode_classes(
    columns: Sequence[TypedColumn], files: Sequence[TableReader]
) -> tuple[Tensor, tuple[str, ...]]:
    """Return the class numbers (N,) of the target, and the sorted names of the classes."""
    name = columns[0].name
    codes, values = _codes(name, columns, files)
    if len(values) < 2:
        raise DataError(
            f"{files[0].path}: the target {name} is {values[0]} everywhere; two classes are needed"
        )
    counts = Counter(codes[: len(columns[0].values)].tolist())
    if single := [value for code, value in enumerate(values) if counts[code] == 1]:
        raise DataError(
            f"{files[0].path}: the target {name} has {len(single):,} of {len(values):,} classes with one row"
            f" ({single[0]}): each class needs at least two"
        )
    names = [value.removesuffix(".0") for value in values] if columns[0].is_integer else values
    return torch.from_numpy(codes), tuple(names)


def _check_types(name: str, columns: Sequence[TypedColumn], files: Sequence[TableReader]) -> None:
    if len({column.is_text for column in columns}) > 1:
        kinds = [
            f"{'texts' if column.is_text else 'numbers'} in {file.path}"
            for column, file in zip(columns, files, strict=True)
        ]
        raise DataError(f"the column {name} has {' and '.join(kinds)}")


def _codes(
    name: str, columns: Sequence[TypedColumn], files: Sequence[TableReader]
) -> tuple[NDArray[np.int64], list[str]]:
    """Return the index of each value (N,) among the sorted values of the first file, and these values."""
    values, codes = np.unique(columns[0].values, return_inverse=True)
    parts = [codes.astype(np.int64)]
    for column, file in zip(columns[1:], files[1:], strict=True):
        unknown = np.nonzero(~np.isin(column.values, values))[0]
        if len(unknown):
            value, row = column.values[unknown[0]], int(unknown[0]) + 1
            raise DataError(f"{file.path}: row {row:,}: {name}: {value} does not occur in {files[0].path}")
        parts.append(np.searchsorted(values, column.values).astype(np.int64))
    return np.concatenate(parts), [str(value) for value in values]


DATASETS.add(
    Dataset(
        name="table",
        aliases=("csv", "tsv", "parquet", "tabular"),
        summary="Your own table of features and a target: a CSV, TSV or Parquet file.",
        source="the user",
        formula="a file of its own for testing or test_fraction of the rows; val_fraction for validation",
        options=TableOptions,
        locate=_locate,
    )
)
