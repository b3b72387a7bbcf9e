"""Config keys for a user's own module on the command line, which defines its architecture and init."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from initbench.config.schema import Seed
from initbench.data.dataset import DATASETS, DataOptions
from initbench.models.init_weights import InitOptions
from initbench.registry import Section
from initbench.registry_choice import Choice


class CustomProbeOptions(Section):
    """Batch that the module receives."""

    batch: int = Field(default=32, ge=2)
    """Number of samples in the batch."""


class CustomModelConfig(Section):
    """Settings for examining a module: how many are built, and on which data."""

    seeds: (
        Annotated[int, Field(ge=1, le=1000)] | Annotated[list[Seed], Field(min_length=1, max_length=10_000)]
    ) = 3
    """Number of modules to build, each with its own seed, or a list of seeds."""
    data: Annotated[DataOptions, Choice(DATASETS, shorthand=False)] | None = None
    """Data set of the batch; null for N(0, 1) noise."""
    init: InitOptions | None = None
    """Init that all weights are meant to have; `initbench lint` compares them with it."""
    probe: CustomProbeOptions = Field(default_factory=CustomProbeOptions)
    """Measurement."""

    @property
    def seed_list(self) -> tuple[int, ...]:
        """Seeds, one for each module."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else tuple(self.seeds)
