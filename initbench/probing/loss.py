"""Loss of a probe, and its chance level for a net that knows nothing."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss

from initbench.errors import UsageError, reporting_user_code
from initbench.probing.model_outputs import with_output
from initbench.torch_defaults import user_defaults

MAX_CLASSES = 100_000
"""Maximum size of an axis that counts as the class axis without labels."""
_IGNORED_LABEL = -100
"""Label that torch's cross-entropy ignores by default."""
_SAME = 1e-4
"""Relative difference up to which two losses count as equal."""
_COLOURS = (1, 3)
_SEED = 7_919
"""Seed of random labels and noise, unusual so that it does not reproduce random inputs of the user."""

Loss = Callable[..., Tensor]


@dataclass(frozen=True)
class ProbeLoss:
    """Loss of a pass, with a description and its chance level."""

    tensor: Tensor
    words: str
    chance: float | None
    """Loss if all classes are equally likely, ln C for C classes; None if unknown."""
    takes_logits: bool = False
    """Whether the loss is known to expect logits, because it applies a softmax or sigmoid."""

    @property
    def value(self) -> float:
        """Loss as a number."""
        return float(self.tensor.detach())


def loss_of(
    output: Tensor,
    y: Tensor | None,
    loss: Loss | None,
    *,
    x: Tensor | None = None,
    chance: float | None = None,
    returned: Any = None,
) -> ProbeLoss:
    """Return the loss of one output.

    The loss depends on what is given:

    - With `loss`, that function of the returned value, or of the main output alone if the function fails on
      the returned value or does not return a single number.
    - With labels y alone, cross-entropy over the class axis for outputs (B, C), (B, T, V) and (B, C, H, W)
      with labels (B,), (B, T) and (B, H, W), or with probabilities in the output's shape. For one logit, and
      for labels 0 and 1 in the output's shape, binary cross-entropy. Otherwise the mean square difference to
      targets in the output's shape.
    - With neither, cross-entropy with random labels if an axis looks like classes, otherwise the mean square
      difference to noise.

    Args:
        output: The main output of the module (B, …).
        y: Labels or targets, or None.
        loss: A loss function of the user, or None.
        x: The input (B, …), which helps to identify the class axis.
        chance: The chance level of the loss; by default it is found by trying outputs that are equal for all
            classes.
        returned: The value that the module returned.

    Raises:
        UsageError: If `loss` does not return a number, or if the labels do not fit the output.
    """
    if loss is not None:
        return _user_loss(loss, output, output if returned is None else returned, y, chance)
    probe_loss = _unlabelled_loss(output, x) if y is None else _labelled_loss(output, y)
    return (
        probe_loss
        if chance is None
        else ProbeLoss(probe_loss.tensor, probe_loss.words, chance, probe_loss.takes_logits)
    )


def _user_loss(
    loss: Loss, output: Tensor, returned: Any, y: Tensor | None, chance: float | None
) -> ProbeLoss:
    argument, value = _evaluate_user_loss(loss, output, returned, y)
    at_zero, known_chance = _chance_of(loss, output.detach(), _OutputFiller(argument, output), y)
    return ProbeLoss(value.reshape(()), "the loss given", known_chance if chance is None else chance, at_zero)


def _evaluate_user_loss(loss: Loss, output: Tensor, returned: Any, y: Tensor | None) -> tuple[Any, Tensor]:
    """Return the argument that the loss accepts, the returned value or its main output, and the loss."""
    if returned is output:
        value = _call_loss(loss, output, y)
        if not _is_number(value):
            raise UsageError("`loss` must return a single number; it gets the output, and y if y is given")
        return output, value
    faults = []
    for argument in (returned, output):
        try:
            with reporting_user_code(""):
                value = _call_loss(loss, argument, y)
            if _is_number(value):
                return argument, value
            faults.append("it does not return a single number")
        except UsageError as error:
            faults.append(str(error).strip())
    raise UsageError(
        f"`loss` accepts neither what the module returns, a {type(returned).__name__} ({faults[0]}), nor its"
        f" main output alone ({faults[1]})"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, Tensor) and value.numel() == 1


@dataclass(frozen=True)
class _OutputFiller:
    """Creates arguments of a loss with other values in the main output."""

    argument: Any
    output: Tensor

    @property
    def can_make(self) -> bool:
        """Whether the main output can be replaced in the argument of the loss."""
        return self.filled(0.0) is not self.argument

    def filled(self, value: float) -> Any:
        """Return the argument with `value` in all entries of the main output."""
        return with_output(self.argument, self.output, torch.full_like(self.output.detach(), value))


def _call_loss(loss: Loss, argument: Any, y: Tensor | None) -> Any:
    with user_defaults():
        return loss(argument) if y is None else loss(argument, y)


def _chance_of(
    loss: Loss, output: Tensor, maker: _OutputFiller, y: Tensor | None
) -> tuple[bool, float | None]:
    """Return whether a loss expects logits, and its chance level; (False, None) if it is not a cross-entropy.

    The loss is evaluated on outputs that are equal for all classes: 0 as logits, −ln C as log-probabilities,
    1/C as probabilities. A loss with the value ln C is a cross-entropy, however it is written.
    """
    if not maker.can_make:
        return False, None
    twin = copy.deepcopy(loss) if isinstance(loss, nn.Module) else loss  # it may count its calls

    def at(value: float) -> float:
        try:
            with torch.no_grad():
                return float(_call_loss(twin, maker.filled(value), y))
        except Exception:  # the loss accepts some outputs only, so its chance level is unknown
            return math.nan

    at_zero = at(0.0)
    for classes in sorted({2, *output.shape[1:]} - {0, 1}):
        chance = math.log(classes)
        if math.isclose(at_zero, chance, rel_tol=_SAME):
            return True, chance
        other = _equal_entry(output, classes)
        if other is not None and math.isclose(at(other), chance, rel_tol=_SAME):
            return False, chance
    return False, None


def _equal_entry(output: Tensor, classes: int) -> float | None:
    """Return the entry of equal (log-)probabilities if the output holds such, else None."""
    axes = [axis for axis in range(1, output.ndim) if output.shape[axis] == classes]
    low, high = float(output.min()), float(output.max())
    if high <= _SAME and any(_sums_to_one(output.exp(), axis) for axis in axes):
        return -math.log(classes)
    if low < 0.0 or high > 1.0:
        return None
    is_single = classes == 2 and not are_probabilities(output)  # the output of a sigmoid
    return 1.0 / classes if is_single or any(_sums_to_one(output, axis) for axis in axes) else None


def _sums_to_one(output: Tensor, axis: int) -> bool:
    total = output.double().sum(axis)
    return bool(torch.allclose(total, torch.ones_like(total), atol=1e-3))


def are_probabilities(output: Tensor) -> bool:
    """Whether the output is that of a softmax: its entries are at least 0 and sum to 1 over an axis."""
    axes = [axis for axis in {1, output.ndim - 1} if output.ndim > 1 and output.shape[axis] > 1]
    return bool((output >= 0.0).all()) and any(_sums_to_one(output, axis) for axis in axes)


def _labelled_loss(output: Tensor, y: Tensor) -> ProbeLoss:
    if not y.is_floating_point():
        axis = _class_axis(output, y)
        if axis is not None:
            return _class_loss(output.movedim(axis, 1), y)
        if _has_a_number_for_each(output, y) and _are_zero_or_one(y):
            return _binary_loss(output, y.reshape(output.shape))
        raise UsageError(_unused_labels(output, y))
    if y.shape == output.shape and y.ndim > 1 and are_probabilities(y):
        axis = 1 if _sums_to_one(y, 1) else -1
        value = cross_entropy(output.movedim(axis, 1), y.movedim(axis, 1))
        return ProbeLoss(value, "cross-entropy", math.log(output.shape[axis]), takes_logits=True)
    if not _has_a_number_for_each(output, y):
        raise UsageError(_unused_labels(output, y))
    targets = y.reshape(output.shape).to(output.dtype)
    if _are_zero_or_one(y):
        return _binary_loss(output, targets)
    return ProbeLoss(mse_loss(output, targets), "mean square to y", None)


def _class_axis(output: Tensor, y: Tensor) -> int | None:
    """Return the axis of the output that labels y lack; if two fit, the last of 3 axes, else the second."""
    last = -1 if output.shape[:-1] == y.shape and output.ndim > 1 else None
    second = 1 if output.ndim > 1 and output.shape[:1] + output.shape[2:] == y.shape else None
    axis = second if last is None or (second is not None and output.ndim != 3) else last
    return None if axis is None or output.shape[axis] < 2 else axis


def _has_a_number_for_each(output: Tensor, y: Tensor) -> bool:
    """Whether shapes agree except for axes of size 1: (B, 1) and (B,), (B, 1, H, W) and (B, H, W)."""
    long = [[size for size in tensor.shape[1:] if size != 1] for tensor in (output, y)]
    return output.shape[:1] == y.shape[:1] and long[0] == long[1]


def _are_zero_or_one(y: Tensor) -> bool:
    return bool(((y == 0) | (y == 1)).all())


def _unused_labels(output: Tensor, y: Tensor) -> str:
    shape, labels = tuple(output.shape), tuple(y.shape)
    return (
        f"labels of shape {labels} do not fit an output of shape {shape}: expected integers for all axes"
        " except the class axis, 0 or 1 for a single logit, or real numbers in the output's shape; or pass"
        " `loss`"
    )


def _class_loss(output: Tensor, y: Tensor) -> ProbeLoss:
    """Return the cross-entropy of an output (B, C, …) with labels (B, …)."""
    classes, counted = output.shape[1], y[y != _IGNORED_LABEL]
    if counted.numel() == 0 or not 0 <= int(counted.min()) <= int(counted.max()) < classes:
        each = f"each of {len(y)} samples" if y.ndim == 1 else f"each position of {tuple(y.shape)}"
        raise UsageError(f"labels must be integers from 0 to {classes - 1}, one for {each}; or pass `loss`")
    return ProbeLoss(cross_entropy(output, y.long()), "cross-entropy", math.log(classes), takes_logits=True)


def _binary_loss(output: Tensor, y: Tensor) -> ProbeLoss:
    value = binary_cross_entropy_with_logits(output, y.to(output.dtype))
    return ProbeLoss(value, "binary cross-entropy", math.log(2.0), takes_logits=True)


def _unlabelled_loss(output: Tensor, x: Tensor | None) -> ProbeLoss:
    axis, stream = _likely_class_axis(output, x), torch.Generator().manual_seed(_SEED)
    if axis is None:
        noise = torch.randn(output.shape, generator=stream).to(output)
        return ProbeLoss(mse_loss(output, noise), "mean square to N(0, 1) noise", None)
    output = output.movedim(axis, 1)
    classes = output.shape[1]
    y = torch.randint(classes, output.shape[:1] + output.shape[2:], generator=stream).to(output.device)
    words = f"cross-entropy, {classes} random classes"
    return ProbeLoss(cross_entropy(output, y), words, math.log(classes), takes_logits=True)


def _likely_class_axis(output: Tensor, x: Tensor | None) -> int | None:
    """Return the class axis of an output without labels, or None if it looks like real numbers.

    An output in the shape of the input is a reconstruction. An output with other positions and with one or
    three channels is an image.
    """
    if output.ndim == 2:
        axis = 1
    elif output.ndim < 2 or (x is not None and x.is_floating_point() and x.shape == output.shape):
        return None
    elif output.ndim == 3:
        positions_last = x is not None and x.ndim == 3 and x.shape[2] == output.shape[2]
        axis = 1 if positions_last and x is not None and x.shape[1] != output.shape[1] else 2
    else:
        axis = 1
        same_positions = x is not None and x.shape[2:] == output.shape[2:]
        if output.shape[1] in _COLOURS and not same_positions:
            return None
    return axis if 2 <= output.shape[axis] <= MAX_CLASSES else None
