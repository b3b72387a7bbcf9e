"""Streams: fixed for ever, apart from one another, and off the global generator."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from initbench.rng import stream_generator, stream_seed


def test_the_seed_of_a_stream_is_pinned():
    """A change here changes every stored run's meaning."""
    assert stream_seed(0, "init", "head.weight") == PINNED


PINNED = 4_888_247_620_552_057_167


@given(st.integers(0, 2**63 - 1), st.lists(st.text(max_size=8), max_size=3))
def test_fits_a_torch_seed(seed, names):
    assert 0 <= stream_seed(seed, *names) < 2**63


def test_every_part_counts_and_so_does_their_order():
    seeds = {
        stream_seed(*parts)
        for parts in [
            (0,),
            (1,),
            (0, "a"),
            (0, "b"),
            (0, "a", "b"),
            (0, "b", "a"),
            (0, "ab"),
            (10, "a"),
            (1, "0a"),
        ]
    }
    assert len(seeds) == 9


def test_generators_are_fresh_and_leave_the_global_one():
    before = torch.random.get_rng_state()
    first = torch.randn(4, generator=stream_generator(3, "a"))
    assert torch.equal(first, torch.randn(4, generator=stream_generator(3, "a")))
    assert not torch.equal(first, torch.randn(4, generator=stream_generator(3, "b")))
    assert torch.equal(torch.random.get_rng_state(), before)
