"""Selection of a subset of a data set's classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from initbench.data.dataset import RawData
from initbench.errors import DataError


def select_classes(raw: RawData, labels: Sequence[int]) -> RawData:
    """Return the samples of the classes `labels`, in their original order; class labels[i] becomes i.

    Raises DataError if a label has no training sample, or if no test or validation sample remains.
    """
    present = set(torch.unique(raw.y_train).tolist())
    unknown = [label for label in labels if label not in present]
    if unknown:
        raise DataError(
            f"data.classes lists {_format_labels(unknown)}, of which the data set has no training sample;"
            f" its labels are {_format_labels(sorted(present))}"
        )
    new_label = torch.full((raw.classes,), -1)
    new_label[list(labels)] = torch.arange(len(labels))
    x_train, y_train = _select(raw.x_train, raw.y_train, new_label)
    x_test, y_test = _select(raw.x_test, raw.y_test, new_label)
    if not len(y_test):
        raise DataError(f"data.classes={list(labels)} leaves no test sample")
    changed = replace(
        raw, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test, classes=len(labels)
    )
    if raw.x_val is None or raw.y_val is None:
        return changed
    x_val, y_val = _select(raw.x_val, raw.y_val, new_label)
    if not len(y_val):
        raise DataError(f"data.classes={list(labels)} leaves no validation sample")
    return replace(changed, x_val=x_val, y_val=y_val)


def _select(x: Tensor, y: Tensor, new_label: Tensor) -> tuple[Tensor, Tensor]:
    relabelled = new_label[y]
    keep = relabelled >= 0
    return x[keep], relabelled[keep]


def _format_labels(labels: Sequence[int]) -> str:
    consecutive = list(labels) == list(range(labels[0], labels[0] + len(labels)))
    if consecutive and len(labels) > 2:
        return f"{labels[0]} … {labels[-1]}"
    return ", ".join(map(str, labels))
