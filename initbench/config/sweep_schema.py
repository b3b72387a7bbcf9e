"""Schema of a sweep file: one experiment at many points, each with several seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from initbench.config.schema import ExperimentConfig, Seed
from initbench.config.tuning_schema import Tune, config_issue
from initbench.errors import ConfigIssue
from initbench.registry import Section

NOT_SWEPT = ("kind", "name", "notes", "seeds")
"""Keys of an experiment that a point inherits from its sweep."""
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
MOST_POINTS, LONGEST_NAME = 20_000, 60
Values = Annotated[list[Any], Field(min_length=1)]
Keys = Annotated[dict[str, Any], Field(min_length=1)]
Sentence = Annotated[str, Field(min_length=1)]


class SweepConfig(Section):
    """One experiment at many points, with the keys that change and their values."""

    kind: Literal["sweep"]
    """Kind of config that this file declares."""
    name: str = Field(pattern=NAME, max_length=LONGEST_NAME)
    """Name of the sweep; its points are the experiments `name.point`."""
    notes: str = ""
    """Notes for readers: what to look at."""
    base: str | dict[str, Any]
    """Experiment that all points share: its keys, or the path of its file relative to this one."""
    grid: dict[str, Values] = Field(default_factory=dict)
    """Dotted key → values. Every combination of values is a point; the last key changes fastest."""
    zip: dict[str, Values] = Field(default_factory=dict)
    """Dotted key → values, equally many per key. The keys change together: one axis in addition to `grid`."""
    exclude: list[Keys] = Field(default_factory=list)
    """Points of `grid` and `zip` to omit: those that have all keys and values of one of these entries."""
    include: list[Keys] = Field(default_factory=list)
    """Points to add: the keys of each override `base`; `grid` and `exclude` do not apply to them.

    Without `grid` and `zip`, these are the only points."""
    seeds: (
        Annotated[int, Field(ge=1, le=10_000)]
        | Annotated[list[Seed], Field(min_length=1, max_length=10_000)]
        | None
    ) = None
    """Seeds of every point, as in an experiment; null for those of `base`."""
    tune: Tune | None = None
    """Key that is tuned for each point separately, with runs of its own; null for none."""
    gates: list[Sentence] = Field(default_factory=list)
    """Conditions that must not hold at the end (docs/ci.md); rows are named after the points."""

    @field_validator("zip")
    @classmethod
    def _equal_lengths(cls, axes: dict[str, Values]) -> dict[str, Values]:
        lengths = {key: len(values) for key, values in axes.items()}
        if len(set(lengths.values())) > 1:
            lengths_text = ", ".join(f"{key} has {n}" for key, n in lengths.items())
            raise config_issue(f"needs equally many values for each key: {lengths_text}")
        return axes


@dataclass(frozen=True)
class Point:
    """One of the experiments of a sweep."""

    label: str
    """Name of the point within the sweep."""
    keys: Mapping[str, Any]
    """Changes to the base: dotted key → value."""
    config: ExperimentConfig
    """Experiment named `sweep.label`, before any tuning."""
    candidates: tuple[ExperimentConfig, ...] = ()
    """Tuning experiments, one per value to try; empty without tuning."""

    def configs(self) -> Iterator[ExperimentConfig]:
        """Yield all experiments of the point: tuning candidates, then the experiment before the choice."""
        yield from self.candidates
        yield self.config


@dataclass(frozen=True)
class SkippedPoint:
    """A point that cannot be built, with the reasons."""

    label: str
    faults: tuple[ConfigIssue, ...]


@dataclass(frozen=True)
class Sweep:
    """A sweep with its experiments."""

    name: str
    points: tuple[Point, ...]
    tune: Tune | None = None
    """Key to tune; also None if the command line sets that key."""
    gates: tuple[str, ...] = ()
    notes: str = ""
    skipped: tuple[SkippedPoint, ...] = ()
    """Points skipped because they cannot be built."""
    same: Mapping[str, str] = field(default_factory=dict)
    """Points omitted because another point is the same experiment: label → label of the other."""
    excluded: int = 0
    """Number of points that the file excludes."""

    def part(self, points: tuple[Point, ...]) -> Sweep:
        """Return a copy of the sweep with only these points."""
        return replace(self, points=points)
