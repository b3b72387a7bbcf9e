"""Selection of classes and of labelled training samples, and label noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from initbench.data.dataset import RawData
from initbench.errors import DataError
from initbench.rng import stream_generator

_SEED = 0


def split_labelled(y: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the indices of `count` samples of y (N,) that keep their labels, and of the rest, both sorted.

    The selection is the same for every run. A class of n samples keeps its share, n·count/N rounded up or
    down, and at least one. Raises DataError if `count` is less than the number of classes or more than N.
    """
    sizes = torch.bincount(y)
    present = int((sizes > 0).sum())
    if not present <= count <= len(y):
        raise DataError(
            f"data.labelled must be from {present:,}, one for each class, to {len(y):,}, the whole training"
            f" split; found {count:,}"
        )
    is_labelled = torch.zeros(len(y), dtype=torch.bool)
    order = torch.randperm(len(y), generator=stream_generator(_SEED, "data", "labelled"))
    for label, quota in enumerate(_quotas(sizes, count)):
        is_labelled[order[y[order] == label][:quota]] = True
    return is_labelled.nonzero().flatten(), (~is_labelled).nonzero().flatten()


def _quotas(sizes: Tensor, count: int) -> list[int]:
    """Return the number of labelled samples per class.

    Every class that occurs gets at least one; the rest is allocated by largest remainders.
    """
    share = sizes.double() * count / sizes.sum()
    quota = torch.where(sizes > 0, share.floor().clamp(min=1), 0.0)
    while (missing := count - int(quota.sum())) != 0:
        if missing > 0:
            quota[(share - quota).argmax()] += 1
        else:
            quota[torch.where(quota > 1, quota - share, -torch.inf).argmax()] -= 1
    return [int(number) for number in quota]


def corrupt_labels(y: Tensor, classes: int, share: float) -> Tensor:
    """Return y (N,) with round(share·N) labels replaced by one of the other classes, all equally likely.

    The wrong labels are the same for every run, and a larger share includes those of a smaller one. Raises
    DataError if there is only one class.
    """
    if not share:
        return y
    if classes < 2:
        raise DataError("data.label_noise needs at least two classes, and the data set has one")
    stream = stream_generator(_SEED, "data", "label_noise")
    corrupted = torch.randperm(len(y), generator=stream)[: round(share * len(y))]
    offset = torch.randint(1, classes, (len(y),), generator=stream)
    wrong = y.clone()
    wrong[corrupted] = (y + offset)[corrupted] % classes
    return wrong


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
        raw,
        x_train=x_train,
        y_train=y_train,
        x_test=x_test,
        y_test=y_test,
        classes=len(labels),
        class_names=None if raw.class_names is None else tuple(raw.class_names[label] for label in labels),
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
