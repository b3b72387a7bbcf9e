"""Losses: what training minimises, as the mean over a batch and as one number for each sample.

Legend: B samples, C classes, T positions, H × W pixels. Outputs have the shape (B, C), (B, T, C) or
(B, C, H, W) for class indices, otherwise that of the targets; see `outputs_fit`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from types import FunctionType
from typing import Any

from pydantic import Field
from torch import Tensor
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    huber_loss,
    log_softmax,
    mse_loss,
)

from initbench import plugins
from initbench.components.target import TargetKind
from initbench.errors import UsageError
from initbench.registry import Options, Registry, RegistryEntry
from initbench.user_functions import import_user_function

ALL_KINDS = frozenset(TargetKind)
CLASS_INDICES = frozenset(kind for kind in TargetKind if kind.is_class_index)


@dataclass(frozen=True, kw_only=True)
class Loss(RegistryEntry):
    """A loss; both functions take the outputs of one net, the targets and the options.

    Without `per_sample`, only the mean over a batch is known: an evaluation is the mean over its batches,
    weighted by their numbers of samples, and the loss of each run of a cohort is computed separately.
    """

    mean: Callable[[Tensor, Tensor, Any], Tensor]
    """Loss of a batch: a scalar ()."""
    per_sample: Callable[[Tensor, Tensor, Any], Tensor] | None = None
    """Loss of each sample (B,), whose mean is that of the batch."""
    targets: frozenset[TargetKind] = ALL_KINDS
    """Kinds of targets that it is for."""

    @cached_property
    def kinds(self) -> tuple[TargetKind, ...]:
        """The kinds of targets in order."""
        return tuple(kind for kind in TargetKind if kind in self.targets)


class HuberOptions(Options):
    """Options of huber."""

    delta: float = Field(default=1.0, gt=0.0)
    """Distance from the target, in its units, from which the loss grows linearly."""


def classes_second(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return outputs with their class axis second, (B, C, …), as torch's cross-entropy expects them."""
    return outputs.movedim(-1, 1) if targets.dim() == 2 else outputs


def outputs_fit(outputs: Tensor, targets: Tensor) -> bool:
    """Whether outputs have the shape that targets need.

    (B, C), (B, T, C) or (B, C, H, W) for class indices (B,), (B, T) or (B, H, W). For other targets the shape
    of the targets, except for axes of size 1: (B, 1) fits (B,), and (B, 1, H, W) fits (B, H, W).
    """
    if not targets.is_floating_point():
        return (
            outputs.dim() == targets.dim() + 1
            and classes_second(outputs, targets)[:, 0].shape == targets.shape
        )
    squeezed = [[size for size in tensor.shape[1:] if size != 1] for tensor in (outputs, targets)]
    return squeezed[0] == squeezed[1]


def in_shape_of(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return outputs in the shape of targets, from which they may differ by axes of size 1."""
    return outputs if outputs.shape == targets.shape else outputs.reshape(targets.shape)


def smoothed_cross_entropy(outputs: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Return the mean cross-entropy of a batch with the share `smoothing` of each target on all classes."""
    log_probabilities = log_softmax(classes_second(outputs, targets), 1)
    loss = _negative_log_likelihood(log_probabilities, targets).mean()
    if not smoothing:
        return loss
    on_all = -log_probabilities.sum(1).mean() / log_probabilities.shape[1]
    return (1.0 - smoothing) * loss + smoothing * on_all


def cross_entropy_per_sample(outputs: Tensor, targets: Tensor, _options: Any = None) -> Tensor:
    """Return the cross-entropy of each sample (B,), the mean over its positions or pixels."""
    loss = _negative_log_likelihood(log_softmax(classes_second(outputs, targets), 1), targets)
    return loss if targets.dim() == 1 else loss.flatten(1).mean(1)


def _negative_log_likelihood(log_probabilities: Tensor, targets: Tensor) -> Tensor:
    """Return −ln p of each target (B, …), given ln p of all classes (B, C, …).

    It is torch's `nll_loss`, whose use in vmap imports a computer algebra system, which takes half a second.
    """
    return -log_probabilities.gather(1, targets.unsqueeze(1)).squeeze(1)


def _per_sample(loss: Tensor) -> Tensor:
    return loss if loss.dim() == 1 else loss.flatten(1).mean(1)


def _mse(outputs: Tensor, targets: Tensor, reduction: str) -> Tensor:
    return mse_loss(in_shape_of(outputs, targets), targets, reduction=reduction)


def _huber(outputs: Tensor, targets: Tensor, options: HuberOptions, reduction: str) -> Tensor:
    return huber_loss(in_shape_of(outputs, targets), targets, reduction=reduction, delta=options.delta)


def _bce(outputs: Tensor, targets: Tensor, reduction: str) -> Tensor:
    return binary_cross_entropy_with_logits(in_shape_of(outputs, targets), targets, reduction=reduction)


_user_losses: list[FunctionType] = []
"""The loss that the user has given as a function, if there is one."""
_ABSENT = ("hinge", "focal", "dice", "l1", "mae", "ctc", "triplet", "kl_div", "nll", "poisson")
"""Well-known losses that are not built in, for which no similar name is suggested."""
LOSSES: Registry[Loss] = Registry(
    "loss", absent=_ABSENT, group="losses", extend=lambda: add_requested_loss(plugins.requested_loss())
)

LOSSES.add(
    Loss(
        name="cross_entropy",
        aliases=("ce", "crossentropyloss", "categorical_crossentropy", "sparse_categorical_crossentropy"),
        summary="For class indices of samples, positions or pixels; outputs are logits.",
        source="-",
        formula="−ln softmax(z)_y",
        mean=lambda outputs, targets, _options: smoothed_cross_entropy(outputs, targets, 0.0),
        per_sample=cross_entropy_per_sample,
        targets=CLASS_INDICES,
    )
)
LOSSES.add(
    Loss(
        name="mse",
        aliases=("mse_loss", "mean_squared_error", "squared_error", "l2"),
        summary="For real values: the mean squared difference.",
        source="-",
        formula="(z − y)²",
        mean=lambda outputs, targets, _options: _mse(outputs, targets, "mean"),
        per_sample=lambda outputs, targets, _options: _per_sample(_mse(outputs, targets, "none")),
        targets=frozenset({TargetKind.REAL}),
    )
)
LOSSES.add(
    Loss(
        name="huber",
        aliases=("huber_loss",),
        summary="For real values with outliers: quadratic near the target, linear beyond delta.",
        source="Huber 1964",
        formula="½(z − y)² if |z − y| < δ, else δ(|z − y| − ½δ)",
        options=HuberOptions,
        mean=lambda outputs, targets, options: _huber(outputs, targets, options, "mean"),
        per_sample=lambda outputs, targets, options: _per_sample(_huber(outputs, targets, options, "none")),
        targets=frozenset({TargetKind.REAL}),
    )
)
LOSSES.add(
    Loss(
        name="bce",
        aliases=("bce_with_logits", "bcewithlogitsloss", "binary_crossentropy", "binary_cross_entropy"),
        summary="For several independent labels or masks of 0 and 1; outputs are logits.",
        source="-",
        formula="−y ln σ(z) − (1 − y) ln(1 − σ(z))",
        mean=lambda outputs, targets, _options: _bce(outputs, targets, "mean"),
        per_sample=lambda outputs, targets, _options: _per_sample(_bce(outputs, targets, "none")),
        targets=frozenset({TargetKind.LABELS}),
    )
)


def add_requested_loss(path: str | None) -> None:
    """Register the user's loss function `module:function` under its name, if there is one.

    The function takes the outputs of a net and the targets of a batch, and returns a scalar, their mean loss.
    A process has at most one such loss.

    Raises:
        UsageError: If it cannot be imported.
        NameTakenError: If its name is that of another loss.
    """
    while _user_losses:
        LOSSES.remove(_user_losses.pop().__name__)
    if path is None:
        return
    function = import_user_function(
        path, "--loss-from", example="losses:focal", returns="a scalar loss"
    ).function
    if not isinstance(function, FunctionType) or function.__qualname__ != function.__name__:
        name = path.rpartition(":")[2]
        raise UsageError(f"--loss-from {path}: {name} must be a function that a module defines by `def`")
    origin = function.__module__, function.__code__.co_firstlineno
    LOSSES.add(
        Loss(
            name=function.__name__,
            summary=f"The function {path} of the user.",
            source="the user",
            mean=partial(_user_loss, function),
        ),
        origin,
    )
    _user_losses.append(function)


def user_loss() -> FunctionType | None:
    """Return the loss function that the user has given, or None."""
    return _user_losses[0] if _user_losses else None


def _user_loss(function: Callable[..., Any], outputs: Tensor, targets: Tensor, _options: Any) -> Tensor:
    loss = function(outputs, targets)
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        what = f"a tensor {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise UsageError(f"train.loss={function.__name__} must return one number, a tensor (); found {what}")
    return loss.reshape(())


def fitting_losses(kind: TargetKind) -> list[str]:
    """Return the names of the losses for a kind of targets."""
    return [loss.name for loss in LOSSES if kind in loss.targets]
