"""Every optimizer against the torch.optim class it is made of, over 20 steps."""

from functools import partial

import pytest
import torch
from pydantic import ValidationError

from initbench.components.optimizer import OPTIMIZERS
from initbench.registry_choice import options_model

STEPS = 20


def _sgd(parameters, lr, weight_decay, momentum=0.0, nesterov=False):
    return torch.optim.SGD(parameters, lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov)


def _adam(cls):
    def make(parameters, lr, weight_decay, beta1=0.9, beta2=0.999, eps=1e-8):
        return cls(parameters, lr=lr, weight_decay=weight_decay, betas=(beta1, beta2), eps=eps)

    return make


TORCH = {"sgd": _sgd, "adam": _adam(torch.optim.Adam), "adamw": _adam(torch.optim.AdamW)}
TORCH["rmsprop"] = torch.optim.RMSprop
VARIANTS = [
    ("sgd", {}),
    ("sgd", {"momentum": 0.9}),
    ("sgd", {"momentum": 0.7, "nesterov": True}),
    ("adam", {}),
    ("adam", {"beta1": 0.5, "beta2": 0.9, "eps": 1e-3}),
    ("adam", {"beta1": 0.0}),
    ("adamw", {}),
    ("adamw", {"beta1": 0.8, "beta2": 0.95, "eps": 1e-4}),
    ("rmsprop", {}),
    ("rmsprop", {"alpha": 0.8, "eps": 1e-3}),
    ("rmsprop", {"momentum": 0.9}),
]


def options_of(name, **options):
    return options_model(OPTIMIZERS[name], "name")(**options)


def start():
    """Stacked tensors as a cohort has them: (K, out, in) and (K, out)."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator) for shape in ((3, 5, 4), (3, 5))]


def gradients_at(parameters, step):
    """Return gradients of a quadratic whose slope changes from step to step; they depend on past updates."""
    generator = torch.Generator().manual_seed(step)
    return [0.3 * p + torch.randn(p.shape, generator=generator) for p in parameters]


def ours(name, options, *, weight_decay, steps=STEPS):
    parameters, chosen = start(), options_of(name, **options)
    state = OPTIMIZERS[name].start(parameters)
    for step in range(steps):
        gradients = gradients_at(parameters, step)
        lr = 0.05 / (1 + step)
        OPTIMIZERS[name].update(parameters, gradients, state, chosen, lr=lr, weight_decay=weight_decay)
    return parameters


def theirs(name, options, *, weight_decay, steps=STEPS):
    parameters = [torch.nn.Parameter(p) for p in start()]
    optimizer = TORCH[name](parameters, lr=0.05, weight_decay=weight_decay, **options)
    for step in range(steps):
        for parameter, gradient in zip(parameters, gradients_at(parameters, step), strict=True):
            parameter.grad = gradient.detach()
        optimizer.param_groups[0]["lr"] = 0.05 / (1 + step)
        optimizer.step()
    return [p.detach() for p in parameters]


def test_every_optimizer_has_a_twin_here():
    assert set(TORCH) == set(OPTIMIZERS.names()) == {name for name, _ in VARIANTS}


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_equals_torch_optim(name, options, weight_decay):
    """1e-6 relative to a tensor's size: fused and looped kernels round in another order."""
    for mine, torchs in zip(
        ours(name, options, weight_decay=weight_decay),
        theirs(name, options, weight_decay=weight_decay),
        strict=True,
    ):
        assert float((mine - torchs).abs().max()) <= 1e-6 * float(torchs.abs().max())


@pytest.mark.parametrize(
    ("name", "options"),
    [(name, options) for name, options in VARIANTS if options] + [("adam", {"eps": 1e-2})],
)
def test_every_option_has_an_effect(name, options):
    """Ensure that the twin above does not agree because both ignore the option."""
    for option in options:
        without = {key: value for key, value in options.items() if key != option}
        if option == "momentum" and "nesterov" in without:
            continue
        changed, default = ours(name, options, weight_decay=0.0), ours(name, without, weight_decay=0.0)
        assert float((changed[0] - default[0]).abs().max()) > 1e-4, option


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_weight_decay_has_an_effect(name):
    assert (
        float((ours(name, {}, weight_decay=0.1)[0] - ours(name, {}, weight_decay=0.0)[0]).abs().max()) > 1e-4
    )


def test_adamw_decays_the_weight_and_adam_the_gradient():
    adam, adamw = ours("adam", {}, weight_decay=0.1)[0], ours("adamw", {}, weight_decay=0.1)[0]
    assert float((adam - adamw).abs().max()) > 1e-4


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_runs_of_a_stack_do_not_mix(name, options):
    """The update of a slice alone is the slice of the update: state cut with its run stays valid."""
    whole = ours(name, options, weight_decay=0.1)
    parameters, chosen = start(), options_of(name, **options)
    state = OPTIMIZERS[name].start(parameters)
    for step in range(STEPS):
        if step == STEPS // 2:
            parameters = [p[1:2].clone() for p in parameters]
            state.slots = {slot: [t[1:2].clone() for t in tensors] for slot, tensors in state.slots.items()}
        full = [torch.cat([p] * 3) if len(p) == 1 else p for p in parameters]
        gradients = gradients_at(full, step)
        if step >= STEPS // 2:
            gradients = [g[1:2] for g in gradients]
        OPTIMIZERS[name].update(parameters, gradients, state, chosen, lr=0.05 / (1 + step), weight_decay=0.1)
    for mine, all_of_them in zip(parameters, whole, strict=True):
        assert torch.allclose(mine[0], all_of_them[1], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "options", "used"),
    [
        ("sgd", {}, set()),
        ("sgd", {"momentum": 0.9}, {"momentum"}),
        ("adam", {}, {"mean", "mean_square"}),
        ("adamw", {}, {"mean", "mean_square"}),
        ("rmsprop", {}, {"mean_square"}),
        ("rmsprop", {"momentum": 0.9}, {"mean_square", "momentum"}),
    ],
)
def test_the_state_is_what_the_update_uses(name, options, used):
    parameters = start()
    state = OPTIMIZERS[name].start(parameters)
    update = partial(OPTIMIZERS[name].update, options=options_of(name, **options), lr=0.1, weight_decay=0.0)
    update(parameters, gradients_at(parameters, 0), state)
    assert set(state.slots) == used
    for tensors in state.slots.values():
        assert [t.shape for t in tensors] == [p.shape for p in parameters]
        assert all(bool(t.any()) for t in tensors)


def test_nesterov_without_momentum_is_refused_at_its_key():
    with pytest.raises(ValidationError) as caught:
        options_of("sgd", nesterov=True)
    (error,) = caught.value.errors()
    assert error["ctx"]["at"] == "nesterov"
    assert "momentum" in error["msg"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sgd", {"momentum": 1.0}),
        ("adam", {"beta1": 1.0}),
        ("adam", {"eps": 0.0}),
        ("rmsprop", {"alpha": -0.1}),
    ],
)
def test_options_out_of_range_are_refused(name, options):
    with pytest.raises(ValidationError):
        options_of(name, **options)
