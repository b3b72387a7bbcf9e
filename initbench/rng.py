"""Random streams: one CPU generator for each purpose, keyed by the seed and a name.

Because every parameter draws from a stream of its own, changing the init never changes
the batches, and adding a layer never changes what another layer draws.
"""

from __future__ import annotations

import hashlib

import torch


def stream_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed that depends on `seed` and on every name in order."""
    text = "\x1f".join(str(part) for part in (seed, *names))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def stream_generator(seed: int, *names: str | int) -> torch.Generator:
    """A fresh CPU generator for the stream `(seed, *names)`."""
    return torch.Generator(device="cpu").manual_seed(stream_seed(seed, *names))
