"""Orders that break i.i.d.: what a batch then holds, by sampling theory."""

from __future__ import annotations

from itertools import pairwise
from math import comb

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from initbench.data.batches import Batches, first_batch
from initbench.data.dataset import DataOptions
from initbench.data.sampling_order import SHUFFLED, Order, order_of
from initbench.rng import stream_generator
from tests.data.own_data import bundle, raw_of

CLASSES, PER_CLASS = 5, 40
LABELS = torch.arange(CLASSES).repeat(PER_CLASS)
N = len(LABELS)
quick = settings(deadline=None, max_examples=60)
orders = st.sampled_from(["shuffled", "sorted", "blocks(1)", "blocks(3)", "blocks(8)", "blocks(999)"])


def batches(order: str, batch_size: int, seeds: list[int]) -> Batches:
    return Batches(N, batch_size, seeds, order=order_of(order, LABELS))


def test_shuffled_is_the_permutation_it_always_was():
    for seed, epoch in ((0, 0), (3, 2)):
        plain = torch.randperm(N, generator=stream_generator(seed, "order", epoch))
        found = batches("shuffled", N, [seed]).indices(epoch)[0]
        assert torch.equal(found, plain)
    assert order_of("shuffled", LABELS) is SHUFFLED


@given(orders, st.integers(1, N), st.lists(st.integers(0, 5), min_size=1, max_size=3), st.integers(0, 40))
@quick
def test_every_order_is_a_permutation_that_seed_and_epoch_alone_decide(order, batch_size, seeds, step):
    together = batches(order, batch_size, seeds)
    begin = step - step % together.per_epoch
    epoch = torch.cat([together.indices(begin + i) for i in range(together.per_epoch)], dim=1)
    for row, seed in zip(epoch, seeds, strict=True):
        assert len(set(row.tolist())) == len(row)
        alone = batches(order, batch_size, [seed]).indices(step)[0]
        assert torch.equal(alone, together.indices(step)[seeds.index(seed)])


@pytest.mark.parametrize("order", ["sorted", "blocks(200)", "blocks(1000)"])
def test_sorted_goes_class_by_class_each_shuffled_anew(order):
    found = batches(order, N, [0, 1])
    first, second = found.indices(0), found.indices(1)
    for row in (*first, *second):
        assert torch.equal(LABELS[row], LABELS.sort().values)
    assert len({tuple(row.tolist()) for row in (*first, *second)}) == 4


@pytest.mark.parametrize("size", [3, 8, 64])
def test_blocks_are_pieces_of_the_sorted_order_in_another_order(size):
    row = batches(f"blocks({size})", N, [0]).indices(0)[0]
    by_class = batches("sorted", N, [0]).indices(0)[0]  # the same stream, so the same sorted order
    pieces = [tuple(piece.tolist()) for piece in torch.split(by_class, size)]
    found, at = [], 0
    while at < N:
        piece = next(piece for piece in pieces if piece[0] == int(row[at]))
        assert tuple(row[at : at + len(piece)].tolist()) == piece
        found.append(piece)
        at += len(piece)
    assert sorted(found) == sorted(pieces)
    assert found != pieces


def mean_classes(order: str, batch_size: int, epochs: int = 60) -> tuple[float, float]:
    """Mean number of classes in a batch, and its standard error taken over epochs, which are independent."""
    found = batches(order, batch_size, [0])
    counts = torch.tensor(
        [len(LABELS[found.indices(step)[0]].unique()) for step in range(epochs * found.per_epoch)],
        dtype=torch.float64,
    ).view(epochs, found.per_epoch)
    means = counts.mean(1)
    return float(means.mean()), float(means.std()) / epochs**0.5


def expected_classes(blocks_a_class: int, drawn: int) -> float:
    """Classes among `drawn` pure blocks of CLASSES·n, without replacement."""
    blocks = CLASSES * blocks_a_class
    return CLASSES * (1 - comb(blocks - blocks_a_class, drawn) / comb(blocks, drawn))


@pytest.mark.parametrize(
    ("order", "block"), [("shuffled", 1), ("blocks(1)", 1), ("blocks(4)", 4), ("blocks(8)", 8)]
)
def test_classes_in_a_batch_are_as_many_as_sampling_theory_says(order, block):
    mean, error = mean_classes(order, batch_size=8)
    expected = expected_classes(PER_CLASS // block, 8 // block)
    assert abs(mean - expected) <= 5 * error + 1e-9
    for other in {1, 4, 8} - {block}:
        assert abs(mean - expected_classes(PER_CLASS // other, 8 // other)) > 10 * error


def test_sorted_batches_hold_one_class_but_where_two_meet():
    assert mean_classes("sorted", batch_size=8, epochs=2) == (1.0, 0.0)
    # Of 12 batches of 16 those over the borders at 40, 120 and 160 − 16·10 = 0: at 40 and 120 alone.
    assert mean_classes("sorted", batch_size=16, epochs=2)[0] == pytest.approx(14 / 12)


def test_a_bundle_carries_its_order_to_the_first_batch():
    x = torch.arange(N + 20.0)[:, None]
    y = torch.arange(N + 20) % CLASSES
    made = bundle(raw_of(x, y, 10), order="sorted", normalize="none")
    seen = first_batch(made.train.x, 8, 3, made.order).flatten().long()
    assert (seen % CLASSES == 0).all()
    assert torch.equal(seen, Batches(N, 8, [3], order=made.order).indices(0)[0])


def test_samples_are_sorted_by_the_labels_that_are_trained_on():
    x, y = torch.arange(N + 20.0)[:, None], torch.arange(N + 20) % CLASSES
    made = bundle(raw_of(x, y, 10), order="sorted", label_noise=0.5)
    labels = made.train.y[Batches(N, N, [0], order=made.order).indices(0)[0]]
    assert all(a <= b for a, b in pairwise(labels.tolist()))


@pytest.mark.parametrize(
    "wrong", ["random", "blocks", "blocks()", "blocks(0)", "blocks(-1)", "blocks(2.5)", " sorted", ""]
)
def test_orders_that_are_none(wrong):
    with pytest.raises(ValidationError, match=r"must be shuffled, sorted or blocks\(k\)"):
        DataOptions(order=wrong)


def test_an_order_without_labels_shuffles():
    stream, same = (torch.Generator().manual_seed(1) for _ in range(2))
    assert torch.equal(Order().permutation(9, stream), torch.randperm(9, generator=same))
