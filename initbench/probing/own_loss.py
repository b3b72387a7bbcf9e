"""A loss for a module that brings none."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from initbench.errors import UsageError

MOST_CLASSES = 100_000


@dataclass(frozen=True)
class OwnLoss:
    """The loss of a pass, and what it is."""

    tensor: Tensor
    words: str
    chance: float | None
    """What it is for equal logits: ln C for the cross-entropy of C classes; None for any other loss."""

    @property
    def value(self) -> float:
        """The loss as a number."""
        return float(self.tensor.detach())


def loss_of(output: Tensor, y: Tensor | None, loss: Callable[..., Tensor] | None) -> OwnLoss:
    """The loss asked for; else cross-entropy with the labels y, or labels drawn at random, of an output
    (B, C); else, whatever y is, the mean square of the distance to N(0, 1) noise, a target as good as any.

    Raises UsageError for a `loss` that is no number, and for labels that are not those of the output.
    """
    if loss is not None:
        value = loss(output) if y is None else loss(output, y)
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise UsageError("`loss` gives no single number; it takes the output, and y where y is given")
        return OwnLoss(value.reshape(()), "the loss given", None)
    if output.ndim == 2 and 2 <= output.shape[1] <= MOST_CLASSES and output.is_floating_point():
        return _classes(output, y)
    return OwnLoss(mse_loss(output, torch.randn_like(output)), "mean square to N(0, 1) noise", None)


def _classes(output: Tensor, y: Tensor | None) -> OwnLoss:
    samples, classes = output.shape
    labels = torch.randint(classes, (samples,), device=output.device) if y is None else y
    if labels.shape != (samples,) or not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise UsageError(
            f"labels are whole numbers from 0 to {classes - 1}, one for each of {samples} samples;"
            " or give `loss`"
        )
    words = "cross-entropy" if y is not None else f"cross-entropy, {classes} random classes"
    return OwnLoss(cross_entropy(output, labels), words, math.log(classes))
