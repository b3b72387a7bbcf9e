"""Choose the device that trains a run: the requested one or an error, never a silent fallback."""

from __future__ import annotations

import re

import torch

from initbench.errors import DeviceError, UsageError


def resolve_device(name: str, *, must_exist: bool = True) -> torch.device:
    """Return the device for `auto` (CUDA if available, else the CPU), `cpu`, `cuda` or `cuda:n`.

    Without `must_exist`, the device need not be available: it only says where runs were trained.

    Raises:
        UsageError: If the name is not one of these.
        DeviceError: If the requested CUDA device is not available.
    """
    if name == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    if name == "cpu":
        return torch.device("cpu")
    match = re.fullmatch(r"cuda(?::(\d+))?", name)
    if match is None:
        raise UsageError(f"unknown device {name!r}; choose auto, cpu, cuda or cuda:n")
    index, there = int(match[1] or 0), torch.cuda.device_count()
    if must_exist and index >= there:
        have = "no CUDA device is visible" if there == 0 else f"only {there} CUDA device(s) are visible"
        raise DeviceError(f"device {name} was asked for, but {have}; use --device auto or --device cpu")
    return torch.device("cuda", index)
