"""Schemas of study files, sweeps and lessons, and the experiments that a file declares."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Generic, Literal, Self, TypeAlias, TypeVar

from pydantic import ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from initbench.config.schema import ExperimentConfig, Seed
from initbench.errors import ConfigIssue
from initbench.registry import Section

BELONGS_TO_STUDY = ("kind", "name", "notes")
"""Keys of an experiment that a study states for all its variants."""
NOT_SWEPT = (*BELONGS_TO_STUDY, "seeds")
"""Keys of an experiment that cannot be an axis of a sweep."""
SWEEP_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
LESSON_NAME = r"^[A-Za-z][A-Za-z0-9_]*$"
"""Pattern for names of lessons and arms: claims use arm names, where a dash would be a minus."""
RESERVED = ("before", "ls")
"""Reserved names: `before` means an earlier state in gates, `ls` lists the lessons."""
MOST_POINTS, LONGEST_NAME = 20_000, 60
Values = Annotated[list[Any], Field(min_length=1)]
Keys = Annotated[dict[str, Any], Field(min_length=1)]
Sentence = Annotated[str, Field(min_length=1)]
Names = Annotated[list[Sentence], Field(min_length=1)]


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


class SweepConfig(Section):
    """One experiment at many points, with the keys that change and their values."""

    kind: Literal["sweep"]
    """Kind of config that this file declares."""
    name: str = Field(pattern=SWEEP_NAME, max_length=LONGEST_NAME)
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


class Claim(Section):
    """Statement of a source, and the condition under which the runs support it."""

    says: Sentence
    """Wording of the source, or a close paraphrase."""
    holds_if: Sentence
    """Condition in the language of gates (docs/ci.md), whose rows are the arms.

    A condition that names no arm applies to each of them."""
    source: str = ""
    """Source of the claim; the lesson's source if empty."""


class Figure(Section):
    """One figure of a lesson: exactly one of these keys."""

    layers: Names | None = None
    """Arms whose layers are shown, with histograms at init and at the end."""
    curves: Names | None = None
    """Arms whose validation accuracy is plotted against the steps."""
    axes: Names | None = None
    """Norms whose averaging axes are drawn."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(names is not None for names in (self.layers, self.curves, self.axes)) != 1:
            raise config_issue("give one of layers, curves and axes")
        return self


class LessonConfig(Section):
    """A question, the experiments that answer it, and claims about their results."""

    kind: Literal["lesson"]
    """Kind of config that this file declares."""
    name: str = Field(pattern=LESSON_NAME, max_length=48)
    """Name of the lesson, and of its file."""
    question: Sentence
    """Question that the lesson answers."""
    source: str = ""
    """Source of the claims."""
    notes: str = ""
    """The regime and why it was chosen."""
    base: dict[str, Any] = Field(default_factory=dict)
    """Keys that all arms share: those of an experiment, including seeds, except kind, name and notes."""
    arms: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    """Name → dotted keys that override `base`, like `key=value` arguments.

    Arms run in this order, each as the experiment `lesson.arm`."""
    tune: Tune | None = None
    """Key that is tuned for each arm separately before it runs; null for none."""
    claims: Annotated[list[Claim], Field(min_length=1)]
    """Claims to judge, in this order."""
    show: list[Figure] = Field(default_factory=list)
    """Figures, in this order."""

    @field_validator("arms", mode="before")
    @classmethod
    def _empty_arms(cls, arms: Any) -> Any:
        """Accept `plain:` without a value as an arm that changes nothing."""
        return (
            {name: {} if keys is None else keys for name, keys in arms.items()}
            if isinstance(arms, dict)
            else arms
        )

    @field_validator("name")
    @classmethod
    def _own_name(cls, name: str) -> str:
        if name in RESERVED:
            raise config_issue(f"{name!r} is taken; choose another name")
        return name

    @property
    def digest(self) -> str:
        """Hash of the settings that define the runs: base, arms and tuning."""
        parts = self.model_dump(mode="json", include={"base", "arms", "tune"})
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:10]


@dataclass(frozen=True)
class Variant:
    """One of the experiments of a study: a point of a sweep, or an arm of a lesson."""

    label: str
    """Name of the variant within its study."""
    config: ExperimentConfig
    """Experiment named `study.label`, before any tuning."""
    keys: Mapping[str, Any] = field(default_factory=dict)
    """Changes to the base: dotted key → value."""
    candidates: tuple[ExperimentConfig, ...] = ()
    """Tuning experiments, one per value to try; empty without tuning."""

    @property
    def row(self) -> str:
        """Name of the variant in tables: its label, or the name of its experiment if it has none."""
        return self.label or self.config.name

    def configs(self) -> Iterator[ExperimentConfig]:
        """Yield all experiments of the variant: tuning candidates, then the experiment before the choice."""
        yield from self.candidates
        yield self.config

    def from_seed(self, first: int) -> Variant:
        """Return the variant with seeds from `first` on, followed by the seeds of its tuning."""
        after = first + len(self.config.seed_list)
        candidates = [
            candidate.with_seeds(*range(after, after + len(candidate.seed_list)))
            for candidate in self.candidates
        ]
        return replace(
            self, config=self.config.with_seeds(*range(first, after)), candidates=tuple(candidates)
        )


@dataclass(frozen=True)
class SkippedVariant:
    """A variant that cannot be built, with the reasons."""

    label: str
    faults: tuple[ConfigIssue, ...]


C_co = TypeVar("C_co", bound=SweepConfig | LessonConfig, covariant=True)


@dataclass(frozen=True)
class Study(Generic[C_co]):
    """A sweep or a lesson with its experiments."""

    config: C_co
    variants: tuple[Variant, ...]
    tune: Tune | None = None
    """Key to tune; also None if the command line sets that key."""
    skipped: tuple[SkippedVariant, ...] = ()
    """Variants skipped because they cannot be built."""
    same: Mapping[str, str] = field(default_factory=dict)
    """Points omitted because another point is the same experiment: label → label of the other."""
    excluded: int = 0
    """Number of points that the file excludes."""

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.config.name

    def part(self, variants: tuple[Variant, ...]) -> Self:
        """Return a copy of the study with only these variants."""
        return replace(self, variants=variants)

    def from_seed(self, first: int) -> Self:
        """Return a copy of the study with the same number of seeds, starting at `first`."""
        return self.part(tuple(variant.from_seed(first) for variant in self.variants))


Sweep: TypeAlias = Study[SweepConfig]
Lesson: TypeAlias = Study[LessonConfig]
