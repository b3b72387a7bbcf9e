"""Conversion of the user's arrays to a data set, with checks for likely mistakes.

Legend: N samples, C channels, H × W pixels, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from initbench.components.target import TargetKind
from initbench.data.dataset import RawData
from initbench.data.raw_checks import check_targets
from initbench.data.split import random_split, stratified_split
from initbench.data.user_files import ArrayOptions
from initbench.errors import DataError
from initbench.rng import stream_generator

_SPLIT_SEED = 0

_MIN_JUDGED = 10
"""Minimum number of training samples for which rare classes indicate a mistake."""
_MAX_NAMED = 5
_MAX_CLASSES = 1_000_000
_MAX_PIXEL = 255
_CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class ArrayForm:
    """Kind and sizes of arrays, as the user states them."""

    target: TargetKind = TargetKind.CLASSES
    """Kind of the targets."""
    vocabulary: int | None = None
    """Number of token ids, if the inputs are token ids."""
    labels: tuple[int, ...] | None = None
    """Labels of `data.classes`, which may leave gaps; None if all are used."""
    test_fraction: float = 0.2
    """Share of the training samples that is held out if there are no test arrays."""


def array_form(options: ArrayOptions) -> ArrayForm:
    """Return what the options state about the arrays, in a form that can be pickled."""
    labels = None if options.classes is None else tuple(options.classes)
    kind = TargetKind(options.target_kind)
    return ArrayForm(kind, options.vocabulary, labels, options.test_fraction)


def raw_data(arrays: Mapping[str, NDArray[Any]], form: ArrayForm) -> RawData:
    """Return the user's arrays as a data set.

    Args:
        arrays: x_train, y_train, and optionally x_test, y_test, x_val, y_val: features (N, D), grey images
            (N, H, W) or images (N, H, W, C), uint8 or float, or token ids (N, T); targets of N samples.
        form: The kind of the targets and the size of the vocabulary.

    Raises:
        DataError: If an array is not of this form, or looks like a mistake; the message says what was found.
    """
    y = {key: _targets(key, array, form.target) for key, array in arrays.items() if key.startswith("y_")}
    x = {key: _inputs(key, array, form) for key, array in arrays.items() if key.startswith("x_")}
    for part in (key.removeprefix("x_") for key in x):
        _check_together(part, x["x_train"], x[f"x_{part}"], y[f"y_{part}"])
    classes = int(max(targets.max() for targets in y.values())) + 1 if form.target.is_class_index else 0
    if form.target is TargetKind.SEQUENCE:
        classes = max(classes, form.vocabulary or 0)
    for key, targets in y.items():
        check_targets(key, targets, form.target, classes)
    if classes == 1:
        raise DataError(f"{' and '.join(y)} contain one class only; at least two are needed")
    if "x_test" not in x:
        train, test = hold_out(y["y_train"], form.test_fraction, form.target)
        x |= {"x_train": x["x_train"][train], "x_test": x["x_train"][test]}
        y |= {"y_train": y["y_train"][train], "y_test": y["y_train"][test]}
    if form.target is TargetKind.CLASSES:
        _check_labels(y["y_train"], y["y_test"], form.labels)
    _check_inputs("x_train", x["x_train"])
    return RawData(
        x_train=x["x_train"],
        y_train=y["y_train"],
        x_test=x["x_test"],
        y_test=y["y_test"],
        x_val=x.get("x_val"),
        y_val=y.get("y_val"),
        classes=classes,
        target=form.target,
        vocabulary=form.vocabulary,
    )


def hold_out(y: Tensor, fraction: float, kind: TargetKind) -> list[Tensor]:
    """Return the sorted indices of training and test samples with targets y (N, …), stratified by class.

    Raises:
        DataError: If one of the parts would be empty.
    """
    count = max(1, round(len(y) * fraction))
    if count >= len(y):
        raise DataError(f"{len(y):,} samples cannot be split with data.test_fraction={fraction:g}")
    stream, sizes = stream_generator(_SPLIT_SEED, "data", "test"), [len(y) - count, count]
    is_stratified = kind is TargetKind.CLASSES
    return stratified_split(y, sizes, stream) if is_stratified else random_split(len(y), sizes, stream)


def _targets(key: str, array: NDArray[Any], kind: TargetKind) -> Tensor:
    """Return targets as int64 or float32; their values and shapes are checked later."""
    if kind is TargetKind.CLASSES:
        return _class_labels(key, array)
    if array.dtype.kind not in ("iu" if kind.is_class_index else "biuf") or not array.size:
        expected = "integers" if kind.is_class_index else "numbers"
        raise DataError(f"{key} must contain {expected}, at least one; found {array.dtype} {array.shape}")
    if kind.is_class_index:
        if int(array.max()) >= _MAX_CLASSES:
            raise DataError(f"{key} must contain class numbers 0 … classes−1, found {int(array.max())}")
        return torch.from_numpy(array.astype(np.int64))
    with np.errstate(over="ignore"):  # infinite values are reported later
        y = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    return y.permute(0, 3, 1, 2).contiguous() if y.dim() == 4 else y


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


def _inputs(key: str, array: NDArray[Any], form: ArrayForm) -> Tensor:
    """Return inputs as (N, D) or (N, C, H, W), uint8 or float32, or token ids as (N, T) int64."""
    if form.vocabulary is not None:
        return _token_ids(key, array, form.vocabulary)
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


def _token_ids(key: str, array: NDArray[Any], vocabulary: int) -> Tensor:
    if array.dtype.kind not in "iu" or array.ndim != 2 or not array.size:
        raise DataError(f"{key} must be token ids, integers (N, T), found {array.dtype} {array.shape}")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= vocabulary:
        raise DataError(f"{key} must contain token ids 0 … {vocabulary - 1:,}, found {low:,} … {high:,}")
    return torch.from_numpy(array.astype(np.int64))


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
    is_float = array.dtype.kind == "f" and array.ndim == 1
    if is_float and not np.array_equal(array, np.round(array)):
        return ": for regression, set data.target_kind=real"
    return ": save y.astype(int)" if is_float or array.dtype.kind == "b" else ""


def _inputs_advice(array: NDArray[Any]) -> str:
    """Return advice for inputs that are neither uint8 nor float, to append to a message; empty if none."""
    if array.dtype.kind == "b":
        return ": save x.astype('float32')"
    if array.dtype.kind not in "iu" or not array.size:
        return ""
    lowest, highest = int(array.min()), int(array.max())
    numbers = "save x.astype('float32') if they are numbers"
    tokens = "set data.vocabulary if they are token ids"
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
