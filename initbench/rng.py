"""Random streams: one CPU generator per purpose, keyed by the seed and a name.

Every parameter has a separate stream. Changing the init therefore never changes the batches,
and adding a layer never changes the draws of another layer.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def stream_seed(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed that depends on `seed` and on the sequence of names."""
    text = "\x1f".join(str(part) for part in (seed, *names))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def stream_generator(seed: int, *names: str | int) -> torch.Generator:
    """Return a new CPU generator for the stream `(seed, *names)`."""
    return torch.Generator(device="cpu").manual_seed(stream_seed(seed, *names))


@contextmanager
def global_stream(seed: int, *names: str | int, device: torch.device | None = None) -> Iterator[None]:
    """Use the stream `(seed, *names)` inside the block for the global generators, which user code draws from.

    These are the generators of torch (on the CPU and on `device`), NumPy and Python. They are restored at the
    end.
    """
    value = stream_seed(seed, *names)
    is_cuda = device is not None and device.type == "cuda"
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[device] if is_cuda else []):
        torch.default_generator.manual_seed(value)
        if is_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(value)
        random.seed(value)
        np.random.seed(value % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
