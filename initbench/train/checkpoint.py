"""All that a run needs to go on from the step it has reached, bit for bit.

Random numbers need no state: every stream is keyed by seed and step. P is a parameter's own shape.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from initbench.train.timings import Timings


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One run between two updates. All tensors are on the CPU."""

    step: int
    """Updates made; below 0 in pre-training, of which so many are left."""
    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]
    slots: dict[str, dict[str, Tensor]]
    """The optimizer's, by name of the slot and of the parameter: (P)."""
    updates: float
    """Updates as the optimizer counts them."""
    timings: Timings
    steps_with_threads: dict[int, int]
    inputs: dict[str, Tensor] = field(default_factory=dict)
    """What the drift of layer inputs is measured from (`train.shift`)."""
    beside: dict[str, Any] = field(default_factory=dict)
    """What the run's result is to say of the time before its first update, as plain data."""

    def dump(self) -> bytes:
        """The contents of a safetensors file, with what is no tensor in its metadata."""
        groups = {"parameter": self.parameters, "buffer": self.buffers}
        groups["input"] = self.inputs
        groups |= {f"slot.{slot}": tensors for slot, tensors in self.slots.items()}
        tensors = {
            f"{group}/{name}": t.contiguous()
            for group, members in groups.items()
            for name, t in members.items()
        }
        rest = {
            "updates": self.updates,
            "timings": vars(self.timings),
            "steps_with_threads": self.steps_with_threads,
            "beside": self.beside,
        }
        return save(tensors, metadata={"step": str(self.step), "rest": json.dumps(rest)})


def restore(state: bytes) -> Checkpoint:
    """The checkpoint that `dump` wrote. Raises ValueError when the bytes are none."""
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
            beside=rest["beside"],
        )
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"not a checkpoint: {error}") from error
