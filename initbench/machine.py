"""Cores and memory that this process may use; work that exceeds the memory is rejected before it starts."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from initbench.errors import AllocationError

_MEMINFO = Path("/proc/meminfo")
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def available_cores() -> int:
    """Return the number of processors that this process may use; a container may use fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_bytes() -> int:
    """Return the number of bytes that this process can still allocate, as far as the system reports it.

    This is the minimum of the available memory, the limit of the control group and the limit of the address
    space (`ulimit -v`).
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with suppress(OSError, AttributeError):
        free = re.search(r"^MemAvailable:\s+(\d+) kB", _MEMINFO.read_text(encoding="ascii"), re.MULTILINE)
        limits += [1024 * int(free[1])] if free else []
    with suppress(OSError, ValueError):  # "max" means no limit
        limits.append(int(_CGROUP_LIMIT.read_text(encoding="ascii")))
    with suppress(ImportError, OSError):
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        limits += [soft] if soft != resource.RLIM_INFINITY else []
    return min(limits)


def require_memory(needed: float, purpose: str, remedy: str) -> None:
    """Raise AllocationError if `needed` bytes, a lower bound for `purpose`, are not available."""
    available = available_bytes()
    if needed > available:
        raise AllocationError(
            f"{purpose} needs at least {format_gb(needed)} of memory,"
            f" and {format_gb(available)} are available: {remedy}"
        )


def format_gb(amount: float) -> str:
    """Format an amount of bytes in GB."""
    return f"{amount / 1e9:,.1f} GB"


def failed_allocation_size(error: BaseException) -> str | None:
    """Return the size of the allocation that failed with `error`; None for other errors.

    torch on a CPU raises RuntimeError, torch on a GPU a subclass of it, NumPy and Python a MemoryError.
    """
    text = str(error)
    requested = re.search(r"you tried to allocate (\d+) bytes", text)
    if requested:
        return format_gb(int(requested[1]))
    sized = re.search(r"(?:Unable|Tried) to allocate ([\d.]+ [KMGTPE]?i?B|[\d.]+ bytes)", text)
    if sized:
        return sized[1]
    overflows = isinstance(error, RuntimeError) and "Storage size calculation overflowed" in text
    return "more bytes than can be counted" if isinstance(error, MemoryError) or overflows else None
