"""Learning-rate schedules as pure functions of the step, so that resuming a run needs no stored state."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from initbench.registry import Options, Registry, RegistryEntry


@dataclass(frozen=True, kw_only=True)
class Schedule(RegistryEntry):
    """A schedule; `factor(options, progress)` is the factor of the learning rate at `progress` in [0, 1)."""

    factor: Callable[[Any, float], float]


class CosineScheduleOptions(Options):
    """Options of cosine."""

    final: float = Field(default=0.0, ge=0.0, le=1.0)
    """Final learning rate, as a fraction of the initial one."""


class StepOptions(Options):
    """Options of step."""

    at: list[Annotated[float, Field(ge=0.0, le=1.0)]] = Field(default=[0.5, 0.75])
    """Fractions of the training after which the learning rate drops."""
    gamma: float = Field(default=0.1, gt=0.0, le=1.0)
    """Factor of the learning rate at each drop."""


_ABSENT = (
    "linear",
    "exponential",
    "polynomial",
    "one_cycle",
    "one_cycle_lr",
    "plateau",
    "reduce_lr_on_plateau",
    "cyclic",
    "cyclic_lr",
    "warmup",
)
"""Well-known names that are not supported; no similar name is suggested for them."""
SCHEDULES: Registry[Schedule] = Registry("schedule", absent=_ABSENT, group="schedules")

SCHEDULES.add(
    Schedule(
        name="constant",
        aliases=("none", "constant_lr"),
        summary="Constant learning rate.",
        source="-",
        formula="lr",
        factor=lambda _options, _progress: 1.0,
    )
)
SCHEDULES.add(
    Schedule(
        name="cosine",
        aliases=("cosine_annealing", "cosine_annealing_lr", "cosine_decay"),
        summary="Falls along half a cosine to a final fraction.",
        source="Loshchilov & Hutter 2017",
        formula="lr·(f + (1 − f)·(1 + cos πt)/2)",
        options=CosineScheduleOptions,
        factor=lambda o, t: o.final + (1.0 - o.final) * 0.5 * (1.0 + math.cos(math.pi * t)),
    )
)
SCHEDULES.add(
    Schedule(
        name="step",
        aliases=("step_lr", "multi_step", "multi_step_lr", "step_decay"),
        summary="Drops by the factor gamma after given fractions of the training.",
        source="Krizhevsky et al. 2012",
        formula="lr·gamma^(drops so far)",
        options=StepOptions,
        factor=lambda o, t: float(o.gamma ** sum(t >= share for share in o.at)),
    )
)


def learning_rate(base: float, schedule: Options, *, step: int, steps: int, warmup_steps: int) -> float:
    """Return the learning rate of update `step` (from 0): a linear warm-up, then the schedule."""
    if step < warmup_steps:
        return base * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    entry = SCHEDULES[schedule.name]
    return base * entry.factor(schedule, progress)
