"""Scores of an evaluation in addition to the loss: accuracy, perplexity, R² and others, by kind of target.

A score is a function of a mean over all samples of a split, so that a split can be evaluated in chunks.

Legend: B samples of a chunk, S statistics, C classes, D values or labels of a sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from initbench.components.loss import classes_second, cross_entropy_per_sample, in_shape_of
from initbench.components.target import SampleShape, TargetKind

DEFAULT_TOP_K = 5
MIN_CLASSES_FOR_TOP = 11
"""Number of classes from which the top 5 are counted by default; of ten classes they are half."""


@dataclass(frozen=True)
class Score:
    """A score of the outputs of a net on a split."""

    name: str
    statistics: Callable[[Tensor, Tensor], Tensor]
    """(outputs, targets) → statistics of each sample, (B,) or (B, S) float64."""
    value: Callable[[Sequence[float], Tensor], float]
    """(means of the statistics over the split, targets of the split) → the score."""


def scores_of(form: SampleShape, top_k: Sequence[int] | None = None) -> list[Score]:
    """Return the scores for the targets of a data set, the most important one first.

    Args:
        form: Form of the samples.
        top_k: Numbers k of the top-k accuracies of class indices; by default 5 for many classes of samples.
    """
    is_counted = form.target is TargetKind.CLASSES and form.outputs >= MIN_CLASSES_FOR_TOP
    default = [DEFAULT_TOP_K] if is_counted else []
    tops = [top_accuracy_score(k) for k in (default if top_k is None else top_k)]
    match form.target:
        case TargetKind.CLASSES:
            return [_ACCURACY, *tops]
        case TargetKind.SEQUENCE:
            return [_ACCURACY, *tops, _PERPLEXITY]
        case TargetKind.DENSE:
            return [_ACCURACY, *tops, mean_iou_score(form.outputs)]
        case TargetKind.REAL:
            return [_R2, _MSE]
        case TargetKind.LABELS:
            labels = [_LABEL_ACCURACY, _F1]
            return [*labels, _IOU] if form.target.has_positions(form.target_shape) else labels


def _first(means: Sequence[float], _targets: Tensor) -> float:
    return means[0]


def _is_correct(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the share of correct positions of each sample; NaN if an output is not finite."""
    logits = classes_second(outputs, targets)
    correct = (logits.argmax(1) == targets).double()
    is_finite = logits.isfinite().all(1)  # argmax of NaN is a class, which must not count
    return _mean_of_positions(torch.where(is_finite, correct, torch.nan))


def top_accuracy_score(k: int) -> Score:
    """Return the share of samples, positions or pixels of whose class fewer than k outputs are larger."""

    def is_in_top(outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the share of correct positions of each sample; NaN if an output is not finite."""
        logits = classes_second(outputs, targets)
        is_in_top = ((logits > logits.gather(1, targets[:, None])).sum(1) < k).double()
        return _mean_of_positions(torch.where(logits.isfinite().all(1), is_in_top, torch.nan))

    return Score(f"top{k}_accuracy", is_in_top, _first)


def _mean_of_positions(values: Tensor) -> Tensor:
    return values if values.dim() == 1 else values.flatten(1).mean(1)


def _squared_errors(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return (B, D), or the mean over the positions (B, 1) if targets belong to positions."""
    return _by_value((in_shape_of(outputs, targets) - targets).double().square())


def _by_value(values: Tensor) -> Tensor:
    """Return values (N, …) as (N, D), or their mean over positions (N, 1)."""
    rows = values.reshape(len(values), -1)
    return rows if values.dim() <= 2 else rows.mean(1, keepdim=True)


def _mean(means: Sequence[float], _targets: Tensor) -> float:
    return math.fsum(means) / len(means)


def _explained_variance(means: Sequence[float], targets: Tensor) -> float:
    """Return the mean over D of 1 − E[(z − y)²]/Var(y), without values that are constant; NaN if all are.

    If targets belong to positions, there is one error and one variance for all of them.
    """
    y = targets.double()
    variances = _by_value((y - y.mean(0)).square()).mean(0).tolist()
    pairs = zip(means, variances, strict=True)
    shares = [1.0 - error / variance for error, variance in pairs if variance > 0.0]
    return math.fsum(shares) / len(shares) if shares else math.nan


def _are_labels_correct(outputs: Tensor, targets: Tensor) -> Tensor:
    logits = in_shape_of(outputs, targets)
    correct = ((logits > 0.0) == (targets > 0.5)).double()
    return _mean_of_positions(torch.where(logits.isfinite(), correct, torch.nan))


def _label_counts(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return true positives, and positives among predictions and targets together: (B, 2)."""
    logits = in_shape_of(outputs, targets).flatten(1)
    predicted, actual = (logits > 0.0).double(), targets.flatten(1).double()
    predicted = torch.where(logits.isfinite(), predicted, torch.nan)
    return torch.stack([(predicted * actual).sum(1), (predicted + actual).sum(1)], dim=1)


def _f1(means: Sequence[float], _targets: Tensor) -> float:
    both, positives = means
    return 2.0 * both / positives if positives else math.nan


def _iou(means: Sequence[float], _targets: Tensor) -> float:
    both, positives = means
    return both / (positives - both) if positives else math.nan


def mean_iou_score(classes: int) -> Score:
    """Return the intersection over union of pixels, mean over the classes that occur."""

    def counts(outputs: Tensor, targets: Tensor) -> Tensor:
        """Return pixels of each class in both, and in predictions and targets together: (B, 2·C)."""
        labels = torch.arange(classes, device=targets.device)
        is_predicted = outputs.argmax(1).flatten(1)[:, :, None] == labels
        is_actual = targets.flatten(1)[:, :, None] == labels
        both = (is_predicted & is_actual).sum(1)
        counted = torch.cat([both, is_predicted.sum(1) + is_actual.sum(1)], dim=1).double()
        is_finite = outputs.flatten(1).isfinite().all(1)
        return torch.where(is_finite[:, None], counted, torch.nan)

    def value(means: Sequence[float], _targets: Tensor) -> float:
        """Return the mean over the classes."""
        pairs = zip(means[:classes], means[classes:], strict=True)
        shares = [both / (total - both) for both, total in pairs if total != 0.0]
        return math.fsum(shares) / len(shares)

    return Score("mean_iou", counts, value)


def _exponential(means: Sequence[float], _targets: Tensor) -> float:
    try:
        return math.exp(means[0])
    except OverflowError:
        return math.inf


_ACCURACY = Score("accuracy", _is_correct, _first)
_PERPLEXITY = Score("perplexity", lambda z, y: cross_entropy_per_sample(z, y).double(), _exponential)
_R2 = Score("r2", _squared_errors, _explained_variance)
_MSE = Score("mse", _squared_errors, _mean)
_LABEL_ACCURACY = Score("accuracy", _are_labels_correct, _first)
_F1 = Score("f1", _label_counts, _f1)
_IOU = Score("iou", _label_counts, _iou)
