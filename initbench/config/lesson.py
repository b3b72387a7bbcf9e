"""The file of a lesson: a question, the experiments that answer it, and claims about what they show."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from initbench.config.schema import ExperimentConfig
from initbench.registry import Section

NAME = r"^[A-Za-z][A-Za-z0-9_]*$"
"""Names of lessons and arms: an arm's is a row in claims, where a dash would be a minus."""
RESERVED = ("before", "ls")
"""Names with a meaning of their own: an earlier state in gates, and the list of lessons."""
Sentence = Annotated[str, Field(min_length=1)]
Names = Annotated[list[Sentence], Field(min_length=1)]


def _fault(problem: str, at: str = "") -> PydanticCustomError:
    """`at` is a key below the value that is validated."""
    return PydanticCustomError("key_fault", "{problem}", {"problem": problem, "at": at})


class Range(Section):
    """Values to try: a list, or a range as `{log: [0.001, 1.0], points: 7}`."""

    log: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    """Both ends of a range whose values stand in equal ratios."""
    linear: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    """Both ends of a range whose values stand at equal distances."""
    points: int | None = Field(default=None, ge=2, le=100)
    """How many values a range has, its ends included."""
    values: Annotated[list[float], Field(min_length=2, max_length=100)] | None = None
    """The values themselves; what a list stands for."""

    @model_validator(mode="before")
    @classmethod
    def _list(cls, given: Any) -> Any:
        return {"values": given} if isinstance(given, list) else given

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        ends = self.log or self.linear
        if sum(form is not None for form in (self.log, self.linear, self.values)) != 1:
            raise _fault("give a list of values, or log: [low, high] or linear: [low, high]")
        if (ends is None) != (self.points is None):
            raise _fault("log and linear need points, and a list has none", "points" if self.values else "")
        if ends is not None and not (ends[0] < ends[1] and (self.linear or ends[0] > 0.0)):
            least = "0 < low < high" if self.log is not None else "low < high"
            raise _fault(f"needs {least}, is [{ends[0]:g}, {ends[1]:g}]", "log" if self.log else "linear")
        if self.values is not None and len(set(self.values)) < len(self.values):
            raise _fault("a value is listed twice")
        return self

    def numbers(self) -> list[float]:
        """The values, rising, those of a range to six digits."""
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
    """One key whose value is chosen for each arm alone, by runs under seeds of their own.

    Beside the two below stands the key itself, as `train.lr`, with a range or a list of values.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Range] = Field(init=False)

    select: str = "final_val_accuracy"
    """The metric whose best mean decides. A value under which a run diverged is worse than any other."""
    seeds: int = Field(default=2, ge=1, le=100)
    """Seeds of the tuning, which follow those of the arm: the chosen value runs on seeds it has not seen."""

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if len(self.keys) != 1:
            named = f", not {', '.join(self.keys)}" if self.keys else ""
            raise _fault(f"takes one key to tune, as train.lr{named}")
        return self

    @property
    def keys(self) -> list[str]:
        """The keys that are tuned."""
        return list(self.__pydantic_extra__)

    @property
    def key(self) -> str:
        """The dotted key that is tuned."""
        return self.keys[0]

    @property
    def values(self) -> list[float]:
        """The values to try, rising."""
        return self.__pydantic_extra__[self.key].numbers()


class Claim(Section):
    """What a source says, and what the runs have to show for it to hold."""

    says: Sentence
    """The source's words, or a close paraphrase."""
    holds_if: Sentence
    """A condition in the language of gates (docs/ci.md), whose rows are the arms.

    One that names no arm is about each of them."""
    source: str = ""
    """Who says so; the lesson's source when it is empty."""


class Picture(Section):
    """One picture of a lesson: exactly one of these keys."""

    layers: Names | None = None
    """Arms whose layers are shown, with histograms at init and at the end."""
    curves: Names | None = None
    """Arms whose validation accuracy is drawn against the steps."""
    axes: Names | None = None
    """Norms of which it is drawn what they average over."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(names is not None for names in (self.layers, self.curves, self.axes)) != 1:
            raise _fault("give one of layers, curves and axes")
        return self


class LessonConfig(Section):
    """A question, the experiments that answer it, and claims about what they show."""

    kind: Literal["lesson"]
    """What this file declares."""
    name: str = Field(pattern=NAME, max_length=48)
    """Name of the lesson, and of its file."""
    question: Sentence
    """What is asked."""
    source: str = ""
    """Who claims what is tested here."""
    notes: str = ""
    """The regime and why it was chosen."""
    base: dict[str, Any] = Field(default_factory=dict)
    """What all arms have in common: keys of an experiment, seeds included, except kind, name and notes."""
    arms: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    """Name → dotted keys laid over `base`, as `key=value` arguments are. Arms run in this order, each as the
    experiment `lesson.arm`."""
    tune: Tune | None = None
    """A key that is tuned for each arm alone before it runs; null for none."""
    claims: Annotated[list[Claim], Field(min_length=1)]
    """What is judged, in this order."""
    show: list[Picture] = Field(default_factory=list)
    """Pictures, in this order."""

    @field_validator("arms", mode="before")
    @classmethod
    def _empty_arms(cls, given: Any) -> Any:
        """`plain:` without a value is an arm that changes nothing."""
        return (
            {name: {} if keys is None else keys for name, keys in given.items()}
            if isinstance(given, dict)
            else given
        )

    @field_validator("name")
    @classmethod
    def _own_name(cls, name: str) -> str:
        if name in RESERVED:
            raise _fault(f"{name!r} is taken; choose another name")
        return name

    @property
    def digest(self) -> str:
        """Hash of what the runs are made of: base, arms and tuning."""
        parts = self.model_dump(mode="json", include={"base", "arms", "tune"})
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:10]


@dataclass(frozen=True)
class Arm:
    """One of the experiments of a lesson."""

    name: str
    config: ExperimentConfig
    """Under the name `lesson.arm`; before it is tuned, where it is."""
    candidates: tuple[ExperimentConfig, ...] = ()
    """One for each value to be tried; none where nothing is tuned."""


@dataclass(frozen=True)
class Lesson:
    """A lesson with its experiments made."""

    config: LessonConfig
    arms: tuple[Arm, ...]
    tune: Tune | None
    """None also where the tuned key was given on the command line."""

    @property
    def name(self) -> str:
        """Its name."""
        return self.config.name

    def from_seed(self, first: int) -> Lesson:
        """The same lesson with as many seeds, from `first` on."""
        return replace(self, arms=tuple(_from_seed(arm, first) for arm in self.arms))


def _from_seed(arm: Arm, first: int) -> Arm:
    """The seeds of tuning follow those of the arm, as ever."""
    after = first + len(arm.config.seed_list)
    candidates = [
        candidate.with_seeds(*range(after, after + len(candidate.seed_list))) for candidate in arm.candidates
    ]
    return replace(arm, config=arm.config.with_seeds(*range(first, after)), candidates=tuple(candidates))
