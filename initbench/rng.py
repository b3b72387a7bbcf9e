"""Random streams: one CPU generator per purpose, keyed by the seed and a name.

Every parameter has a separate stream. Changing the init therefore never changes the batches,
and adding a layer never changes the draws of another layer.
"""

from __future__ import annotations

import hashlib

import torch


def stream_seed(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed that depends on `seed` and on the sequence of names."""
    text = "\x1f".join(str(part) for part in (seed, *names))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def stream_generator(seed: int, *names: str | int) -> torch.Generator:
    """Return a new CPU generator for the stream `(seed, *names)`."""
    return torch.Generator(device="cpu").manual_seed(stream_seed(seed, *names))
