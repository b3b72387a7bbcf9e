"""Budgets, moments of evaluation, what the listener hears, thread pacing and numerics."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from cohorts import CPU, bundle, separable, train
from hypothesis import given
from hypothesis import strategies as st

from initbench.config.schema import TrainOptions
from initbench.determinism import one_thread
from initbench.train import matmul_precision, thread_tuner
from initbench.train.loop import evaluation_steps, fixed_sample, total_steps
from initbench.train.matmul_precision import FP32_ERROR, matmul_backend, true_fp32
from initbench.train.thread_tuner import ThreadPacer


@given(steps=st.integers(1, 100_000), every=st.none() | st.integers(1, 100_000))
def test_evaluation_begins_at_0_and_ends_at_the_end(steps: int, every: int | None) -> None:
    if every is not None and steps // every > 1000:
        every = steps // 1000
    moments = evaluation_steps(TrainOptions(eval_every=every), steps)
    assert moments[0] == 0
    assert moments[-1] == steps
    assert moments == sorted(set(moments))
    if every is None:
        assert len(moments) == min(steps, 10) + 1
        gaps = [b - a for a, b in pairwise(moments)]
        assert max(gaps) - min(gaps) <= 1
    else:
        assert all(moment % every == 0 for moment in moments[:-1])
        assert len(moments) == math.ceil(steps / every) + 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 2000),
        ({"steps": 7}, 7),
        ({"epochs": 3.0}, 30),
        ({"epochs": 0.26}, 3),
        ({"epochs": 0.001}, 1),
    ],
)
def test_the_budget(options: dict[str, Any], expected: int) -> None:
    assert total_steps(TrainOptions(**options), per_epoch=10) == expected


def test_the_fixed_sample_is_the_same_for_all_and_has_no_sample_twice() -> None:
    split = separable(100)
    one, two = fixed_sample(split, 30), fixed_sample(split, 30)
    assert torch.equal(one.x, two.x)
    assert len({tuple(row) for row in one.x.tolist()}) == 30
    assert len(fixed_sample(split, 1000)) == 100
    place = {tuple(row): int(y) for row, y in zip(split.x.tolist(), split.y, strict=True)}
    assert all(place[tuple(row)] == int(y) for row, y in zip(one.x.tolist(), one.y, strict=True))


def test_what_a_listener_hears(make_config: Any) -> None:
    config = make_config(train={"steps": 12, "batch_size": 50, "eval_every": 5})
    ear = train(config, [0, 1])
    assert ear.steps == [(step, 2) for step in range(1, 13)]
    for run in range(2):
        assert [entry["step"] for entry in ear.entries[run]] == [0, 5, 10, 12]
        assert [entry["epoch"] for entry in ear.entries[run]] == [0, 5 / 6, 10 / 6, 2.0]
        assert list(ear.entries[run][0]) == ["step", "epoch", "train_loss", "val_loss", "val_accuracy"]
        moments = [(s["when"], s["step"]) for s in ear.snapshots[run]]
        assert moments == [("init", 0), ("train", 5), ("train", 10), ("end", 12)]
        detailed = ["quantiles" in s["layers"][0]["pre"] for s in ear.snapshots[run]]
        assert detailed == [True, False, False, True], "what is slow is measured at both ends alone"
        assert ear.outcomes[run].diverged is None


@pytest.mark.parametrize("when", [["init"], ["end"], ["init", "end"], ["train"], []])
def test_probes_are_made_when_asked_for_alone(make_config: Any, when: list[str]) -> None:
    config = make_config(train={"steps": 12, "batch_size": 50, "eval_every": 5}, probe={"when": when})
    ear = train(config, [0])
    all_moments = [("init", 0), ("train", 5), ("train", 10), ("end", 12)]
    heard = [(s["when"], s["step"]) for s in ear.snapshots.get(0, [])]
    assert heard == [moment for moment in all_moments if moment[0] in when]


def test_the_label_smoothing_is_in_the_training_loss_alone(make_config: Any) -> None:
    """With a learning rate of 0 the weights stay, and so must the evaluations."""
    plain, smooth = (
        train(
            make_config(train={"steps": 6, "batch_size": 300, "lr": 0.0, "label_smoothing": smoothing}),
            [0],
            data=bundle(300),
        )
        for smoothing in (0.0, 0.4)
    )
    assert plain.entries[0] == smooth.entries[0]
    gradient = [ear.snapshots[0][0]["layers"][-1]["grad"]["pre_q"] for ear in (plain, smooth)]
    assert gradient[0] != gradient[1], "the probe measures the loss that is trained on"


class Clock:
    """time, as far as the pacer uses it."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    fake = Clock()
    count = SimpleNamespace(now=1)
    monkeypatch.setattr(thread_tuner, "time", fake)
    monkeypatch.setattr(torch, "get_num_threads", lambda: count.now)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: setattr(count, "now", n))
    yield fake


def paced(pacer: ThreadPacer, clock: Clock, cost: dict[int, float], steps: int) -> list[int]:
    """Take steps that cost `cost[threads]` seconds; returns the thread count of each."""
    used = []
    for _ in range(steps):
        with pacer.step():
            used.append(torch.get_num_threads())
            clock.now += cost[used[-1]]
    return used


FASTER, SLOWER, COLLAPSED = {1: 0.010, 2: 0.007}, {1: 0.010, 2: 0.012}, {1: 0.010, 2: 0.200}


def test_the_pacer_begins_with_one_thread_and_settles_on_two_where_they_help(clock: Clock) -> None:
    pacer = ThreadPacer(2)
    used = paced(pacer, clock, FASTER, 1000)
    assert used[: thread_tuner.WARM_UP] == [1] * thread_tuner.WARM_UP
    assert used[thread_tuner.WARM_UP + 1 :] == [2] * (999 - thread_tuner.WARM_UP)
    assert pacer.steps_with == {1: used.count(1), 2: used.count(2)}


def test_the_pacer_settles_on_one_where_two_do_not_help(clock: Clock) -> None:
    used = paced(ThreadPacer(2), clock, SLOWER, 20_000)
    assert used.count(2) > 0, "it tries"
    assert used.count(2) < 0.01 * len(used)


def test_the_pacer_never_uses_more_than_it_may(clock: Clock) -> None:
    assert set(paced(ThreadPacer(1), clock, FASTER, 500)) == {1}


def test_a_slow_first_step_is_not_the_time_to_beat(clock: Clock) -> None:
    pacer = ThreadPacer(2)
    paced(pacer, clock, {1: 5.0, 2: 5.0}, 1)
    assert paced(pacer, clock, SLOWER, 2000).count(2) < 200


def test_a_collapse_is_left_within_a_few_steps_and_forgotten_when_it_is_over(clock: Clock) -> None:
    pacer = ThreadPacer(2)
    paced(pacer, clock, FASTER, 1000)
    collapsed = paced(pacer, clock, COLLAPSED, 1000)
    back = collapsed.index(1)
    assert 2 <= back <= 5, "one hiccup is forgiven, a few are not"
    assert collapsed.count(2) < 30
    recovered = paced(pacer, clock, FASTER, 5000)
    assert recovered[-1] == 2
    assert recovered.count(2) > 0.6 * len(recovered)


def test_one_hiccup_is_forgiven(clock: Clock) -> None:
    pacer = ThreadPacer(2)
    paced(pacer, clock, FASTER, 1000)
    paced(pacer, clock, COLLAPSED, 1)
    assert set(paced(pacer, clock, FASTER, 100)) == {2}


def test_the_thread_count_is_restored_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ValueError, match="x"), one_thread():
        torch.set_num_threads(before + 1)
        raise ValueError("x")
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("before", ["highest", "high", "medium"])
def test_true_fp32_leaves_the_setting_as_it_was(before: str) -> None:
    found = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(before)
        with pytest.raises(ValueError, match="x"), true_fp32(CPU):
            raise ValueError("x")
        assert torch.get_float32_matmul_precision() == before
    finally:
        torch.set_float32_matmul_precision(found)


@pytest.mark.parametrize("shape", [(128, 256, 64), (7, 1000, 33), (512, 20, 512)])
def test_its_product_is_accurate_to_float32(shape: tuple[int, int, int]) -> None:
    """bf16 would be off by 4e-3, TF32 by 5e-4."""
    m, n, k = shape
    stream = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, m, n, generator=stream), torch.randn(2, n, k, generator=stream)
    exact = a.double() @ b.double()
    with true_fp32(CPU):
        assert float((a @ b - exact).norm() / exact.norm()) < FP32_ERROR
        assert float((a[0] @ b[0] - exact[0]).norm() / exact[0].norm()) < FP32_ERROR
    rounded = (a.bfloat16() @ b.bfloat16()).double()
    assert float((rounded - exact).norm() / exact.norm()) > 100 * FP32_ERROR


def test_where_onednn_would_round_it_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matmul_precision, "onednn_keeps_fp32", lambda: False)
    assert matmul_backend(CPU) == "default"
    with true_fp32(CPU):
        assert torch.get_float32_matmul_precision() == "highest"
    monkeypatch.setattr(matmul_precision, "onednn_keeps_fp32", lambda: True)
    assert matmul_backend(CPU) == "onednn"
    with true_fp32(CPU):
        assert torch.get_float32_matmul_precision() == "medium"
    assert matmul_backend(torch.device("cuda")) == "default"


def test_a_cpu_that_rounds_to_bf16_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU with AMX, the product under "medium" would be as inexact as bf16."""
    measure = matmul_precision.onednn_keeps_fp32.__wrapped__
    assert measure() in (True, False)
    true_randn = torch.randn

    class Rounding(torch.Tensor):
        def __matmul__(self, other: Any) -> Any:
            a, b = self.as_subclass(torch.Tensor), other.as_subclass(torch.Tensor)
            if a.dtype == torch.float32 and torch.get_float32_matmul_precision() == "medium":
                return (a.bfloat16() @ b.bfloat16()).float()
            return a @ b

    monkeypatch.setattr(torch, "randn", lambda *a, **k: true_randn(*a, **k).as_subclass(Rounding))
    assert measure() is False
