"""Checks of a loaded data set: that its tensors have the declared form, and that the options apply to it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from initbench.components.target import SampleShape, TargetKind
from initbench.data.dataset import DataOptions, RawData
from initbench.errors import DataError

_RANKS: Mapping[TargetKind, tuple[tuple[int, ...], str]] = {
    TargetKind.CLASSES: ((1,), "(N,)"),
    TargetKind.SEQUENCE: ((2,), "(N, T)"),
    TargetKind.DENSE: ((3,), "(N, H, W)"),
    TargetKind.REAL: ((1, 2, 3, 4), "(N,), (N, D) or (N, …)"),
    TargetKind.LABELS: ((2, 3, 4), "(N, D), (N, H, W) or (N, C, H, W)"),
}
"""Numbers of axes that targets may have, and their shapes in words."""


def raw_form(raw: RawData) -> SampleShape:
    """Return the form of the samples of a loaded set."""
    target_shape = tuple(raw.y_train.shape[1:])
    return SampleShape(
        shape=tuple(raw.x_train.shape[1:]),
        outputs=raw.target.outputs(target_shape, raw.classes),
        target=raw.target,
        target_shape=target_shape,
        vocabulary=raw.vocabulary,
    )


def check_raw_data(raw: RawData) -> None:
    """Raise DataError unless inputs and targets have the shapes, dtypes and values that the set declares."""
    parts = {"train": (raw.x_train, raw.y_train), "test": (raw.x_test, raw.y_test)}
    if raw.x_val is not None and raw.y_val is not None:
        parts["val"] = (raw.x_val, raw.y_val)
    for part, (x, y) in parts.items():
        if len(x) != len(y) or not len(x):
            raise DataError(
                f"x_{part} and y_{part} must have the same length ≥ 1, found {len(x):,} and {len(y):,}"
            )
        if x.shape[1:] != raw.x_train.shape[1:] or y.shape[1:] != raw.y_train.shape[1:]:
            raise DataError(f"the samples of x_{part} and y_{part} must have the same shapes as in training")
        _check_inputs(f"x_{part}", x, raw.vocabulary)
        check_targets(f"y_{part}", y, raw.target, raw.classes)


def _check_inputs(key: str, x: Tensor, vocabulary: int | None) -> None:
    if x.dtype != torch.int64:
        return
    if vocabulary is None or x.dim() != 2:
        raise DataError(f"{key} must be float32 or uint8, or token ids (N, T) of a declared vocabulary")
    low, high = int(x.min()), int(x.max())
    if low < 0 or high >= vocabulary:
        raise DataError(f"{key} must contain token ids 0 … {vocabulary - 1:,}, found {low:,} … {high:,}")


def check_targets(key: str, y: Tensor, target: TargetKind, classes: int) -> None:
    """Raise DataError unless targets y (N, …) are of this kind.

    Args:
        key: Name of y for the message.
        y: int64 for class indices, otherwise float32.
        target: Kind of the targets.
        classes: Number of classes, for class indices.
    """
    ranks, shapes = _RANKS[target]
    if y.dim() not in ranks or not y.numel():
        raise DataError(
            f"{key} contains {target.phrase} and must have the shape {shapes}; found {tuple(y.shape)}"
        )
    dtype = torch.int64 if target.is_class_index else torch.float32
    if y.dtype != dtype:
        raise DataError(f"{key} contains {target.phrase} and must be {dtype}; found {y.dtype}")
    if target.is_class_index:
        low, high = int(y.min()), int(y.max())
        if low < 0 or high >= classes:
            raise DataError(f"{key} must contain classes 0 … {classes - 1:,}, found {low:,} … {high:,}")
    elif target is TargetKind.LABELS:
        if not bool(((y == 0.0) | (y == 1.0)).all()):
            raise DataError(f"{key} contains labels and must be 0 or 1 everywhere")
    elif not bool(y.isfinite().all()):
        raise DataError(f"{key} must be finite in float32")


def check_applicable(options: DataOptions, raw: RawData, name: str) -> None:
    """Raise DataError for an option that does not apply to the inputs or targets of the set `name`."""
    if raw.x_train.dtype == torch.int64:
        of_real_values = {
            "normalize": options.normalize == "per_feature",
            "whiten": options.whiten != "none",
            "shift": options.shift is not None,
        }
        _refuse(of_real_values, "for real inputs, but a sample of {name} is a list of token ids", name)
    if raw.x_train.dim() != 4:
        of_images = {
            "resize": options.resize is not None,
            "augment": options.augment is not None,
            "shift.translate": options.shift is not None and any(options.shift.down_right),
        }
        features = f"for images, but a sample of {{name}} is a list of {raw.x_train.shape[1]:,} features"
        _refuse(of_images, features, name, or_choose="a data set of images")
    if raw.target is not TargetKind.CLASSES:
        of_classes = {
            "classes": options.classes is not None,
            "labelled": options.labelled is not None,
            "label_noise": options.label_noise > 0.0,
            "order": options.order != "shuffled",
        }
        _refuse(of_classes, f"for one class label a sample, but {{name}} has {raw.target.phrase}", name)
    if raw.target.has_positions(raw.y_train.shape[1:]):
        moves_pixels = {
            "resize": options.resize is not None,
            "augment": options.augment is not None,
            "shift.translate": options.shift is not None and any(options.shift.down_right),
        }
        _refuse(moves_pixels, "for targets of whole images, but those of {name} belong to pixels", name)


def _refuse(is_set: Mapping[str, bool], reason: str, name: str, *, or_choose: str = "") -> None:
    """Raise DataError for the first option that is set."""
    for key, value in is_set.items():
        if value:
            remedy = f"remove data.{key}" + (f" or choose {or_choose}" if or_choose else "")
            raise DataError(f"data.{key} is {reason.format(name=name)}: {remedy}")
