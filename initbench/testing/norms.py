"""Checks of norms: shapes, the axes that an entry declares, and independence of stacked layers."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from initbench.components.norm import Norm
from initbench.components.parametrized_weight import assign_weight, weight_of
from initbench.registry import Options
from initbench.testing.check import Check, check_of, default_options, expect_that, normal_draws

FLAT, MAPS = (12, 8), (4, 8, 3, 5)
"""Shapes of the inputs of stacked layers."""
AXES_SHAPES = ((4, 6), (4, 6, 2, 3))
"""Shapes of the inputs with which the axes are found."""
EXAMPLES: dict[str, dict[str, Any]] = {
    "group": {"num_groups": 2},
    "ghost_batch": {"ghost_size": 2},
    "local_response": {"size": 3, "alpha": 1.0},
}
"""Options of built-in norms for small inputs."""


def norm_checks(entry: Norm) -> Iterator[Check]:
    """Yield the checks of a norm."""
    if entry.acts_on == "weights":
        yield check_of("changes a weight layer and inserts no module", check_insertion, entry)
        yield check_of("scale_free", check_scale_freedom, entry)
        yield check_of("stays finite for a weight of zeros", check_zero_weight, entry)
        return
    yield check_of("builds a layer for every shape that it accepts", check_build, entry)
    if entry.build(8, default_options(entry)) is None:
        return
    for shape in (FLAT, MAPS):
        for training in (True, False):
            mode = "training" if training else "evaluation"
            yield check_of(f"stacked layers, {len(shape)} axes, {mode}", check_stack, entry, shape, training)
    for shape in AXES_SHAPES:
        yield check_of(f"axes, for inputs with {len(shape)} axes", check_axes, entry, shape)


def build_norm(entry: Norm, features: int = 8, **options: Any) -> nn.Module:
    """Return the layer in float64, with every parameter away from its initial value."""
    module = entry.build(features, default_options(entry, **options))
    assert module is not None
    with torch.no_grad():
        for k, parameter in enumerate(module.double().parameters()):
            parameter.add_(0.3 * normal_draws(*parameter.shape, seed=90 + k))
    return module


def trained_weight(layer: nn.Module) -> str:
    """Return the name of the parameter that holds a direction for every weight."""
    names = [name for name, parameter in layer.named_parameters() if parameter.ndim > 1]
    expect_that(len(names) == 1, f"{len(names)} parameters have the shape of a weight, not 1")
    return names[0]


def check_build(entry: Norm) -> None:
    """Check the shape and the spread of the outputs for every width that `problem` accepts."""
    options = default_options(entry)
    for features in (1, 8, 30, 128):
        if entry.problem((features,), options) is not None:
            continue
        module = entry.build(features, options)
        if module is None:
            continue
        y = module.double()(2.5 * normal_draws(16, features) + 0.7).detach()
        expect_that(tuple(y.shape) == (16, features), f"(16, {features}) gives {tuple(y.shape)}")
        expect_that(float(y.std()) > 0.1, f"for {features} features the outputs are nearly constant")


def check_stack(entry: Norm, shape: tuple[int, ...], training: bool) -> None:
    """Check that layers stacked by vmap, as a cohort has them, compute what each one does."""
    if entry.problem(shape[1:], default_options(entry)) is not None:
        return
    modules = [build_norm(entry, shape[1]).train(training) for _ in range(3)]
    for module in modules[1:]:
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.mul_(1.5)
    parameters, buffers = stack_module_state(modules)
    skeleton, x = copy.deepcopy(modules[0]), normal_draws(3, *shape)
    stacked = vmap(lambda p, b, x: functional_call(skeleton, {**p, **b}, (x,)))(parameters, buffers, x)
    for k, module in enumerate(modules):
        expect_that(_is_close(stacked[k], module(x[k])), "a stacked layer computes other values than alone")
        for key, buffer in module.named_buffers():
            expect_that(_is_close(buffers[key][k], buffer), f"a stacked layer has another {key} than alone")


def check_axes(entry: Norm, shape: tuple[int, ...]) -> None:
    """Check that the declared axes are those over which entries depend on one another.

    The Jacobian is exactly 0 between entries that differ on an axis that is not averaged over, and above
    1e-6 between nearly all others.
    """
    unknown = set(entry.axes) - {"N", "C", "H", "W", "C/G", "N/G", "C/n"}
    expect_that(not unknown, f"unknown axes: {', '.join(sorted(unknown))}")
    examples = EXAMPLES.get(entry.name, {})
    options = default_options(entry, **examples)
    if entry.problem(shape[1:], options) is not None or entry.batch_problem(shape[0], options) is not None:
        return
    module = build_norm(entry, shape[1], **examples)
    x = 2.5 * normal_draws(*shape) + 0.7
    jacobian = _jacobian(module, x).abs().view(x.numel(), -1)
    index = [at.flatten() for at in torch.meshgrid(*map(torch.arange, shape), indexing="ij")]
    shared = _shared_statistics(entry, index, shape[1], options)
    expect_that(bool((jacobian[~shared] == 0).all()), f"entries depend on one another beyond {entry.axes}")
    is_a_pair = shared.sum(1).max() == 2  # a pair standardised by itself is ±1: its slope is 0
    share = float((jacobian[shared] > 1e-6).double().mean())
    expect_that(
        bool(is_a_pair) or share > 0.95, f"entries that share {entry.axes} do not depend on one another"
    )


def _jacobian(module: nn.Module, x: Tensor) -> Tensor:
    jacobian: Tensor = torch.autograd.functional.jacobian(module, x)  # type: ignore[no-untyped-call]
    return jacobian


def _shared_statistics(entry: Norm, index: list[Tensor], features: int, options: Options) -> Tensor:
    """Return which pairs of entries share a statistic: those equal on all axes that are not averaged over."""
    n, c, *positions = index
    group = features // getattr(options, "num_groups", 1)
    coordinates = {
        "C": c // group if "C/G" in entry.axes else c,
        "N": n // getattr(options, "ghost_size", 1) if "N/G" in entry.axes else n,
        **dict(zip("HW", positions, strict=False)),
    }
    shared = torch.ones(len(n), len(n), dtype=torch.bool)
    for axis, at in coordinates.items():
        if axis == "C" and "C/n" in entry.axes:
            shared &= (at[:, None] - at[None]).abs() <= getattr(options, "size", 1) // 2
        elif axis not in entry.axes:
            shared &= at[:, None] == at[None]
    return shared


def check_insertion(entry: Norm) -> None:
    """Check that a norm of the weights wraps a layer of the same class and builds no module."""
    expect_that(entry.build(8, default_options(entry)) is None, "a norm of weights must build no module")
    for layer in (nn.Linear(7, 5), nn.Conv2d(2, 3, 2)):
        kind = type(layer)
        wrapped = entry.wrap(layer, default_options(entry))
        expect_that(isinstance(wrapped, kind), f"wrap turns {kind.__name__} into {type(wrapped).__name__}")
        fresh = torch.randn(weight_of(wrapped).shape)
        assign_weight(wrapped, fresh)
        assigned = wrapped.get_parameter(trained_weight(wrapped))
        expect_that(torch.equal(assigned, fresh), "the weight that an init assigns is not kept")


def check_scale_freedom(entry: Norm) -> None:
    """Check that the output depends on the scale of the weight unless `scale_free`."""
    options: dict[str, Any] = {"eps": 1e-12} if "eps" in entry.options.model_fields else {}
    layer = entry.wrap(nn.Linear(7, 5).double(), default_options(entry, **options)).eval()
    assign_weight(layer, normal_draws(5, 7) + 0.3)  # one singular value is much larger than the others
    x = normal_draws(8, 7)
    original = layer(x)
    assign_weight(layer, 5 * layer.get_parameter(trained_weight(layer)).detach())
    is_free = torch.allclose(layer(x), original, rtol=1e-9)
    expect_that(is_free == entry.scale_free, f"scale_free must be {is_free}")


def check_zero_weight(entry: Norm) -> None:
    """Check that outputs and gradients are finite for a weight of zeros."""
    layer = entry.wrap(nn.Linear(7, 5), default_options(entry))
    assign_weight(layer, torch.zeros(5, 7))
    y = layer(normal_draws(8, 7).float())
    gradients = torch.autograd.grad(y.square().sum(), list(layer.parameters()), allow_unused=True)
    values = [y, *(gradient for gradient in gradients if gradient is not None)]
    expect_that(all(bool(value.isfinite().all()) for value in values), "outputs or gradients are not finite")


def _is_close(a: Tensor, b: Tensor) -> bool:
    """Return whether two float64 evaluations of one formula agree: thousands of roundings of 1e-16."""
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-11, atol=1e-11)
