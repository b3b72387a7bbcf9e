"""Checks of optimizers, schedules and data sets."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from initbench.components.optimizer import Optimizer, OptimizerState
from initbench.components.schedule import Schedule
from initbench.data.dataset import Dataset, DataSource, UnavailableError
from initbench.data.raw_checks import check_raw_data, raw_form
from initbench.errors import DataError, UsageError
from initbench.testing.check import (
    Check,
    SkippedError,
    check_of,
    default_options,
    expect_that,
    option_variants,
)

STEPS = 20
_SHAPES = ((3, 5, 4), (3, 5))
"""Stacked tensors as a cohort of three runs has them: (K, out, in) and (K, out)."""


def optimizer_checks(entry: Optimizer) -> Iterator[Check]:
    """Yield the checks of an optimizer."""
    yield check_of("runs of a stack do not mix", check_independence, entry)
    yield check_of("state has the shape of the parameters", check_state, entry)
    yield check_of("updates are finite, and lr and weight_decay have an effect", check_effects, entry)


def schedule_checks(entry: Schedule) -> Iterator[Check]:
    """Yield the checks of a schedule."""
    yield check_of("factor is finite, not negative, and a function of progress alone", check_factor, entry)


def dataset_checks(entry: Dataset, source: DataSource | None = None) -> Iterator[Check]:
    """Yield the checks of a data set, without network access."""
    where = source or DataSource(root=Path("absent"), offline=True)
    yield check_of(
        "is located twice with one fingerprint, and has the declared form", check_data, entry, where
    )


def check_independence(entry: Optimizer) -> None:
    """Check that the update of one run does not depend on the runs that it is stacked with.

    Every update must be elementwise in the first axis: runs leave their cohort with a slice of the state.
    """
    for options in option_variants(entry):
        whole, state = _parameters(), entry.start(_parameters())
        alone = [parameter[1:2].clone() for parameter in whole]
        state_alone = entry.start([parameter.clone() for parameter in alone])
        for step in range(STEPS):
            gradients = _gradients(whole, step)
            sliced = [gradient[1:2].clone() for gradient in gradients]
            entry.update(whole, gradients, state, options, lr=0.05 / (1 + step), weight_decay=0.1)
            entry.update(alone, sliced, state_alone, options, lr=0.05 / (1 + step), weight_decay=0.1)
        for stacked, single in zip(whole, alone, strict=True):
            same = torch.allclose(stacked[1:2], single, rtol=1e-5, atol=1e-6)
            expect_that(same, "a run has other weights in a stack than alone")


def check_state(entry: Optimizer) -> None:
    """Check that every slot has one tensor per parameter, of its shape."""
    parameters = _parameters()
    state: OptimizerState = entry.start(parameters)
    entry.update(
        parameters, _gradients(parameters, 0), state, default_options(entry), lr=0.1, weight_decay=0.0
    )
    shapes = [parameter.shape for parameter in parameters]
    for name, tensors in state.slots.items():
        expect_that([tensor.shape for tensor in tensors] == shapes, f"slot {name!r} has other shapes")


def check_effects(entry: Optimizer) -> None:
    """Check that updates are finite and change the weights, and that the weight decay has an effect."""
    trained = {(lr, decay): _train(entry, lr, decay) for lr, decay in ((0.0, 0.0), (0.05, 0.0), (0.05, 0.1))}
    still, moved, decayed = trained.values()
    expect_that(all(bool(t.isfinite().all()) for t in (*moved, *decayed)), "weights are not finite")
    expect_that(all(map(torch.equal, still, _parameters())), "weights change with a learning rate of 0")
    expect_that(not torch.allclose(moved[0], still[0], atol=1e-6), "weights do not change")
    expect_that(not torch.allclose(moved[0], decayed[0], atol=1e-6), "weight_decay has no effect")


def check_factor(entry: Schedule) -> None:
    """Check the factor of the learning rate at 101 points of the training."""
    for options in option_variants(entry):
        for step in range(101):
            progress = step / 101
            factor = entry.factor(options, progress)
            expect_that(math.isfinite(factor) and factor >= 0, f"the factor at {progress:.2f} is {factor}")
            expect_that(entry.factor(options, progress) == factor, f"the factor at {progress:.2f} changes")


def check_data(entry: Dataset, source: DataSource) -> None:
    """Check the fingerprint, the shapes and the targets of a data set."""
    options = default_options(entry)
    try:
        located, again = entry.locate(options, source), entry.locate(options, source)
    except UnavailableError as error:
        raise SkippedError(error.missing) from None
    except UsageError as error:  # it needs options, or a function of the user
        raise SkippedError(str(error)) from None
    expect_that(located.fingerprint == again.fingerprint, "two calls of locate give two fingerprints")
    expect_that(located.name == entry.name, f"locate names the data set {located.name!r}")
    raw = located.load()
    try:
        check_raw_data(raw)
    except DataError as error:
        expect_that(False, str(error))
    declared = entry.form(options)
    if declared is not None:
        form = raw_form(raw)
        expect_that(form == declared, f"samples have the form {form}, not {declared} as declared")


def _parameters() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator) for shape in _SHAPES]


def _gradients(parameters: list[Tensor], step: int) -> list[Tensor]:
    """Return gradients of a quadratic whose slope changes from step to step."""
    generator = torch.Generator().manual_seed(step)
    return [0.3 * p + torch.randn(p.shape, generator=generator) for p in parameters]


def _train(entry: Optimizer, lr: float, weight_decay: float) -> list[Tensor]:
    parameters = _parameters()
    state = entry.start(parameters)
    for step in range(STEPS):
        gradients = _gradients(parameters, step)
        entry.update(parameters, gradients, state, default_options(entry), lr=lr, weight_decay=weight_decay)
    return parameters
