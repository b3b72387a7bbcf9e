"""Whether a training has learned anything, told by its loss and by what guessing gets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from initbench.probing.finding import DiagnosisCode, Finding

MIN_UPDATES = 50
"""Updates before which nothing is expected of a training."""
_SHARE_OF_GUESSING = 0.99
"""Of the loss of a guess, above which a loss is no better."""
_STILL = 0.01
"""Change of the loss, as a share of that of a guess, up to which it has not moved."""
_MIN_GAIN = 0.25
"""Of the way from the largest class's share to 1, what an accuracy has to make to speak against it."""

NOT_LEARNED = DiagnosisCode(
    "not_learned",
    "The signal is fine, and the training has learned nothing.",
    "training loss at the end, beside the entropy of the training labels, which a guess gets",
    _SHARE_OF_GUESSING,
    limit=f"training loss ≥ {_SHARE_OF_GUESSING:g} of the labels' entropy and validation accuracy"
    f" less than {100 * _MIN_GAIN:g} % of the way from the largest class's share to 1; ≥ {MIN_UPDATES}"
    " updates; no other warning",
    cause="A learning rate so small that nothing moved, or so large that everything was thrown.",
    cure="Look at train.lr, tenfold steps first; then at train.steps, train.grad_clip and the labels.",
)


@dataclass(frozen=True)
class Guess:
    """What is got by guessing from the labels alone."""

    loss: float
    """Entropy of the training labels, in nats."""
    accuracy: float
    """Share of the largest class."""


@dataclass(frozen=True)
class Progress:
    """How far a training came."""

    updates: int
    start_loss: float
    end_loss: float
    """On the same training samples."""
    accuracy: float
    """Of the validation split, at the end."""
    guess: Guess


def guess_of(labels: Tensor) -> Guess:
    """What guessing gets for whole-number labels (N,)."""
    shares = labels.flatten().bincount().double() / max(labels.numel(), 1)
    entropy = -float(torch.special.xlogy(shares, shares).sum())
    return Guess(entropy, float(shares.max()))


def progress_finding(progress: Progress) -> Iterator[Finding]:
    """A finding for a training that ended no better than a guess."""
    guess = progress.guess
    bar = guess.accuracy + _MIN_GAIN * (1.0 - guess.accuracy)
    if progress.updates < MIN_UPDATES or progress.accuracy > bar or guess.loss <= 0.0:
        return
    share = progress.end_loss / guess.loss
    if not share >= _SHARE_OF_GUESSING:
        return
    change = progress.end_loss - progress.start_loss
    has_moved = abs(change) > _STILL * guess.loss
    what = "everything was thrown" if has_moved else "nothing moved"
    why = "it may be too large" if has_moved else "it may be too small, or train.steps too few"
    message = (
        f"the signal is fine; it did not learn: {what}. The training loss was {progress.start_loss:.3g} at"
        f" first and is {progress.end_loss:.3g} after {progress.updates:,} updates, where a guess gets"
        f" {guess.loss:.3g}. Look at train.lr: {why}"
    )
    yield Finding("not_learned", None, share, _SHARE_OF_GUESSING, message, "end")
