"""Conversion of the user's arrays to a data set, with checks for likely mistakes.

Legend: N samples, C channels, H × W pixels, D features or values, T positions, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from initbench.components.target import TargetKind
from initbench.data.dataset import RawData
from initbench.data.raw_checks import check_targets
from initbench.data.split import random_split, stratified_split
from initbench.errors import DataError
from initbench.rng import stream_generator

_SPLIT_SEED = 0

_MIN_JUDGED = 10
"""Minimum number of training samples for which rare classes indicate a mistake."""
_MAX_NAMED = 5
_MAX_CLASSES = 1_000_000
_MAX_PIXEL = 255
_CHANNELS = (1, 3, 4)


def raw_data(
    arrays: Mapping[str, NDArray[Any]],
    labels: Sequence[int] | None = None,
    test_fraction: float | None = None,
    target: TargetKind | None = None,
) -> RawData:
    """Return the user's arrays as a data set.

    Args:
        arrays: x_train, y_train, x_test, y_test, and optionally x_val, y_val: features (N, D), grey images
            (N, H, W) or images (N, H, W, C), uint8 or float, or token ids (N, T) for targets (N, T); targets
            of any TargetKind.
        labels: The labels of `data.classes`, which may leave gaps; None if all are used.
        test_fraction: Share of the training samples that is held out if there are no test arrays.
        target: Kind of the targets; None to infer it, see `infer_target`.

    Raises:
        DataError: If an array is not of this form, or looks like a mistake; the message says what was found.
    """
    y_arrays = {key: array for key, array in arrays.items() if key.startswith("y_")}
    x_arrays = {key: array for key, array in arrays.items() if key.startswith("x_")}
    if target is None:
        target = infer_target(y_arrays)
    y = {key: _targets(key, array, target) for key, array in y_arrays.items()}
    vocabulary = _vocabulary(x_arrays, y) if target is TargetKind.SEQUENCE else None
    x = {
        key: _inputs(key, array) if vocabulary is None else torch.from_numpy(array.astype(np.int64))
        for key, array in x_arrays.items()
    }
    for part in (key.removeprefix("x_") for key in x):
        _check_together(part, x["x_train"], x[f"x_{part}"], y[f"y_{part}"])
    classes = int(max(labels.max() for labels in y.values())) + 1 if target.is_class_index else 0
    if classes == 1:
        raise DataError(f"{' and '.join(y)} contain one class only; at least two are needed")
    if "x_test" not in x:
        assert test_fraction is not None
        train, test = hold_out(y["y_train"], test_fraction)
        x |= {"x_train": x["x_train"][train], "x_test": x["x_train"][test]}
        y |= {"y_train": y["y_train"][train], "y_test": y["y_train"][test]}
    if target is TargetKind.CLASSES:
        _check_labels(y["y_train"], y["y_test"], labels)
    _check_inputs("x_train", x["x_train"])
    return RawData(
        x_train=x["x_train"],
        y_train=y["y_train"],
        x_test=x["x_test"],
        y_test=y["y_test"],
        x_val=x.get("x_val"),
        y_val=y.get("y_val"),
        classes=max(classes, vocabulary or 0),
        target=target,
        vocabulary=vocabulary,
    )


def infer_target(arrays: Mapping[str, NDArray[Any]]) -> TargetKind:
    """Return the kind of targets, given all arrays of them by name.

    Integers (N,) are class labels. Targets with more axes that are only 0 and 1 are labels or masks. Other
    integers (N, T) are sequences of class indices, and integers (N, H, W) class indices of pixels. Other
    floating-point numbers are real values.

    Raises:
        DataError: If the targets look like a mistake.
    """
    key, first = next(iter(arrays.items()))
    if not all(
        array.dtype.kind in "biuf" and array.size and array.ndim == first.ndim for array in arrays.values()
    ):
        return TargetKind.CLASSES  # whose check says what is wrong
    if first.ndim > 1 and first.shape[1] > 1 and all(map(_is_zero_or_one, arrays.values())):
        if first.ndim == 2 and all(bool((array.sum(1) == 1).all()) for array in arrays.values()):
            raise DataError(
                f"{key} has one 1 in each row: save y.argmax(axis=1) for classes, or set data.targets=labels"
            )
        return TargetKind.LABELS
    if first.dtype.kind == "f" and first.ndim == 1 and all(map(_is_whole, arrays.values())):
        raise DataError(
            f"{key} contains whole numbers as {first.dtype}: save y.astype(int) for classes, or set"
            " data.targets=real"
        )
    if first.dtype.kind == "f":
        return TargetKind.REAL
    if first.ndim == 2 and first.shape[1] > 1:
        return TargetKind.SEQUENCE
    return TargetKind.DENSE if first.ndim == 3 else TargetKind.CLASSES


def _is_zero_or_one(array: NDArray[Any]) -> bool:
    return bool(((array == 0) | (array == 1)).all())


def _is_whole(array: NDArray[Any]) -> bool:
    return bool(np.array_equal(array, np.round(array)))


def _targets(key: str, array: NDArray[Any], target: TargetKind) -> Tensor:
    """Return targets in the dtype of their kind."""
    if target is TargetKind.CLASSES:
        return _class_labels(key, array)
    kinds = "iu" if target.is_class_index else "biuf"
    if array.dtype.kind not in kinds:
        words = "integers" if target.is_class_index else "numbers"
        raise DataError(f"{key} contains {target.phrase} and must have {words}, found {array.dtype}")
    with np.errstate(over="ignore"):  # values too large for float32 become infinite and are reported below
        y = torch.from_numpy(array.astype(np.int64 if target.is_class_index else np.float32))
    check_targets(key, y, target, _MAX_CLASSES)
    return y


def _vocabulary(x: Mapping[str, NDArray[Any]], y: Mapping[str, Tensor]) -> int | None:
    """Return the number of token ids if the inputs are integers in the shape of sequences, else None."""
    for key, array in x.items():
        if array.dtype.kind not in "iu" or array.shape != tuple(y[f"y_{key.removeprefix('x_')}"].shape):
            return None
    return 1 + max(*(int(array.max()) for array in x.values()), *(int(labels.max()) for labels in y.values()))


def hold_out(y: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
    """Return the sorted indices of training and test samples with targets y (N, …).

    The split is stratified by class labels y (N,) int64.

    Raises:
        DataError: If one of the parts would be empty.
    """
    count = max(1, round(len(y) * fraction))
    if count >= len(y):
        raise DataError(f"{len(y):,} samples cannot be split with data.test_fraction={fraction:g}")
    stream = stream_generator(_SPLIT_SEED, "data", "test")
    sizes = [len(y) - count, count]
    if y.dim() == 1 and not y.is_floating_point():
        train, test = stratified_split(y, sizes, stream)
    else:
        train, test = random_split(len(y), sizes, stream)
    return train, test


def _class_labels(key: str, array: NDArray[Any]) -> Tensor:
    if array.dtype.kind not in "iu":
        raise DataError(f"{key} must contain integers, found {array.dtype}{_labels_advice(array)}")
    if array.ndim != 1 or not array.size:
        raise DataError(
            f"{key} must have the shape (N,) with N ≥ 1, found {array.shape}{_labels_advice(array)}"
        )
    least, most = int(array.min()), int(array.max())
    if least < 0 or most >= _MAX_CLASSES:
        raise DataError(f"{key} must contain class numbers 0 … classes−1, found {least} … {most}")
    return torch.from_numpy(array.astype(np.int64))


def _inputs(key: str, array: NDArray[Any]) -> Tensor:
    """Return inputs as (N, D) or (N, C, H, W); uint8 unchanged, any float as float32."""
    if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
        raise DataError(f"{key} must be uint8 or float, found {array.dtype}{_inputs_advice(array)}")
    if array.ndim not in (2, 3, 4) or not array.size:
        raise DataError(f"{key} must be (N, D), (N, H, W) or (N, H, W, C), not empty, found {array.shape}")
    _check_layout(key, array.shape)
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4:
        array = array.transpose(0, 3, 1, 2)
    if array.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(array))
    with np.errstate(over="ignore"):  # values too large for float32 become infinite and are reported below
        x = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    broken = int((~x.isfinite()).sum())
    if broken:
        raise DataError(f"{key} must be finite in float32, found {broken:,} values that are NaN or infinite")
    return x


def _check_together(part: str, x_train: Tensor, x: Tensor, y: Tensor) -> None:
    """Raise DataError unless x and y of this part have the same length, and samples like those of x_train."""
    if len(x) != len(y):
        raise DataError(f"x_{part} and y_{part} must have the same length, found {len(x):,} and {len(y):,}")
    if x_train.shape[1:] != x.shape[1:]:
        shapes = f"{tuple(x_train.shape[1:])} and {tuple(x.shape[1:])}"
        raise DataError(f"x_train and x_{part} must have samples of the same shape, found {shapes}")
    if x_train.dtype != x.dtype:
        raise DataError(f"x_train and x_{part} must both be uint8 or both float: uint8 is scaled to [0, 1]")


def _labels_advice(array: NDArray[Any]) -> str:
    """Return advice for labels that are not integers (N,), to append to a message; empty if there is none."""
    if array.ndim == 2:
        return ": save y.ravel()" if array.shape[1] == 1 else ": if a row is one-hot, save y.argmax(axis=1)"
    if array.dtype.kind in "US":
        return ": number the classes, as numpy.unique(y, return_inverse=True)[1] does"
    return ": save y.astype(int)" if array.dtype.kind in "bf" and array.ndim == 1 else ""


def _inputs_advice(array: NDArray[Any]) -> str:
    """Return advice for inputs that are neither uint8 nor float, to append to a message; empty if none."""
    if array.dtype.kind == "b":
        return ": save x.astype('float32')"
    if array.dtype.kind not in "iu" or not array.size:
        return ""
    lowest, highest = int(array.min()), int(array.max())
    numbers = "save x.astype('float32') if they are numbers"
    tokens = "token ids need targets of the same shape (N, T)"
    if array.ndim > 2 and lowest >= 0 and highest <= _MAX_PIXEL:
        return f" in {lowest} … {highest}: save x.astype('uint8') if they are pixels"
    return f" in {lowest:,} … {highest:,}: {numbers}; {tokens}"


def _check_layout(key: str, shape: Sequence[int]) -> None:
    """Raise DataError for images (N, C, H, W), as (N, H, W, C) is expected.

    If neither the second nor the last axis is 1, 3 or 4, the array counts as (N, C, H, W) if its last two
    axes are equal and differ from the second.
    """
    if len(shape) != 4 or shape[3] in _CHANNELS:
        return
    if shape[1] in _CHANNELS or (shape[2] == shape[3] != shape[1]):
        raise DataError(
            f"{key} must have its channels last, (N, H, W, C), found {tuple(shape)}:"
            " save x.transpose(0, 2, 3, 1)"
        )


def _check_labels(y_train: Tensor, y_test: Tensor, labels: Sequence[int] | None) -> None:
    """Raise DataError for class numbers with gaps, or nearly as many classes as samples.

    Args:
        y_train: (N,) int64, from 0.
        y_test: (N,) int64, from 0.
        labels: The labels of `data.classes`, which may leave gaps; None if all are used.
    """
    if labels is not None:
        return
    present = torch.unique(y_train)
    classes = int(max(y_train.max(), y_test.max())) + 1
    if len(y_train) >= _MIN_JUDGED and 2 * len(present) > len(y_train):
        raise DataError(
            f"y_train has {len(present):,} different labels among {len(y_train):,} samples: these look like"
            " regression targets or sample numbers, not classes; each class needs several samples"
        )
    if len(present) == classes:
        return
    absent = sorted(set(range(classes)) - set(present.tolist()))
    absent_text = ", ".join(map(str, absent[:_MAX_NAMED])) + (", …" if len(absent) > _MAX_NAMED else "")
    if absent == [0]:
        advice = "class numbers count from 0: save y - 1"
    elif set(torch.unique(y_test).tolist()) & set(absent):
        advice = "y_test has samples of classes that cannot be learned"
    else:
        advice = "number the classes 0, 1, … without gaps, or choose them with data.classes"
    raise DataError(
        f"y_train has no sample of {len(absent):,} of {classes:,} classes ({absent_text}): {advice}"
    )


def _check_inputs(key: str, x: Tensor) -> None:
    """Raise DataError if all samples of x (N, …) are equal, so that they cannot be distinguished."""
    if len(x) < 2 or bool((x[1:] != x[:1]).any()):
        return
    first = x[0].flatten()
    is_constant = bool((first == first[0]).all())
    what = f"is {float(first[0]):g} everywhere" if is_constant else f"has {len(x):,} times the same sample"
    raise DataError(f"{key} {what}: its classes cannot be distinguished")
