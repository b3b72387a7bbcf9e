"""Optimizers: torch's update kernels, applied to lists of stacked tensors.

Every update is elementwise, so one call updates all runs of a cohort. The functional form keeps the state in
plain tensors, which can be sliced when a run leaves its cohort, and avoids importing
`torch.optim.Optimizer`, which takes a second.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.rmsprop import rmsprop
from torch.optim.sgd import sgd

from initbench.registry import Options, Registry, RegistryEntry

_VECTOR = 16  # floats in 64 bytes; torch's fused kernels also divide their work into these units


@dataclass
class OptimizerState:
    """State of an optimizer: slots with one tensor per parameter, and torch's update counts."""

    counts: list[Tensor]
    slots: dict[str, list[Tensor]] = field(default_factory=dict)

    def slot(self, name: str, parameters: list[Tensor]) -> list[Tensor]:
        """Return the slot called `name`; it is created with zeros when first used."""
        if name not in self.slots:
            self.slots[name] = [torch.zeros_like(p) for p in parameters]
        return self.slots[name]


class Update(Protocol):
    """Function that changes parameters and state in place."""

    def __call__(
        self,
        parameters: list[Tensor],
        gradients: list[Tensor],
        state: OptimizerState,
        options: Any,
        *,
        lr: float,
        weight_decay: float,
    ) -> None:
        """Make one update."""


@dataclass(frozen=True, kw_only=True)
class Optimizer(RegistryEntry):
    """An optimizer: its update, which also creates the slots that it uses."""

    update: Update

    def start(self, parameters: list[Tensor]) -> OptimizerState:
        """Return the state before the first update."""
        return OptimizerState(counts=[torch.zeros(()) for _ in parameters])


class SgdOptions(Options):
    """Options of sgd."""

    momentum: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Fraction of the previous update that is added to the next one."""
    nesterov: bool = False
    """Look ahead along the momentum (Sutskever et al. 2013)."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> SgdOptions:
        if self.nesterov and self.momentum == 0.0:
            problem = "nesterov needs a momentum above 0"
            raise PydanticCustomError("key_fault", "{problem}", {"problem": problem, "at": "nesterov"})
        return self


class AdamOptions(Options):
    """Options of adam and adamw."""

    beta1: float = Field(default=0.9, ge=0.0, lt=1.0)
    """Decay of the mean of the gradient."""
    beta2: float = Field(default=0.999, ge=0.0, lt=1.0)
    """Decay of the mean of its square."""
    eps: float = Field(default=1e-8, gt=0.0)
    """Added to the root of the mean square."""


class RmspropOptions(Options):
    """Options of rmsprop."""

    alpha: float = Field(default=0.99, ge=0.0, lt=1.0)
    """Decay of the mean square."""
    momentum: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Fraction of the previous update that is added to the next one."""
    eps: float = Field(default=1e-8, gt=0.0)
    """Added to the root of the mean square."""


def _sgd(
    parameters: list[Tensor],
    gradients: list[Tensor],
    state: OptimizerState,
    options: SgdOptions,
    *,
    lr: float,
    weight_decay: float,
) -> None:
    momentum = state.slot("momentum", parameters) if options.momentum else [None] * len(parameters)
    fused = [_fills_vectors(p) for p in parameters]
    for kernel in (True, False):
        indices = [i for i, fits in enumerate(fused) if fits is kernel]
        sgd(
            [parameters[i] for i in indices],
            [gradients[i] for i in indices],
            [momentum[i] for i in indices],
            fused=kernel,
            foreach=False,
            weight_decay=weight_decay,
            momentum=options.momentum,
            lr=lr,
            dampening=0.0,
            nesterov=options.nesterov,
            maximize=False,
        )


def _fills_vectors(stacked: Tensor) -> bool:
    """Return whether one run's part of a stacked parameter is a whole number of vectors of the CPU.

    torch's fused SGD, three times as fast as the plain one, rounds the last entries of a tensor differently
    if they do not fill a vector; which run they belong to depends on the number of stacked runs. A GPU has no
    vectors.
    """
    return stacked.is_cuda or stacked.numel() // stacked.shape[0] % _VECTOR == 0


def _on_gpu(parameters: list[Tensor]) -> bool:
    """Return whether all parameters are better updated by a few kernels for all than by a few for each."""
    return bool(parameters) and parameters[0].is_cuda


def _adam(*, decoupled: bool) -> Update:
    def update(
        parameters: list[Tensor],
        gradients: list[Tensor],
        state: OptimizerState,
        options: AdamOptions,
        *,
        lr: float,
        weight_decay: float,
    ) -> None:
        """Make one update of Adam, or of AdamW if the weight decay is decoupled."""
        adam(
            parameters,
            gradients,
            state.slot("mean", parameters),
            state.slot("mean_square", parameters),
            [],
            state.counts,
            foreach=_on_gpu(parameters),
            fused=False,
            decoupled_weight_decay=decoupled,
            amsgrad=False,
            beta1=options.beta1,
            beta2=options.beta2,
            lr=lr,
            weight_decay=weight_decay,
            eps=options.eps,
            maximize=False,
        )

    return update


def _rmsprop(
    parameters: list[Tensor],
    gradients: list[Tensor],
    state: OptimizerState,
    options: RmspropOptions,
    *,
    lr: float,
    weight_decay: float,
) -> None:
    rmsprop(
        parameters,
        gradients,
        state.slot("mean_square", parameters),
        [],
        state.slot("momentum", parameters) if options.momentum else [],
        state.counts,
        foreach=_on_gpu(parameters),
        lr=lr,
        alpha=options.alpha,
        eps=options.eps,
        weight_decay=weight_decay,
        momentum=options.momentum,
        centered=False,
    )


_ABSENT = (
    "nadam",
    "radam",
    "adamax",
    "adagrad",
    "adadelta",
    "adafactor",
    "lion",
    "lamb",
    "lars",
    "lbfgs",
    "rprop",
    "asgd",
    "muon",
    "shampoo",
    "sophia",
)
"""Well-known names that are not supported; no similar name is suggested for them."""
OPTIMIZERS: Registry[Optimizer] = Registry("optimizer", absent=_ABSENT, group="optimizers")

OPTIMIZERS.add(
    Optimizer(
        name="sgd",
        suggested_for=("momentum", "sgd_momentum", "nesterov", "nag"),
        aliases=("gradient_descent", "stochastic_gradient_descent"),
        summary="Stochastic gradient descent with optional momentum; shows the effect of an init directly.",
        formula="v ← μv + g; W ← W − lr·v",
        source="Robbins & Monro 1951; Polyak 1964; Sutskever et al. 2013",
        options=SgdOptions,
        update=_sgd,
    )
)
OPTIMIZERS.add(
    Optimizer(
        name="adam",
        summary="Scales each weight's step by its own gradient history, which hides a bad scale of the init.",
        formula="W ← W − lr·m̂/(√v̂ + ε)",
        source="Kingma & Ba 2015",
        options=AdamOptions,
        update=_adam(decoupled=False),
    )
)
OPTIMIZERS.add(
    Optimizer(
        name="adamw",
        aliases=("adam_with_decoupled_weight_decay",),
        summary="Adam whose weight decay is applied to the weights and not to the gradient.",
        formula="W ← (1 − lr·λ)W − lr·m̂/(√v̂ + ε)",
        source="Loshchilov & Hutter 2019",
        options=AdamOptions,
        update=_adam(decoupled=True),
    )
)
OPTIMIZERS.add(
    Optimizer(
        name="rmsprop",
        summary="Divides each weight's step by a running root mean square of its gradient.",
        formula="W ← W − lr·g/(√v + ε)",
        source="Tieleman & Hinton 2012",
        options=RmspropOptions,
        update=_rmsprop,
    )
)
