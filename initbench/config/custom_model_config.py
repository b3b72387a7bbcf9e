"""The keys that a user's own module takes on the command line; it brings its architecture and init."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from initbench.config.schema import Seed
from initbench.data.dataset import DATASETS, DataOptions
from initbench.models.init_weights import InitOptions
from initbench.registry import Section
from initbench.registry_choice import Choice


class CustomProbeOptions(Section):
    """What the module is shown."""

    batch: int = Field(default=32, ge=2)
    """Samples of the batch."""


class CustomModelConfig(Section):
    """A module to look at: how often it is drawn, and what it is shown."""

    seeds: (
        Annotated[int, Field(ge=1, le=1000)] | Annotated[list[Seed], Field(min_length=1, max_length=10_000)]
    ) = 3
    """How many modules are made, each under a seed of its own, or a list of seeds."""
    data: Annotated[DataOptions, Choice(DATASETS, shorthand=False)] | None = None
    """Data set of the batch; null for N(0, 1) noise."""
    init: InitOptions | None = None
    """The init that all weights are meant to have; `initbench lint` holds them against it."""
    probe: CustomProbeOptions = Field(default_factory=CustomProbeOptions)
    """Measurement."""

    @property
    def seed_list(self) -> tuple[int, ...]:
        """The seeds, one for each module."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else tuple(self.seeds)
