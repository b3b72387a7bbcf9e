"""The file of a sweep: one experiment at many points, each under some seeds."""

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
"""Keys of an experiment that a point has from its sweep."""
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
MOST_POINTS, LONGEST_NAME = 20_000, 60
Values = Annotated[list[Any], Field(min_length=1)]
Keys = Annotated[dict[str, Any], Field(min_length=1)]
Sentence = Annotated[str, Field(min_length=1)]


class SweepConfig(Section):
    """One experiment at many points: which keys change, and how."""

    kind: Literal["sweep"]
    """What this file declares."""
    name: str = Field(pattern=NAME, max_length=LONGEST_NAME)
    """Name of the sweep; its points are the experiments `name.point`."""
    notes: str = ""
    """What to look at, for people."""
    base: str | dict[str, Any]
    """The experiment that all points share: the path of its file, relative to this one, or its keys."""
    grid: dict[str, Values] = Field(default_factory=dict)
    """Dotted key → values. Every combination of them is a point, the last key changing fastest."""
    zip: dict[str, Values] = Field(default_factory=dict)
    """Dotted key → values, equally many for each key, which change together: one more axis beside `grid`."""
    exclude: list[Keys] = Field(default_factory=list)
    """Points of `grid` and `zip` to leave out: those that have all keys and values of one of these."""
    include: list[Keys] = Field(default_factory=list)
    """Points to add: the keys of each are laid over `base`, without those of `grid`, whatever is excluded.

    Without `grid` and `zip` these are all points there are."""
    seeds: (
        Annotated[int, Field(ge=1, le=10_000)]
        | Annotated[list[Seed], Field(min_length=1, max_length=10_000)]
        | None
    ) = None
    """Seeds of every point, as in an experiment; null for those of `base`."""
    tune: Tune | None = None
    """A key that is tuned for each point alone, by runs of its own; null for none."""
    gates: list[Sentence] = Field(default_factory=list)
    """Conditions that must not hold at the end (docs/ci.md); rows are called as the points are."""

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
    """What it is called within the sweep."""
    keys: Mapping[str, Any]
    """What it changes in the base: dotted key → value."""
    config: ExperimentConfig
    """Under the name `sweep.label`; before it is tuned, where it is."""
    candidates: tuple[ExperimentConfig, ...] = ()
    """One for each value to be tried; none where nothing is tuned."""

    def configs(self) -> Iterator[ExperimentConfig]:
        """All that is run for it, under a value yet to be chosen where it is tuned."""
        yield from self.candidates
        yield self.config


@dataclass(frozen=True)
class SkippedPoint:
    """A point that cannot be built, and why."""

    label: str
    faults: tuple[ConfigIssue, ...]


@dataclass(frozen=True)
class Sweep:
    """A sweep with its experiments made."""

    name: str
    points: tuple[Point, ...]
    tune: Tune | None = None
    """None also where the tuned key was given on the command line."""
    gates: tuple[str, ...] = ()
    notes: str = ""
    skipped: tuple[SkippedPoint, ...] = ()
    """Points left out because they cannot be built."""
    same: Mapping[str, str] = field(default_factory=dict)
    """Points left out because they are the very experiment of another: label → the other's label."""
    excluded: int = 0
    """Points left out as the file asks."""

    def part(self, points: tuple[Point, ...]) -> Sweep:
        """The same sweep with some of its points alone."""
        return replace(self, points=points)
