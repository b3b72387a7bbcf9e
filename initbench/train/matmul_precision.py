"""How matrices are multiplied: full float32 always, the same way each time, by the faster library if safe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache

import torch
from torch.backends import cudnn

FP32_ERROR = 2e-6
"""Relative error (root mean square) that a product in true float32 stays well below; bf16's is about 4e-3."""


@cache
def onednn_keeps_fp32() -> bool:
    """Whether float32_matmul_precision "medium" still multiplies in true float32 on this CPU.

    On a CPU without bf16 matrix units it only routes the product to oneDNN, which can be far
    faster than MKL; on one with AMX it would compute in bf16. The error of a product is measured
    rather than guessed from the CPU's name.
    """
    stream = torch.Generator().manual_seed(0)
    a = torch.randn(3, 128, 256, generator=stream)
    b = torch.randn(3, 256, 128, generator=stream)
    exact = a.double() @ b.double()
    with _matmul_precision("medium"):
        errors = [a @ b - exact, (a[0] @ b[0]) - exact[0]]
    worst = max(float(error.square().mean().sqrt()) for error in errors)
    return worst < FP32_ERROR * float(exact.square().mean().sqrt())


@contextmanager
def _matmul_precision(precision: str) -> Iterator[None]:
    previous = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(previous)


def matmul_backend(device: torch.device) -> str:
    """The library that multiplies on `device`: `onednn`, or `default` for torch's own choice."""
    return "onednn" if device.type == "cpu" and onednn_keeps_fp32() else "default"


@contextmanager
def true_fp32(device: torch.device) -> Iterator[None]:
    """Multiply in float32 with the faster safe library inside the block; never in TF32 or bf16.

    On CUDA convolutions are included, for which TF32 is torch's default, and are added up in one order each
    time, so that the same run gives the same numbers.
    """
    with ExitStack() as stack:
        if device.type == "cuda":
            stack.enter_context(cudnn.flags(enabled=True, deterministic=True, allow_tf32=False))
        stack.enter_context(_matmul_precision("medium" if matmul_backend(device) == "onednn" else "highest"))
        yield
