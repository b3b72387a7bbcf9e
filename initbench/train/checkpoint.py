"""State from which a run resumes bit for bit.

Random generators need no state, because every stream is keyed by seed and step. P: shape of a parameter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from initbench.train.timings import Timings

_EARLIER = "beside"
"""Key of what is known from before the first update."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """State of one run between two updates. All tensors are on the CPU."""

    step: int
    """Number of updates made. In pre-training: minus the number of remaining pre-training updates."""
    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]
    slots: dict[str, dict[str, Tensor]]
    """Optimizer slots, by name of the slot and of the parameter: (P)."""
    updates: float
    """Number of updates as the optimizer counts them."""
    timings: Timings = field(default_factory=Timings)
    steps_with_threads: dict[int, int] = field(default_factory=dict)
    inputs: dict[str, Tensor] = field(default_factory=dict)
    """Moments from which the drift of layer inputs is measured (`train.covariate_shift_updates`)."""
    pretraining: dict[str, Any] | None = None
    """Record of the pre-training, as plain data; while it runs: of the layers trained so far."""
    start_loss: float | None = None
    """Training loss before the first update."""

    def dump(self) -> bytes:
        """Return the contents of a safetensors file; its metadata hold everything except the tensors."""
        groups = {"parameter": self.parameters, "buffer": self.buffers}
        groups["input"] = self.inputs
        groups |= {f"slot.{slot}": tensors for slot, tensors in self.slots.items()}
        tensors = {
            f"{group}/{name}": t.contiguous()
            for group, members in groups.items()
            for name, t in members.items()
        }
        earlier = {"pretraining": self.pretraining, "start_loss": self.start_loss}
        rest = {
            "updates": self.updates,
            "timings": vars(self.timings),
            "steps_with_threads": self.steps_with_threads,
            _EARLIER: {key: value for key, value in earlier.items() if value is not None},
        }
        return save(tensors, metadata={"step": str(self.step), "rest": json.dumps(rest)})


def cpu_copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous copies on the CPU that no later update changes."""
    return {name: t.cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}


def restore(state: bytes) -> Checkpoint:
    """Return the checkpoint that `dump` wrote; raise ValueError if the bytes are not a checkpoint."""
    try:
        size = int.from_bytes(state[:8], "little")
        metadata = json.loads(state[8 : 8 + size])["__metadata__"]
        rest, tensors = json.loads(metadata["rest"]), load(state)
        groups: dict[str, dict[str, Tensor]] = {"parameter": {}, "buffer": {}, "input": {}}
        for full, tensor in tensors.items():
            group, _, name = full.partition("/")
            groups.setdefault(group, {})[name] = tensor
        return Checkpoint(
            step=int(metadata["step"]),
            parameters=groups.pop("parameter"),
            buffers=groups.pop("buffer"),
            inputs=groups.pop("input"),
            slots={group.removeprefix("slot."): tensors for group, tensors in groups.items()},
            updates=float(rest["updates"]),
            timings=Timings(**rest["timings"]),
            steps_with_threads={int(n): count for n, count in rest["steps_with_threads"].items()},
            **rest[_EARLIER],
        )
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"not a checkpoint: {error}") from error
