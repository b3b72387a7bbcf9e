"""Matrix products in full float32, always in the same way, by the faster library where that is safe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache

import torch
from torch.backends import cudnn

FP32_ERROR = 2e-6
"""Bound of the relative error (root mean square) of a product in true float32; bf16 has about 4e-3."""


@cache
def onednn_keeps_fp32() -> bool:
    """Return whether float32_matmul_precision "medium" still multiplies in true float32 on this CPU.

    On a CPU without bf16 matrix units the setting only selects oneDNN, which can be far faster than MKL;
    on a CPU with AMX it selects bf16. The error of a product is measured, not guessed from the CPU's name.
    """
    stream = torch.Generator().manual_seed(0)
    a = torch.randn(3, 128, 256, generator=stream)
    b = torch.randn(3, 256, 128, generator=stream)
    exact = a.double() @ b.double()
    with _matmul_precision("medium"):
        errors = [a @ b - exact, (a[0] @ b[0]) - exact[0]]
    worst = max(float(error.square().mean().sqrt()) for error in errors)
    return worst < FP32_ERROR * float(exact.square().mean().sqrt())


def has_bf16_units() -> bool:
    """Return whether the processor reports instructions that multiply in bf16, as AVX512-BF16 and AMX do."""
    return any(has and "bf16" in name for name, has in torch.cpu.get_capabilities().items())


@cache
def bf16_stack_of_one_differs() -> bool:
    """Return whether this CPU may round a bf16 product of a stack of one unlike that of a larger stack.

    oneDNN's kernels for AMX divide a sum in another way if there is one product. Half of the terms of these
    sums cancel the other half, so what remains is rounding alone, which shows the order of summation.
    """
    return any(
        _one_differs(*sizes) for sizes in ((30, 1024, 53), (32, 784, 128), (48, 48, 100), (16, 36, 192))
    )


def _one_differs(rows: int, terms: int, columns: int) -> bool:
    stream = torch.Generator().manual_seed(0)
    a = torch.randn(2, rows, terms // 2, generator=stream)
    b = torch.randn(2, terms // 2, columns, generator=stream)
    order = torch.randperm(terms, generator=stream)
    a, b = torch.cat([a, a], 2)[..., order].bfloat16(), torch.cat([b, -b], 1)[:, order].bfloat16()
    layouts = [(a, b), (a.mT.contiguous().mT, b), (a, b.mT.contiguous().mT)]
    return any(not torch.equal((left @ right)[:1], left[:1] @ right[:1]) for left, right in layouts)


@contextmanager
def _matmul_precision(precision: str) -> Iterator[None]:
    previous = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(previous)


def matmul_backend(device: torch.device) -> str:
    """Return the library that multiplies on `device`: `onednn`, or `default` for torch's own choice."""
    return "onednn" if device.type == "cpu" and onednn_keeps_fp32() else "default"


@contextmanager
def true_fp32(device: torch.device) -> Iterator[None]:
    """Multiply in float32 with the faster safe library inside the block; never in TF32 or bf16.

    On CUDA this includes convolutions, for which TF32 is torch's default. Their sums have a fixed order, so
    that the same run gives the same numbers.
    """
    with ExitStack() as stack:
        if device.type == "cuda":
            stack.enter_context(cudnn.flags(enabled=True, deterministic=True, allow_tf32=False))
        stack.enter_context(_matmul_precision("medium" if matmul_backend(device) == "onednn" else "highest"))
        yield
