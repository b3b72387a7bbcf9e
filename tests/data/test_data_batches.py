"""Batches: the order depends on the seed and the epoch, and on nothing else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from initbench.data.batches import Batches, check_batch_size, first_batch
from initbench.errors import UsageError

sizes = st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n)))
seeds = st.lists(st.integers(0, 5), min_size=1, max_size=4)
quick = settings(deadline=None, max_examples=60)


@given(sizes, seeds)
@quick
def test_an_epoch_shows_each_sample_at_most_once(size, seeds):
    samples, batch_size = size
    batches = Batches(samples, batch_size, seeds)
    epoch = torch.cat([batches.indices(step) for step in range(batches.per_epoch)], dim=1)
    assert epoch.shape == (len(seeds), batches.per_epoch * batch_size)
    assert epoch.dtype == torch.int64
    assert samples - epoch.shape[1] < batch_size
    for row in epoch:
        assert len(set(row.tolist())) == len(row)
        assert 0 <= row.min() <= row.max() < samples


@given(sizes, seeds, st.lists(st.integers(0, 200), min_size=1, max_size=6))
@quick
def test_any_step_can_be_asked_in_any_order(size, seeds, steps):
    batches = Batches(*size, seeds)
    for step in steps:
        assert torch.equal(batches.indices(step), Batches(*size, seeds).indices(step))


@given(sizes, seeds, st.integers(0, 200))
@quick
def test_a_run_sees_the_same_batches_whatever_its_cohort(size, seeds, step):
    together = Batches(*size, seeds).indices(step)
    for row, seed in zip(together, seeds, strict=True):
        assert torch.equal(row, Batches(*size, [seed]).indices(step)[0])


@given(sizes, seeds, st.integers(0, 50), st.data())
@quick
def test_keep_drops_rows_now_and_in_later_epochs(size, seeds, step, data):
    batches = Batches(*size, seeds)
    if data.draw(st.booleans()):
        batches.indices(step)
    alive = data.draw(st.lists(st.integers(0, len(seeds) - 1), unique=True).map(sorted))
    batches.keep(alive)
    for later in (step, step + batches.per_epoch):
        assert torch.equal(batches.indices(later), Batches(*size, seeds).indices(later)[alive])


def test_seeds_and_epochs_differ():
    batches = Batches(1000, 100, [0, 1])
    first, second = batches.indices(0), batches.indices(batches.per_epoch)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, second)
    assert len({tuple(row.tolist()) for row in (*first, *second)}) == 4


def test_one_permutation_a_seed_and_epoch(monkeypatch):
    drawn = []
    randperm = torch.randperm
    monkeypatch.setattr(torch, "randperm", lambda *a, **k: drawn.append(a) or randperm(*a, **k))
    batches = Batches(100, 10, [3, 3, 4])
    for step in range(20):
        batches.indices(step)
    assert len(drawn) == 4


@given(sizes, st.integers(0, 5))
@quick
def test_first_batch_is_that_of_step_0(size, seed):
    x = torch.rand(size[0], 2, 3)
    index = Batches(*size, [seed]).indices(0)[0]
    assert torch.equal(first_batch(x, size[1], seed), torch.stack([x[number] for number in index]))


@pytest.mark.parametrize("batch_size", [0, 11])
def test_batch_size_that_cannot_be(batch_size):
    check_batch_size(10, 10)
    with pytest.raises(UsageError, match=r"train\.batch_size .* 10; found"):
        check_batch_size(10, batch_size)
    with pytest.raises(UsageError, match=r"train\.batch_size .* 10; found"):
        Batches(10, batch_size, [0])
