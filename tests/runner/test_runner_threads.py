"""A run's weights do not depend on how many threads torch has when it is built and clipped."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from initbench.determinism import one_thread
from initbench.train.cohort import clip_per_run


def test_one_thread_restores_what_it_found() -> None:
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("shape", [(1, 128, 784), (1, 512, 512), (3, 512, 512), (2, 1024)])
def test_clipping_is_the_same_on_one_and_two_threads(shape: tuple[int, ...]) -> None:
    stream = torch.Generator().manual_seed(0)
    draws = [torch.randn(shape, generator=stream) for _ in range(20)]

    def clipped(threads: int) -> list[Any]:
        torch.set_num_threads(threads)
        return [clip_per_run([draw], 1.0)[0] for draw in draws]

    with one_thread():
        assert all(torch.equal(one, two) for one, two in zip(clipped(1), clipped(2), strict=True))
