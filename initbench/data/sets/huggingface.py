"""A data set that Hugging Face's `datasets` reads: a folder of files, or a data set of the Hub."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from initbench.components.target import TargetKind
from initbench.data.array_cache import cached_data, contents_digest, load_stored_data, store_data
from initbench.data.dataset import (
    DATASETS,
    Dataset,
    DataSource,
    LocatedDataset,
    RawData,
    UnavailableError,
)
from initbench.data.download.checksums import folder_checksum
from initbench.data.user_arrays import ArrayForm, array_form, raw_data
from initbench.data.user_files import ArrayOptions, find_user_path
from initbench.errors import DataError, InitbenchError
from initbench.optional_packages import import_optional
from initbench.paths import expand_user

_RECIPE = "huggingface/1"
"""Version of the code that turns columns into tensors."""
_SPLITS = {"train": "train", "test": "test", "validation": "val", "valid": "val", "dev": "val"}
"""Part of each split that is read."""
_FORMATS = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv", ".arrow": "arrow"}
_SAVED = ("dataset_info.json", "dataset_dict.json")
"""Files of a folder that `save_to_disk` wrote."""
_HUB_VARIABLES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")


class HuggingFaceOptions(ArrayOptions):
    """Options of a data set that `datasets` reads."""

    path: str = Field(min_length=1)
    """A folder, or the name of a data set of the Hub, such as `ylecun/mnist`.

    The folder was written by `save_to_disk`, or contains Parquet, JSON, CSV or Arrow files whose names begin
    with the split, as in `train.parquet`. It is relative to the config, the current folder or the data
    root. Data sets of the Hub are kept in the folder `huggingface` of the data root, where `--offline` finds
    them."""
    subset: str | None = Field(default=None, min_length=1)
    """Subset of a data set of the Hub that has several."""
    revision: str | None = Field(default=None, min_length=1)
    """Commit, tag or branch of a data set of the Hub; null for its newest version."""
    inputs: list[str] | None = Field(default=None, min_length=1)
    """Columns of the inputs; null for all but the target.

    A single column may contain images, lists or token ids. Several columns are numbers, one feature each."""
    target_column: str = Field(default="label", min_length=1)
    """Column of the targets. Texts are classes."""


def _locate(options: HuggingFaceOptions, source: DataSource) -> LocatedDataset:
    columns, form = (options.inputs, options.target_column), array_form(options)
    if not expand_user(options.path).is_dir() and not (source.root / expand_user(options.path)).is_dir():
        return _locate_on_hub(options, source, columns, form)
    folder = find_user_path(options.path, source.root, "the Hugging Face data set", kind="folder")
    files = tuple(sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"))
    fingerprint = folder_checksum(folder, files, recheck=source.recheck)
    recipe = f"{_RECIPE} {fingerprint} {columns} {form}"
    return LocatedDataset(
        name="huggingface",
        fingerprint=fingerprint,
        load=partial(cached_data, recipe, partial(_read_folder, folder, columns, form)),
        files=files,
    )


def _locate_on_hub(
    options: HuggingFaceOptions,
    source: DataSource,
    columns: tuple[Sequence[str] | None, str],
    form: ArrayForm,
) -> LocatedDataset:
    """Return a data set of the Hub, which is identified by its contents."""
    folder = source.root / "huggingface"
    key = repr((options.path, options.subset, options.revision, columns, form))
    if key not in source.returned:
        if source.offline:
            os.environ.update(dict.fromkeys(_HUB_VARIABLES, "1"))  # read when the packages are imported
        try:
            splits = _datasets().load_dataset(
                options.path, options.subset, revision=options.revision, cache_dir=str(folder)
            )
        except InitbenchError:
            raise
        except Exception as error:  # of the network, the Hub, and files of any kind
            raise UnavailableError(
                f"the data set {options.path!r} cannot be loaded",
                tried=[f"the folder {options.path}: does not exist", f"the Hub: {_first_line(error)}"],
                remedies=["set data.path to a folder, or to the name of a data set of the Hub"],
            ) from error
        raw = _raw_data(options.path, splits, columns, form)
        digest = contents_digest(raw)
        path = store_data(f"{_RECIPE} {digest}", raw)
        source.returned[key] = LocatedDataset(
            name="huggingface", fingerprint=digest, load=partial(load_stored_data, path)
        )
    return source.returned[key]


def _datasets() -> Any:
    datasets = import_optional("datasets", "Hugging Face data sets", "hf")
    datasets.disable_progress_bars()
    return datasets


def _read_folder(folder: Path, columns: tuple[Sequence[str] | None, str], form: ArrayForm) -> RawData:
    datasets = _datasets()
    try:
        if any((folder / name).is_file() for name in _SAVED):
            splits = datasets.load_from_disk(str(folder))
            return _raw_data(str(folder), splits, columns, form)
        with tempfile.TemporaryDirectory() as cache:
            splits = _splits_of_files(datasets, folder, cache)
            return _raw_data(str(folder), splits, columns, form)
    except InitbenchError:
        raise
    except Exception as error:  # datasets, pyarrow and Pillow raise dozens of kinds for damaged files
        raise DataError(f"{folder} cannot be read as a data set: {_first_line(error)}") from error


def _splits_of_files(datasets: Any, folder: Path, cache: str) -> dict[str, Any]:
    """Return the splits of a folder, each from the files whose names begin with it.

    Files with other names are training samples.
    """
    by_suffix: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in _FORMATS and not path.name.startswith("."):
            by_suffix.setdefault(_FORMATS[path.suffix], []).append(path)
    if len(by_suffix) != 1:
        kinds = ", ".join(sorted(by_suffix)) or "none of these"
        raise DataError(f"{folder} must contain Parquet, JSON, CSV or Arrow files of one kind; found {kinds}")
    ((kind, paths),) = by_suffix.items()
    by_split: dict[str, list[str]] = {}
    for path in paths:
        split = next((split for split in _SPLITS if path.stem.lower().startswith(split)), "train")
        by_split.setdefault(split, []).append(str(path))
    reader = getattr(datasets.Dataset, f"from_{kind}", None)
    if reader is None:  # Arrow files
        return {
            split: datasets.concatenate_datasets([datasets.Dataset.from_file(name) for name in names])
            for split, names in by_split.items()
        }
    return {split: reader(names, cache_dir=cache, keep_in_memory=True) for split, names in by_split.items()}


def _raw_data(
    subject: str, splits: Any, columns: tuple[Sequence[str] | None, str], form: ArrayForm
) -> RawData:
    """Return the splits as tensors; `subject` begins the messages."""
    parts = dict(splits) if isinstance(splits, Mapping) else {"train": splits}
    if "train" not in parts:
        raise DataError(f"{subject} has no split train; it has {', '.join(parts) or 'no splits'}")
    try:
        arrays: dict[str, NDArray[Any]] = {}
        names = _class_names(parts["train"], columns[1], form)
        for split, part in parts.items():
            if split in _SPLITS:
                arrays.update(_arrays(part, _SPLITS[split], columns, names))
        raw = raw_data(arrays, form)
    except DataError as error:
        raise DataError(f"{subject}: {error}") from None
    return replace(raw, class_names=names) if names else raw


def _class_names(part: Any, target: str, form: ArrayForm) -> tuple[str, ...] | None:
    """Return the names of the classes, if the targets have names or are texts."""
    if target not in part.column_names:
        raise DataError(
            f"there is no column {target!r} (data.target_column); it has {', '.join(part.column_names)}"
        )
    names = getattr(part.features[target], "names", None)
    if names is not None:
        return tuple(map(str, names))
    is_text = form.target is TargetKind.CLASSES and len(part) and isinstance(part[0][target], str)
    return tuple(sorted(set(map(str, part[target])))) if is_text else None


def _arrays(
    part: Any, name: str, columns: tuple[Sequence[str] | None, str], names: Sequence[str] | None
) -> Iterator[tuple[str, NDArray[Any]]]:
    inputs, target = columns
    inputs = [column for column in part.column_names if column != target] if inputs is None else inputs
    for column in (*inputs, target):
        if column not in part.column_names:
            raise DataError(f"there is no column {column!r}; the data set has {', '.join(part.column_names)}")
    if not inputs:
        raise DataError(f"there is no column of inputs; the data set has {', '.join(part.column_names)}")
    x = [_column(part, column) for column in inputs]
    if len(x) > 1:
        for column, array in zip(inputs, x, strict=True):
            if array.ndim != 1 or array.dtype.kind not in "biuf":
                raise DataError(
                    f"of several columns of inputs, each must contain numbers: name one in data.inputs;"
                    f" found {array.dtype} {array.shape} in {column!r}"
                )
        yield f"x_{name}", np.stack(x, axis=1).astype(np.float32)
    else:
        is_feature = x[0].ndim == 1 and x[0].dtype.kind in "biuf"
        yield f"x_{name}", x[0].astype(np.float32)[:, None] if is_feature else x[0]
    y = _column(part, target)
    if names and y.dtype.kind == "U":
        numbers = {label: index for index, label in enumerate(names)}
        if unknown := [label for label in y.tolist() if label not in numbers]:
            raise DataError(f"class {unknown[0]!r} of the {name} part has no training samples")
        y = np.asarray([numbers[label] for label in y.tolist()], dtype=np.int64)
    yield f"y_{name}", y


def _column(part: Any, column: str) -> NDArray[Any]:
    """Return a column as an array; images as uint8 (N, H, W) or (N, H, W, 3)."""
    values = part[column][:]
    if values and hasattr(values[0], "convert"):
        are_grey = all(image.mode in ("1", "L") for image in values)
        values = [np.asarray(image.convert("L" if are_grey else "RGB")) for image in values]
    if any(value is None for value in values):
        raise DataError(f"column {column!r} has missing values")
    try:
        array = np.asarray(values)
    except ValueError:
        array = np.asarray([None])
    if array.dtype.kind not in "biufU":
        raise DataError(f"the values of column {column!r} must be numbers, texts or lists of the same length")
    if array.dtype.kind == "U" and array.ndim != 1:
        raise DataError(f"the values of column {column!r} must be numbers, texts or lists of numbers")
    return array


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines and lines[0] else type(error).__name__


DATASETS.add(
    Dataset(
        name="huggingface",
        aliases=("hf", "datasets"),
        summary="A data set that Hugging Face's datasets reads, from a folder or the Hub (extra hf).",
        source="the user",
        formula="its splits train, test and validation; or by test_fraction and val_fraction",
        options=HuggingFaceOptions,
        locate=_locate,
    )
)
