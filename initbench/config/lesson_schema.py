"""Schema of a lesson file: a question, the experiments that answer it, and claims about their results."""

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
"""Pattern for names of lessons and arms: claims use arm names, where a dash would be a minus."""
RESERVED = ("before", "ls")
"""Reserved names: `before` means an earlier state in gates, `ls` lists the lessons."""
Sentence = Annotated[str, Field(min_length=1)]
Names = Annotated[list[Sentence], Field(min_length=1)]


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
    name: str = Field(pattern=NAME, max_length=48)
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
class Arm:
    """One of the experiments of a lesson."""

    name: str
    config: ExperimentConfig
    """Experiment named `lesson.arm`, before any tuning."""
    candidates: tuple[ExperimentConfig, ...] = ()
    """Tuning experiments, one per value to try; empty without tuning."""


@dataclass(frozen=True)
class Lesson:
    """A lesson with its experiments."""

    config: LessonConfig
    arms: tuple[Arm, ...]
    tune: Tune | None
    """Key to tune; also None if the command line sets that key."""

    @property
    def name(self) -> str:
        """Name of the lesson."""
        return self.config.name

    def from_seed(self, first: int) -> Lesson:
        """Return a copy of the lesson with the same number of seeds, starting at `first`."""
        return replace(self, arms=tuple(_from_seed(arm, first) for arm in self.arms))


def _from_seed(arm: Arm, first: int) -> Arm:
    """Return the arm with seeds from `first` on, followed by the seeds of its tuning."""
    after = first + len(arm.config.seed_list)
    candidates = [
        candidate.with_seeds(*range(after, after + len(candidate.seed_list))) for candidate in arm.candidates
    ]
    return replace(arm, config=arm.config.with_seeds(*range(first, after)), candidates=tuple(candidates))
