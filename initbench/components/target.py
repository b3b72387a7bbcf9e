"""Kinds of targets: what a data set asks a net to predict for a sample.

Legend: N samples, D values or labels of a sample, T positions of a sequence, H × W pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class SampleShape:
    """Form of the inputs and targets of one sample; a net and a loss must fit both."""

    shape: tuple[int, ...]
    """Shape of an input: (C, H, W), (D,) or, for token ids, (T,)."""
    outputs: int
    """Number of outputs that a net needs, per position or pixel: the classes, real values or labels."""
    target: TargetKind = TargetKind.CLASSES
    target_shape: tuple[int, ...] = ()
    """Shape of a target: () for one class index or value."""
    vocabulary: int | None = None
    """Number of token ids, if inputs are token ids (int64); None if they are real values (float32)."""

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the outputs for one sample: (C,), (T, C) or (C, H, W) for C classes, else the target's."""
        match self.target:
            case TargetKind.CLASSES:
                return (self.outputs,)
            case TargetKind.SEQUENCE:
                return (*self.target_shape, self.outputs)
            case TargetKind.DENSE:
                return (self.outputs, *self.target_shape)
        return self.target_shape or (self.outputs,)
