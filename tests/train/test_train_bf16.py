"""bf16: a run's numbers do not depend on its cohort, and are those of a slow twin with explicit casts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cohorts import CLASSES, CPU, DIM, OPTIMIZERS, nets, same, separable, train
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slices import each_once_fast
from test_train_cohort import THREADS_AGREE, assert_size_changes_nothing, assert_threads_agree
from torch import Tensor

from initbench.components.activation import ACTIVATIONS
from initbench.components.norm import NORMS
from initbench.components.target import SampleShape
from initbench.config.schema import ExperimentConfig
from initbench.models.build import build
from initbench.registry_choice import default_choice
from initbench.runner.run_identity import training_mode
from initbench.train import cohort as cohort_module
from initbench.train.cohort import Cohort

WIDTH, BATCH = 36, 64
FITTING = [
    entry.name for entry in NORMS if entry.problem((WIDTH,), default_choice(NORMS, entry.name)) is None
]


def config_of(
    make_config: Any, *, width: int = WIDTH, norm: Any = "none", activation: str = "relu", **more: Any
) -> ExperimentConfig:
    config: ExperimentConfig = make_config(
        model={"depth": 4, "width": width, "norm": norm, "activation": activation},
        train={"steps": 4, "batch_size": BATCH, "eval_every": 4, **OPTIMIZERS["momentum"], **more}
        | {"precision": "bf16"},
    )
    return config


@pytest.mark.parametrize("norm", FITTING)
def test_the_size_of_the_cohort_changes_no_bit_with_any_norm(make_config: Any, norm: str) -> None:
    config = config_of(make_config, norm=norm)
    assert training_mode(config, CPU) == "vmap"
    assert_size_changes_nothing(config)


@pytest.mark.parametrize(
    ("activation", "shape"), each_once_fast(ACTIVATIONS.names(), [(WIDTH, BATCH), (37, 50)])
)
def test_nor_with_any_activation_where_runs_are_stacked(
    make_config: Any, activation: str, shape: tuple[int, int]
) -> None:
    width, batch_size = shape
    config = config_of(make_config, activation=activation, width=width, batch_size=batch_size)
    stacked = training_mode(config, CPU) == "vmap"
    assert stacked == (width == WIDTH or ACTIVATIONS[activation].rounds_alike)
    if stacked:
        assert_size_changes_nothing(config)


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    width=st.integers(14, 300),
    batch_size=st.integers(16, 150),
    optimizer=st.sampled_from(list(OPTIMIZERS)),
    clip_norm=st.sampled_from([None, 0.5]),
)
def test_nor_in_nets_of_any_width(
    make_config: Any, width: int, batch_size: int, optimizer: str, clip_norm: float | None
) -> None:
    config = config_of(
        make_config, width=width, batch_size=batch_size, clip_norm=clip_norm, **OPTIMIZERS[optimizer]
    )
    if training_mode(config, CPU) == "vmap":
        assert_size_changes_nothing(config)


@pytest.mark.parametrize("seeds", [[4, 5, 6], [4, 5]])
@pytest.mark.parametrize("lost", [0, 1])
def test_a_run_that_diverges_leaves_the_others_alone(make_config: Any, seeds: list[int], lost: int) -> None:
    config = config_of(make_config, width=40, steps=30, eval_every=6)
    ear = train(config, seeds, poison=(lost, 10))
    others = [seed for k, seed in enumerate(seeds) if k != lost]
    without = train(config, others)
    assert ear.outcomes[lost].diverged is not None
    for position, seed in enumerate(others):
        mine = ear.outcomes[seeds.index(seed)]
        assert mine.final == without.outcomes[position].final
        assert same(mine.parameters, without.outcomes[position].parameters)


def test_a_run_that_resumes_alone_gives_the_numbers_of_its_cohort(make_config: Any) -> None:
    config = config_of(make_config, norm="batch")
    together = Cohort(nets(config, range(3)), config.train, "vmap", CPU)
    x, y = batches(3)
    for _ in range(3):
        step(together, x, y)
    alone = Cohort(nets(config, [1]), config.train, "vmap", CPU)
    alone.resume([together.checkpoint(1, 3)])
    for _ in range(3):
        step(together, x, y)
        step(alone, x[1:2], y[1:2])
    for mine, theirs in zip(alone.run_state(0), together.run_state(1), strict=True):
        assert same(mine, theirs)


@THREADS_AGREE
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_one_and_two_threads_agree(make_config: Any, norm: str) -> None:
    assert_threads_agree(config_of(make_config, width=128, norm=norm, batch_size=256), 3)


def test_a_batch_of_one_run_is_stacked_with_a_copy_where_products_differ(
    make_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(make_config, norm="batch")
    x, y = batches(1)
    states = []
    for differs in (True, False):
        monkeypatch.setattr(cohort_module, "bf16_stack_of_one_differs", lambda differs=differs: differs)
        cohort = Cohort(nets(config, [0]), config.train, "vmap", CPU)
        for _ in range(2):
            losses = step(cohort, x, y)
        assert losses.shape == (1,)
        states.append(cohort.run_state(0))
    for copied, plain in zip(*states, strict=True):
        for name, tensor in copied.items():
            torch.testing.assert_close(tensor, plain[name], rtol=0.02, atol=1e-3)
            assert "running" not in name or bool(tensor.abs().sum() > 0), "buffers are written back"


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_gradients_are_those_of_a_twin_with_explicit_casts(make_config: Any, norm: str) -> None:
    """The twin multiplies in float64: a sum near the middle of two bf16 numbers may round otherwise."""
    config = config_of(make_config, norm=norm)
    networks = nets(config, range(2))
    cohort = Cohort(networks, config.train, "vmap", CPU)
    x, y = batches(2)
    losses = cohort.gradients(x, y)
    exact = Cohort(networks, config.train.model_copy(update={"precision": "fp32"}), "vmap", CPU)
    exact.gradients(x, y)
    for k, network in enumerate(networks):
        parameters = {name: p.detach().clone().requires_grad_() for name, p in network.named_parameters()}
        loss = torch.nn.functional.cross_entropy(twin_forward(parameters, x[k]), y[k])
        loss.backward()
        assert losses[k].item() == pytest.approx(loss.item(), rel=1e-3)
        for name, parameter in parameters.items():
            if norm == "batch" and name.endswith("linear.bias"):
                continue  # cancelled by the norm: its gradient is rounding alone
            expected, ours, theirs = parameter.grad, cohort.parameters[name].grad, exact.parameters[name].grad
            assert isinstance(expected, Tensor)
            assert isinstance(ours, Tensor)
            assert isinstance(theirs, Tensor)
            assert ours.dtype is torch.float32
            assert distance(ours[k], expected) < 2e-4, name  # measured: 0 to 2e-5
            assert distance(theirs[k], expected) > 1e-3, "float32 is farther away"


def twin_forward(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
    """Return the logits of an mlp of relu layers, each product rounded to bf16 by hand."""
    h = x
    weights = [name for name in parameters if name.endswith(("linear.weight", "head.weight"))]
    for name in (weight.removesuffix(".weight") for weight in weights):
        h = Product.apply(parameters[f"{name}.weight"], h)
        if f"{name}.bias" in parameters:
            h = Rounded.apply(h + Rounded.apply(parameters[f"{name}.bias"]))
        if name == "head":
            return h
        norm = name.replace("linear", "norm")
        if f"{norm}.weight" in parameters:
            centred = h - h.mean(0)
            h = centred / (centred.square().mean(0) + 1e-5).sqrt()
            h = h * parameters[f"{norm}.weight"] + parameters[f"{norm}.bias"]
        h = h.relu()
    raise AssertionError("an mlp ends with its head")


def rounded(x: Tensor) -> Tensor:
    return x.to(torch.bfloat16).to(torch.float32)


class Rounded(torch.autograd.Function):
    """Rounding to bf16 of a number and of its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return rounded(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return rounded(gradient)


class Product(torch.autograd.Function):
    """x Wᵀ and its two backward products, of operands rounded to bf16, each rounded to bf16."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(rounded(weight).double(), rounded(x).double())
        return rounded((rounded(x).double() @ rounded(weight).double().mT).float())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        weight, x = ctx.saved_tensors
        g = rounded(gradient).double()
        return rounded((g.mT @ x).float()), rounded((g @ weight).float())


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def batches(runs: int) -> tuple[Tensor, Tensor]:
    split = separable(runs * BATCH)
    return split.x.view(runs, BATCH, DIM), split.y.view(runs, BATCH)


def step(cohort: Cohort, x: Tensor, y: Tensor) -> Tensor:
    losses = cohort.gradients(x, y)
    cohort.update(0.02)
    return losses


def test_a_wide_run_alone_is_that_of_a_pair(make_config: Any) -> None:
    """With 784 inputs and 200 units, AMX rounds single products differently: without the copy this fails."""
    config = config_of(make_config, width=200, batch_size=48)
    features, stream = 784, torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 48, features, generator=stream), torch.arange(96).view(2, 48) % CLASSES
    split = torch.randn(600, features, generator=stream), torch.arange(600) % CLASSES
    cohorts = []
    for seeds in ([0, 1], [0]):
        networks = [
            build(config.model, config.init, form=SampleShape((features,), CLASSES), seed=seed, batch=x[0])
            for seed in seeds
        ]
        cohorts.append(Cohort(networks, config.train, "vmap", CPU))
        for _ in range(4):
            step(cohorts[-1], x[: len(seeds)], y[: len(seeds)])
    pair, alone = cohorts
    assert same(alone.run_state(0)[0], pair.run_state(0)[0])
    assert [scores[0] for scores in alone.evaluate(*split)] == [scores[0] for scores in pair.evaluate(*split)]
