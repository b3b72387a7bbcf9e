"""A small config model with one of everything that real ones are made of."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from initbench.config.loading import load_config
from initbench.errors import ConfigError
from initbench.registry import Options, Registry, RegistryEntry, Section
from initbench.registry_choice import Choice, default_choice


class GroupOptions(Options):
    num_groups: int = Field(8, ge=1)
    sizes: tuple[int, ...] = ()


NORMS: Registry[RegistryEntry] = Registry("norm")
NORMS.add(RegistryEntry(name="batch", summary="s", source="x"))
NORMS.add(RegistryEntry(name="group", summary="s", source="x", options=GroupOptions))
FAMILIES: Registry[RegistryEntry] = Registry("family")


class MlpOptions(Section):
    family: str = ""
    depth: int = Field(gt=0)
    norm: Annotated[Any, Choice(NORMS)] = Field(default_factory=lambda: default_choice(NORMS, "batch"))
    activation: Literal["relu", "tanh"] = "relu"


FAMILIES.add(RegistryEntry(name="mlp", summary="s", source="x", options=MlpOptions))  # type: ignore[arg-type]


class Train(Section):
    lr: float = Field(0.1, ge=0.0)
    steps: int | None = None
    epochs: int | None = None
    nesterov: bool = False
    gain: Annotated[float, Field(gt=0)] | Literal["auto"] | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    by_layer: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_budget(self) -> Train:
        if self.steps is not None and self.epochs is not None:
            raise PydanticCustomError("key_fault", "{problem}", {"problem": "not both", "at": "epochs"})
        return self


class Config(Section):
    name: str = Field(min_length=1, max_length=8, pattern="^[a-z]+$")
    notes: str = ""
    seeds: Annotated[int, Field(ge=1)] | Annotated[list[int], Field(min_length=1)] = 1
    model: Annotated[Any, Choice(FAMILIES, "family", shorthand=False)]
    head: Annotated[Any, Choice(NORMS)] | None = None
    train: Train = Train()

    @field_validator("notes")
    @classmethod
    def _no_todo(cls, notes: str) -> str:
        if notes == "todo":
            raise ValueError("say what to look at")
        return notes

    @model_validator(mode="after")
    def _lr_fits(self) -> Config:
        if self.train.lr > self.model.depth:
            raise PydanticCustomError("key_fault", "{problem}", {"problem": "too large", "key": "train.lr"})
        return self


@pytest.fixture(scope="session")
def config_model() -> type[Config]:
    return Config


@pytest.fixture
def told(tmp_path, monkeypatch, config_model):
    """Write `text` to f.yaml and give the lines of the ConfigError that loading it raises."""
    monkeypatch.chdir(tmp_path)

    def lines(text, *overrides):
        (tmp_path / "f.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError) as caught:
            load_config("f.yaml", overrides, config_model)
        return str(caught.value).splitlines()

    return lines
