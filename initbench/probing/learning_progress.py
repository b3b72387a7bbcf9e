"""Check whether training has improved on guessing, by its loss and its accuracy or R²."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from initbench.probing.finding import DiagnosisCode, Finding

MIN_UPDATES = 50
"""Number of updates before which no progress is expected."""
_SHARE_OF_GUESSING = 0.99
"""Share of the loss of a guess from which a loss is not better than guessing."""
_STILL = 0.01
"""Change of the loss, as a share of the loss of a guess, up to which it counts as unchanged."""
_MIN_GAIN = 0.25
"""Share of the range from the score of a guess to 1 above which a score shows progress."""

NOT_LEARNED = DiagnosisCode(
    name="not_learned",
    summary="The signal is fine, but training has learned nothing.",
    measure="training loss at the end, relative to the entropy of the training labels, the loss of a guess",
    threshold=_SHARE_OF_GUESSING,
    limit=f"training loss ≥ {_SHARE_OF_GUESSING:g} of the labels' entropy and validation accuracy"
    f" less than {100 * _MIN_GAIN:g} % of the way from the largest class's share to 1; ≥ {MIN_UPDATES}"
    " updates; no other warning",
    cause="A learning rate so small that nothing changed, or so large that training was unstable.",
    cure="Vary train.lr, by factors of 10 first; then check train.steps, train.grad_clip and the labels.",
)


@dataclass(frozen=True)
class Guess:
    """Result of the best guess that ignores the inputs."""

    loss: float
    """Entropy of the training labels in nats, or variance of real targets."""
    score: float
    """Accuracy, the share of the largest class; 0, the R² of the mean, for real targets."""


@dataclass(frozen=True)
class Progress:
    """Progress of a training run."""

    updates: int
    start_loss: float
    end_loss: float
    """Loss at the end, on the same training samples."""
    score: float
    """Accuracy or R² on the validation split at the end."""
    guess: Guess


def guess_of(targets: Tensor, loss: str) -> Guess | None:
    """Return the result of guessing for targets (N, …) under a loss; None if it is not known for the loss."""
    match loss:
        case "cross_entropy":
            shares = targets.flatten().bincount().double() / max(targets.numel(), 1)
            return Guess(-float(torch.special.xlogy(shares, shares).sum()), float(shares.max()))
        case "mse":
            values = targets.double()
            return Guess(float((values - values.mean(0)).square().mean()), 0.0)
        case "bce":
            share = targets.double().mean(0)
            entropy = torch.special.xlogy(share, share) + torch.special.xlogy(1.0 - share, 1.0 - share)
            return Guess(-float(entropy.mean()), float(torch.maximum(share, 1.0 - share).mean()))
    return None


def progress_finding(progress: Progress) -> Iterator[Finding]:
    """Yield a finding if training ended no better than guessing."""
    guess = progress.guess
    bar = guess.score + _MIN_GAIN * (1.0 - guess.score)
    if progress.updates < MIN_UPDATES or progress.score > bar or guess.loss <= 0.0:
        return
    share = progress.end_loss / guess.loss
    if not share >= _SHARE_OF_GUESSING:
        return
    change = progress.end_loss - progress.start_loss
    has_moved = abs(change) > _STILL * guess.loss
    what = "training was unstable" if has_moved else "the loss did not change"
    why = "it may be too large" if has_moved else "it may be too small, or train.steps too few"
    message = (
        f"the signal is fine, but the net did not learn: {what}. The training loss was"
        f" {progress.start_loss:.3g} at first and is {progress.end_loss:.3g} after {progress.updates:,}"
        f" updates; guessing gives {guess.loss:.3g}. Check train.lr: {why}"
    )
    yield Finding("not_learned", None, share, _SHARE_OF_GUESSING, message, "end")
