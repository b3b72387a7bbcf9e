"""The config of an experiment. Names and options are checked against the registries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from initbench.choice import Choice, default_choice, options_model
from initbench.components.norm import NORMS
from initbench.components.optimizer import OPTIMIZERS
from initbench.components.schedule import SCHEDULES
from initbench.data.dataset import DATASETS, DataOptions
from initbench.models.initialise import InitOptions
from initbench.models.network import FAMILIES, FamilyOptions
from initbench.registry import Options, Registry, Section

Seed = Annotated[int, Field(ge=0, lt=2**63)]
When = Literal["init", "train", "end"]


def _default_of(registry: Registry[Any], name: str, tag: str) -> Callable[[], Any]:
    """A factory of the entry called `name` with its default options."""
    return options_model(registry[name], tag)


class TrainOptions(Section):
    """How the net is trained."""

    steps: int | None = Field(default=None, ge=1)
    """Number of updates. Give this or `epochs`; 2,000 steps when neither is given."""
    epochs: float | None = Field(default=None, gt=0.0)
    """Passes over the training split, instead of `steps`; a fraction is allowed."""
    batch_size: int = Field(default=128, ge=1)
    """Samples of one update; the incomplete rest of an epoch is dropped."""
    optimizer: Annotated[Options, Choice(OPTIMIZERS)] = Field(
        default_factory=lambda: default_choice(OPTIMIZERS, "sgd")
    )
    """Optimizer: a name, or a mapping of name and options (momentum, nesterov, …)."""
    lr: float = Field(default=0.01, ge=0.0)
    """Learning rate before the schedule."""
    schedule: Annotated[Options, Choice(SCHEDULES)] = Field(
        default_factory=lambda: default_choice(SCHEDULES, "constant")
    )
    """Learning-rate schedule: a name, or a mapping of name and options."""
    warmup_steps: int = Field(default=0, ge=0)
    """Updates over which the learning rate rises linearly to `lr`."""
    weight_decay: float = Field(default=0.0, ge=0.0)
    """Weight decay, on every parameter; decoupled from the gradient for adamw alone."""
    clip_norm: float | None = Field(default=None, gt=0.0)
    """Largest norm of a run's whole gradient; null for no clipping."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the target spread evenly over all classes."""
    eval_every: int | None = Field(default=None, ge=1)
    """Updates between evaluations; null for a tenth of the budget."""

    @model_validator(mode="after")
    def _one_budget(self) -> TrainOptions:
        if self.steps is not None and self.epochs is not None:
            problem = "give train.steps or train.epochs, not both"
            raise PydanticCustomError("key_fault", "{problem}", {"problem": problem, "at": "epochs"})
        return self


class ProbeOptions(Section):
    """How layers are measured."""

    when: list[When] = Field(default=["init", "train", "end"])
    """Moments of measurement: at init, at the evaluations in between, at the end."""
    batch: int = Field(default=512, ge=2)
    """Samples of the fixed batch, from the training split."""
    bins: int = Field(default=32, ge=2, le=1024)
    """Bins of the activation histograms."""


class ExperimentConfig(Section):
    """One experiment: an architecture, an init, a data set and a training, under some seeds."""

    kind: Literal["experiment"] = "experiment"
    """What this file declares."""
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    """Name of the experiment: letters, digits, dots, dashes and underscores."""
    notes: str = ""
    """What to look at, for people."""
    seeds: Annotated[int, Field(ge=1, le=10_000)] | Annotated[list[Seed], Field(min_length=1)] = 1
    """How many seeds (n means 0 … n−1), or a list of them."""
    data: Annotated[DataOptions, Choice(DATASETS, shorthand=False)] = Field(
        default_factory=_default_of(DATASETS, "mnist", "name")
    )
    """Data set, its preparation and its options."""
    model: Annotated[FamilyOptions, Choice(FAMILIES, "family", shorthand=False)] = Field(
        default_factory=_default_of(FAMILIES, "mlp", "family")
    )
    """Architecture."""
    init: InitOptions = Field(default_factory=InitOptions)
    """Weight initialisation."""
    train: TrainOptions = Field(default_factory=TrainOptions)
    """Training."""
    probe: ProbeOptions = Field(default_factory=ProbeOptions)
    """Measurement."""

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: int | list[int]) -> int | list[int]:
        if isinstance(seeds, list) and len(set(seeds)) < len(seeds):
            raise PydanticCustomError(
                "key_fault", "{problem}", {"problem": "a seed is listed twice", "at": ""}
            )
        return seeds

    @model_validator(mode="after")
    def _norm_has_a_batch(self) -> ExperimentConfig:
        norm, batch = self.model.norm.name, self.train.batch_size
        if batch < NORMS[norm].min_batch:
            problem = f"model.norm={norm} needs at least {NORMS[norm].min_batch} samples a batch, not {batch}"
            raise PydanticCustomError(
                "key_fault", "{problem}", {"problem": problem, "at": "train.batch_size"}
            )
        return self

    @property
    def seed_list(self) -> tuple[int, ...]:
        """The seeds, one for each run."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else tuple(self.seeds)

    def with_seeds(self, *seeds: int) -> ExperimentConfig:
        """The same experiment under other seeds."""
        return self.model_copy(update={"seeds": list(seeds)})

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, defaults filled in, as plain YAML data."""
        return self.model_dump(mode="json")
