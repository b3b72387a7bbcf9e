"""Tuning of one key for each arm separately: the values to try, and the experiments that try them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from initbench.config.loading import validate_data
from initbench.config.overrides import Override, apply_overrides
from initbench.config.schema import ExperimentConfig
from initbench.config.validation_errors import dotted_key
from initbench.errors import ConfigError, ConfigIssue
from initbench.registry import Section


def config_issue(problem: str, at: str = "") -> PydanticCustomError:
    """Return a fault for a validator to raise; `at` is a key below the validated value."""
    return PydanticCustomError("key_fault", "{problem}", {"problem": problem, "at": at})


class Range(Section):
    """Values to try: a list, or a range as `{log: [0.001, 1.0], points: 7}`."""

    log: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    """Ends of a range with equal ratios between values."""
    linear: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    """Ends of a range with equal distances between values."""
    points: int | None = Field(default=None, ge=2, le=100)
    """Number of values of a range, including its ends."""
    values: Annotated[list[float], Field(min_length=2, max_length=100)] | None = None
    """Values themselves; a plain list sets this key."""

    @model_validator(mode="before")
    @classmethod
    def _list(cls, values: Any) -> Any:
        return {"values": values} if isinstance(values, list) else values

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        ends = self.log or self.linear
        if sum(form is not None for form in (self.log, self.linear, self.values)) != 1:
            raise config_issue("give a list of values, or log: [low, high] or linear: [low, high]")
        if (ends is None) != (self.points is None):
            raise config_issue(
                "log and linear need points, and a list has none", "points" if self.values else ""
            )
        if ends is not None and not (ends[0] < ends[1] and (self.linear or ends[0] > 0.0)):
            least = "0 < low < high" if self.log is not None else "low < high"
            raise config_issue(
                f"needs {least}, is [{ends[0]:g}, {ends[1]:g}]", "log" if self.log else "linear"
            )
        if self.values is not None and len(set(self.values)) < len(self.values):
            raise config_issue("a value is listed twice")
        return self

    def numbers(self) -> list[float]:
        """Return the values in rising order; inner values of a range are rounded to six digits."""
        if self.values is not None:
            return sorted(self.values)
        assert self.points is not None
        shares = [i / (self.points - 1) for i in range(self.points)]
        low, high = self.log or self.linear or (0.0, 0.0)
        if self.log is not None:
            between = [math.exp((1.0 - s) * math.log(low) + s * math.log(high)) for s in shares]
        else:
            between = [(1.0 - s) * low + s * high for s in shares]
        return [low, *(float(f"{value:.6g}") for value in between[1:-1]), high]


class Tune(Section):
    """One key whose value is chosen for each arm separately, by runs with separate seeds.

    In addition to the two keys below, give the key to tune, such as `train.lr`, with a range or a list.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Range] = Field(init=False)

    select: str = "final_val_accuracy"
    """Metric whose best mean decides. A value with a diverged run is worse than any other."""
    seeds: int = Field(default=2, ge=1, le=100)
    """Number of tuning seeds. They follow those of the arm: the chosen value runs on unseen seeds."""

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if len(self.keys) != 1:
            keys_text = f", not {', '.join(self.keys)}" if self.keys else ""
            raise config_issue(f"takes one key to tune, as train.lr{keys_text}")
        return self

    @property
    def keys(self) -> list[str]:
        """Dotted keys that are given to tune."""
        return list(self.__pydantic_extra__)

    @property
    def key(self) -> str:
        """Dotted key that is tuned."""
        return self.keys[0]

    @property
    def values(self) -> list[float]:
        """Values to try, in rising order."""
        return self.__pydantic_extra__[self.key].numbers()


def tuning_candidates(
    tune: Tune, config: ExperimentConfig, data: Mapping[str, Any], position: str
) -> tuple[list[ExperimentConfig], list[ConfigIssue]]:
    """Return the arm with each value of the tuned key, and the faults of all of them.

    The arm is `config`, which was built from `data`. The candidates' seeds follow those of the arm; they are
    not probed.
    """
    candidates: list[ExperimentConfig] = []
    faults: list[ConfigIssue] = []
    for value in tune.values:
        candidate, issues = _candidate(tune, config, data, value, position)
        candidates += [candidate] if candidate else []
        faults += issues
    return candidates, faults


def apply_choice(arm: ExperimentConfig, candidate: ExperimentConfig) -> ExperimentConfig:
    """Return the arm with the tuned value of `candidate`; it keeps its own name, seeds and probes."""
    return candidate.model_copy(update={name: getattr(arm, name) for name in ("name", "seeds", "probe")})


def _candidate(
    tune: Tune, config: ExperimentConfig, data: Mapping[str, Any], value: float, position: str
) -> tuple[ExperimentConfig | None, list[ConfigIssue]]:
    key = dotted_key(("tune", tune.key))
    whole = int(value) if value.is_integer() and _is_whole(config, tune.key) else value
    try:
        tuned = apply_overrides(dict(data), [Override(tuple(tune.key.split(".")), whole, tune.key, position)])
    except ConfigError as error:
        return None, [replace(fault, where=position, key=key) for fault in error.issues]
    first = max(config.seed_list) + 1
    candidate_keys = {
        "name": f"{config.name}.tune",
        "seeds": list(range(first, first + tune.seeds)),
        "probe": {**config.probe.model_dump(mode="json"), "when": []},
    }
    candidate, faults = validate_data(
        ExperimentConfig, {**tuned, **candidate_keys}, lambda _path, _of_key: position
    )
    return candidate, [ConfigIssue(position, key, fault.problem) for fault in faults]


def _is_whole(config: ExperimentConfig, key: str) -> bool:
    """Return whether the config has a whole number at `key`."""
    value: Any = config.resolved()
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return isinstance(value, int) and not isinstance(value, bool)
