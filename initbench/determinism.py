"""How many threads torch uses for what must come out the same on any number of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Work on one thread inside, and leave torch's thread count as it was found."""
    thread_count = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(thread_count)
