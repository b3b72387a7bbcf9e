"""Kinds of targets: what a data set asks a net to predict for a sample.

Legend: N samples, D values or labels of a sample, T positions of a sequence, H × W pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum


class TargetKind(StrEnum):
    """Kind of the targets y of a data set, with their shape and dtype."""

    CLASSES = "classes"
    """One class index a sample: (N,) int64."""
    SEQUENCE = "sequence"
    """One class index a position: (N, T) int64, for outputs (B, T, classes)."""
    DENSE = "dense"
    """One class index a pixel: (N, H, W) int64, for outputs (B, classes, H, W)."""
    REAL = "real"
    """Real values, as in regression: (N,), (N, D) or (N, …) float32, for outputs of the same shape."""
    LABELS = "labels"
    """Independent labels, each 0 or 1: (N, D), or masks (N, H, W), (N, C, H, W); float32."""

    @property
    def is_class_index(self) -> bool:
        """Whether targets are class indices."""
        return self in (TargetKind.CLASSES, TargetKind.SEQUENCE, TargetKind.DENSE)

    @property
    def phrase(self) -> str:
        """Words for messages, as in `the targets are …`."""
        return _PHRASES[self]

    def outputs(self, shape: Sequence[int], classes: int) -> int:
        """Return the number of outputs that a net needs, per position or pixel.

        Args:
            shape: Shape of the target of one sample.
            classes: Number of classes, for class indices.
        """
        if self.is_class_index:
            return classes
        return shape[0] if len(shape) in (1, 3) else 1

    def has_positions(self, shape: Sequence[int]) -> bool:
        """Whether a target of this shape belongs to positions or pixels and not to the whole sample."""
        return self in (TargetKind.SEQUENCE, TargetKind.DENSE) or len(shape) > 1


_PHRASES = {
    TargetKind.CLASSES: "class indices",
    TargetKind.SEQUENCE: "sequences of class indices",
    TargetKind.DENSE: "class indices of pixels",
    TargetKind.REAL: "real values",
    TargetKind.LABELS: "several labels of 0 or 1",
}
