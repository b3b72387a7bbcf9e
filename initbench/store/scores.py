"""Scores that evaluations record in addition to the losses, as `val_NAME` and `test_NAME`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class RecordedScore:
    """A recorded score; which of them a run has depends on the targets of its data set."""

    name: str
    title: str
    """Title of a column or axis, without the unit."""
    meaning: str
    form: Literal["percent", "number", "loss"]
    better: Literal["higher", "lower"] = "higher"


TOP_K = (2, 3, 5, 10, 20)
"""Numbers k of the top-k accuracies, which `train.top_k` chooses from."""


def _top_score(k: int) -> RecordedScore:
    return RecordedScore(f"top{k}_accuracy", f"top-{k} accuracy", f"top-{k} accuracy", "percent")


SCORES = (
    RecordedScore("accuracy", "accuracy", "accuracy", "percent"),
    RecordedScore("r2", "R²", "R², the explained share of the variance", "loss"),
    RecordedScore("mse", "mse", "mean squared error", "loss", "lower"),
    _top_score(5),
    RecordedScore("perplexity", "perplexity", "perplexity, exp of the cross-entropy", "number", "lower"),
    RecordedScore("mean_iou", "mean IoU", "intersection over union of pixels, mean over classes", "percent"),
    RecordedScore("f1", "F1", "F1 score of the labels", "percent"),
    RecordedScore("iou", "IoU", "intersection over union of the mask", "percent"),
    *(_top_score(k) for k in TOP_K if k != 5),  # last, since their columns were added last
)
MAIN_SCORES = ("accuracy", "r2")
"""Scores to which targets and rankings refer: the first one that a run has."""


def recorded_scores(keys: Iterable[str], prefix: str = "val_") -> list[RecordedScore]:
    """Return the scores among the keys of an evaluation or of final values, in order."""
    present = set(keys)
    return [score for score in SCORES if prefix + score.name in present]


def main_score(keys: Iterable[str], prefix: str = "val_") -> RecordedScore | None:
    """Return the first of MAIN_SCORES among the keys; None if there is none."""
    return next((score for score in recorded_scores(keys, prefix) if score.name in MAIN_SCORES), None)
