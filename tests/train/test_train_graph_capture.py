"""A captured function has the results of the function itself, bit for bit, or is not replayed."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from initbench.components.activation import ACTIVATIONS
from initbench.components.norm import NORMS
from initbench.components.target import SampleShape
from initbench.config.schema import ExperimentConfig
from initbench.models.build import build
from initbench.train import graph_capture
from initbench.train.cohort import Cohort
from initbench.train.graph_capture import GraphCapture
from tests.train.cohorts import CLASSES, CPU, DIM, OPTIMIZERS, nets, separable

BATCH, CALLS = 16, 4


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Counted:
    """Counts how often Python calls a function; a replay does not."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.calls = function, 0

    def __call__(self, *inputs: Tensor) -> Any:
        self.calls += 1
        return self.function(*inputs)


def same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0))


# Each operation takes two tensors (4, 4) and returns one; together they have views, multiple results,
# operations without a variant for given memory, writes in place, and results of another type.
OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "matmul": lambda a, b: a @ b,
    "add": lambda a, b: a + b,
    "transposed": lambda a, b: a.mT + b,
    "view": lambda a, _b: a.reshape(2, 8).view(4, 4).mT,
    "expanded": lambda a, b: a.sum(0, keepdim=True).expand(4, 4) * b,
    "chosen": lambda a, b: torch.where(a > b, a, b),
    "two_results": lambda a, b: torch.max(a, dim=1, keepdim=True).values.expand(4, 4) - b,
    "norm": lambda a, _b: torch.nn.functional.layer_norm(a, (4,)),
    "in_place": lambda a, b: (a * 2).add_(b).mul_(0.5),
    "in_place_view": lambda a, b: _with_changed_row(a.clone(), b),
    "filled": lambda a, b: torch.zeros_like(a).index_add_(0, torch.tensor([2, 0, 3, 1]), b),
    "half": lambda a, b: (a.bfloat16() @ b.bfloat16()).float(),
    "constant": lambda a, _b: a + torch.full((4, 4), 0.25),
    "logarithm": lambda a, _b: a.log(),
    "rows": lambda a, b: torch.cat([a[:2], b[2:]]),
}


def _with_changed_row(a: Tensor, b: Tensor) -> Tensor:
    a[1] += b[0]
    return a


@settings(max_examples=150, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(sorted(OPERATIONS)), st.integers(0, 30), st.integers(0, 30)),
        min_size=1,
        max_size=14,
    ),
    kept=st.lists(st.integers(0, 30), min_size=1, max_size=4),
)
def test_any_program_is_replayed_exactly(steps: list[tuple[str, int, int]], kept: list[int]) -> None:
    """Values that later operations or the results need survive, though memory is used again."""

    def program(x: Tensor, y: Tensor) -> list[Tensor]:
        values = [x, y]
        for name, i, j in steps:
            values.append(OPERATIONS[name](values[i % len(values)], values[j % len(values)]))
        return [values[k % len(values)] for k in kept]

    counted = Counted(program)
    capture = GraphCapture[Any]()
    captured = partial(capture.call, counted)
    for seed in range(CALLS):
        x, y = drawn(4, 4, seed=seed), drawn(4, 4, seed=seed + 100)
        given_x, given_y = x.clone(), y.clone()
        for mine, expected in zip(captured(x, y), program(given_x, given_y), strict=True):
            assert same(mine, expected)
        assert torch.equal(x, given_x)
        assert torch.equal(y, given_y)
    assert counted.calls == 1


def test_memory_is_used_again() -> None:
    def chain(x: Tensor) -> Tensor:
        for _ in range(50):
            x = torch.tanh(x) * 1.5
        return x

    capture = GraphCapture[Any]()
    captured = partial(capture.call, chain)
    captured(drawn(64))
    assert capture.replays
    places = [operation.keywords["out"].data_ptr() for operation in capture._replay._operations]  # type: ignore
    assert len(places) == 100
    assert len(set(places)) <= 3


def test_writes_to_outside_tensors_happen_once_per_call() -> None:
    total, steps = torch.zeros(3), torch.zeros(())

    def accumulate(x: Tensor) -> Tensor:
        total.add_(x.sum(0))
        steps.add_(1)
        return total / steps

    capture = GraphCapture[Any]()
    captured = partial(capture.call, accumulate)
    x = drawn(5, 3)
    for call in range(1, CALLS + 1):
        mean = captured(x)
        assert steps == call
        assert torch.equal(mean, total / call)


def test_gradients_are_captured() -> None:
    weight = drawn(4, 3, seed=1).requires_grad_()

    def loss(x: Tensor) -> tuple[Tensor, Tensor]:
        value = (x @ weight).relu().square().mean()
        return value.detach(), torch.autograd.grad(value, weight)[0]

    counted = Counted(loss)
    capture = GraphCapture[Any]()
    captured = partial(capture.call, counted)
    for seed in range(CALLS):
        x = drawn(8, 4, seed=seed)
        assert all(map(torch.equal, captured(x), loss(x)))
        with torch.no_grad():
            weight.mul_(0.9)
    assert counted.calls == 1


@pytest.mark.parametrize("name", ["mse_loss", "huber_loss", "smooth_l1_loss", "binary_cross_entropy"])
def test_losses_are_captured_without_warnings(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    loss = getattr(torch.nn.functional, name)
    outputs, targets = drawn(4, 4).sigmoid(), drawn(4, 4, seed=1).sigmoid()
    counted = Counted(lambda x, y: loss(x, y))
    capture = GraphCapture[Any]()
    for _ in range(CALLS):
        assert same(capture.call(counted, outputs, targets), loss(outputs, targets))
    assert counted.calls == 1 and "resized" not in capfd.readouterr().err


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * torch.rand(x.shape),
        lambda x: torch.nn.functional.dropout(x, 0.5),
        lambda x: x * 2 if x.sum().item() > 0 else x,
        lambda x: x[x > 0].sum(),
        lambda x: torch.bernoulli(x.sigmoid()),
    ],
    ids=["random", "dropout", "value", "shape", "bernoulli"],
)
def test_functions_that_cannot_be_replayed_are_called(function: Callable[[Tensor], Tensor]) -> None:
    counted = Counted(function)
    capture = GraphCapture[Any]()
    captured = partial(capture.call, counted)
    for seed in range(CALLS):
        torch.manual_seed(seed)
        mine = captured(drawn(9, seed=seed)).clone()
        torch.manual_seed(seed)
        assert same(mine, function(drawn(9, seed=seed)))
    assert counted.calls == CALLS


def test_inputs_of_another_shape_are_computed_by_the_function() -> None:
    counted = Counted(lambda x: x.exp().sum())
    capture = GraphCapture[Any]()
    captured = partial(capture.call, counted)
    for length in (5, 5, 3, 5):
        x = drawn(length, seed=length)
        assert torch.equal(captured(x), x.exp().sum())
    assert counted.calls == 2


def test_large_functions_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_capture, "MAX_BYTES", 1000)
    counted = Counted(lambda x: (x + 1) * 2)
    capture = GraphCapture[Any]()
    captured = partial(capture.call, counted)
    for _ in range(CALLS):
        captured(drawn(1000))
    assert counted.calls == CALLS


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA can capture these operations")
def test_operations_that_cuda_cannot_capture_are_called_one_by_one() -> None:
    capture = GraphCapture[Any]()
    captured = partial(capture.call, lambda x: (x * 2).sum())
    captured(drawn(9))
    assert capture._replay is not None
    capture._replay.become_cuda_graph()
    x = drawn(9, seed=1)
    assert torch.equal(captured(x), (x * 2).sum())


def test_results_that_are_not_numbers_are_replayed() -> None:
    counted = Counted(lambda x: (x.log(), x / 0.0))
    capture = GraphCapture[Any]()
    captured = partial(capture.call, counted)
    for seed in range(CALLS):
        x = drawn(9, seed=seed)
        assert all(map(same, captured(x), (x.log(), x / 0.0)))
    assert counted.calls == 1


MAPS_ONLY = {"instance", "frn"}
CONFIGS: dict[str, dict[str, Any]] = {
    **{f"activation {name}": {"model": {"activation": name}} for name in ACTIVATIONS.names()},
    **{
        f"norm {entry.name}": {"model": {"norm": entry.name}}
        for entry in NORMS
        if entry.name not in MAPS_ONLY
    },
    "norm ghost_batch": {"model": {"norm": {"name": "ghost_batch", "ghost_size": 8}}},
    **{f"optimizer {name}": {"train": options} for name, options in OPTIMIZERS.items()},
    "clip_norm": {"train": {"clip_norm": 0.3}},
    "label_smoothing": {"train": {"label_smoothing": 0.2}},
    "bf16": {"train": {"precision": "bf16"}},
    "bf16 and batch norm": {"train": {"precision": "bf16"}, "model": {"norm": "batch"}},
    "without bias": {"model": {"bias": False}},
    "residual": {"model": {"family": "resnet_mlp", "depth": 4, "norm": "batch"}},
}


def small(make_config: Any, model: Any = {}, train: Any = {}) -> ExperimentConfig:  # noqa: B006
    return make_config(  # type: ignore[no-any-return]
        model={"width": 24, "depth": 3, **model}, train={"batch_size": BATCH, **train}
    )


@pytest.mark.parametrize("runs", [1, 3])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_captured_cohort_has_the_numbers_of_a_plain_one(make_config: Any, name: str, runs: int) -> None:
    config = small(make_config, **CONFIGS[name])
    plain, captured = (
        Cohort(nets(config, range(runs)), config.train, "vmap", CPU, captures=captures)
        for captures in (False, True)
    )
    split = separable(530, seed=5)
    for step in range(CALLS):
        batch = separable(runs * BATCH, seed=step)
        x, y = batch.x.view(runs, BATCH, DIM), batch.y.view(runs, BATCH)
        assert torch.equal(captured.gradients(x, y), plain.gradients(x, y))
        for cohort in (plain, captured):
            cohort.update(0.05)
        assert captured.evaluate(split.x, split.y) == plain.evaluate(split.x, split.y)
    for tensors in ("parameters", "buffers"):
        mine, theirs = getattr(captured, tensors), getattr(plain, tensors)
        assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
    replayed = {key for key, function in captured._captured.items() if function.replays}
    assert replayed == {"gradients", "statistics"}


@pytest.mark.parametrize("norm", ["none", "batch", "group", "batch_renorm", "instance"])
def test_a_captured_convolutional_net_has_the_numbers_of_a_plain_one(make_config: Any, norm: str) -> None:
    """The kernel of batch norm writes to the running statistics without declaring it."""
    model = {"family": "cnn", "width": 8, "depth": 4, "stages": 2, "norm": norm}
    config = make_config(model=model, train={"batch_size": BATCH})
    form = SampleShape((3, 8, 8), CLASSES)
    plain, captured = (
        Cohort(
            [build(config.model, config.init, form=form, seed=1, batch=drawn(8, *form.shape))],
            config.train,
            "single",
            CPU,
            captures=captures,
        )
        for captures in (False, True)
    )
    y = torch.arange(BATCH).remainder(CLASSES)[None]
    for step in range(CALLS):
        x = drawn(1, BATCH, *form.shape, seed=step)
        assert torch.equal(captured.gradients(x, y), plain.gradients(x, y))
        for cohort in (plain, captured):
            cohort.update(0.05)
    for tensors in ("parameters", "buffers"):
        mine, theirs = getattr(captured, tensors), getattr(plain, tensors)
        assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
    assert captured._captured["gradients"].replays


def test_runs_that_leave_a_captured_cohort_change_nothing(make_config: Any) -> None:
    config = small(make_config, model={"norm": "batch"}, train=OPTIMIZERS["adam"])
    plain, captured = (
        Cohort(nets(config, range(3)), config.train, "vmap", CPU, captures=captures)
        for captures in (False, True)
    )
    for step in range(6):
        batch = separable(3 * BATCH, seed=step)
        for cohort in (plain, captured):
            kept = cohort.size
            x, y = batch.x.view(3, BATCH, DIM)[:kept], batch.y.view(3, BATCH)[:kept]
            cohort.gradients(x, y)
            if step == 2:
                cohort.keep([0, 2])
            cohort.update(0.01)
    assert captured.size == 2
    assert all(torch.equal(captured.parameters[key], plain.parameters[key]) for key in plain.parameters)


def test_a_captured_cohort_is_freed_when_nothing_refers_to_it(make_config: Any) -> None:
    config = small(make_config)
    cohort = Cohort(nets(config, [0]), config.train, "vmap", CPU, captures=True)
    batch = separable(BATCH)
    cohort.gradients(batch.x[None], batch.y[None])
    gone = weakref.ref(cohort)
    gc.disable()
    try:
        del cohort
        assert gone() is None
    finally:
        gc.enable()
