"""Record the environment of a run: versions, machine, git state."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from typing import Any

import torch

TRAINING_PACKAGES = ("torch", "torchvision", "numpy")
"""Packages that take part in training, in workers of all executors."""
_PACKAGES = ("initbench", *TRAINING_PACKAGES, "scikit-learn")


def environment_record(device: torch.device) -> dict[str, Any]:
    """Return versions, machine and git state, which all runs of a command share."""
    return {"versions": package_versions(), "machine": machine_record(device), "git": git_state()}


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect the numbers of a run."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def machine_record(device: torch.device) -> dict[str, Any]:
    """Return the name of the training processor, the number of cores and the system."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {"processor": name, "cores": os.cpu_count(), "system": platform.platform(terse=True)}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def git_state() -> dict[str, Any] | None:
    """Return commit and dirty flag of the repository of the working directory, or None outside one."""
    try:
        commit = _git("rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=5, check=True)
    return done.stdout.strip()
