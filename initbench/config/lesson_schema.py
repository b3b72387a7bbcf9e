"""The file of a lesson: a question, the experiments that answer it, and claims about what they show."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from initbench.config.schema import ExperimentConfig
from initbench.config.tuning_schema import Tune, config_issue
from initbench.registry import Section

NAME = r"^[A-Za-z][A-Za-z0-9_]*$"
"""Names of lessons and arms: an arm's is a row in claims, where a dash would be a minus."""
RESERVED = ("before", "ls")
"""Names with a meaning of their own: an earlier state in gates, and the list of lessons."""
Sentence = Annotated[str, Field(min_length=1)]
Names = Annotated[list[Sentence], Field(min_length=1)]


class Claim(Section):
    """What a source says, and what the runs have to show for it to hold."""

    says: Sentence
    """The source's words, or a close paraphrase."""
    holds_if: Sentence
    """A condition in the language of gates (docs/ci.md), whose rows are the arms.

    One that names no arm is about each of them."""
    source: str = ""
    """Who says so; the lesson's source when it is empty."""


class Figure(Section):
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
            raise config_issue("give one of layers, curves and axes")
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
    show: list[Figure] = Field(default_factory=list)
    """Pictures, in this order."""

    @field_validator("arms", mode="before")
    @classmethod
    def _empty_arms(cls, arms: Any) -> Any:
        """`plain:` without a value is an arm that changes nothing."""
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
