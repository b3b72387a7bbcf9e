"""Registries whose entries a config can name, found by walking the config's types."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from initbench.config.schema import ExperimentConfig
from initbench.registry import Registry
from initbench.registry_choice import Choice


@dataclass(frozen=True)
class RegistryField:
    """A registry with the config keys that name its entries."""

    registry: Registry[Any]
    keys: tuple[str, ...]
    """Keys in schema order, such as `model.norm`, or `data.name` if a bare name is not allowed."""
    tag: str
    """Key that holds an entry's name, next to its options."""
    shorthand: bool
    """Whether the bare name stands for an entry with its default options."""

    @property
    def key(self) -> str:
        """First of the keys."""
        return self.keys[0]

    @property
    def title(self) -> str:
        """Heading of the registry's table."""
        noun = self.registry.kind
        plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
        return plural[0].upper() + plural[1:]


def registry_fields() -> list[RegistryField]:
    """Return every registry once, in schema order."""
    fields: dict[int, RegistryField] = {}
    for key, choice in _choices(ExperimentConfig, ""):
        identity = id(choice.registry)
        kind = fields.setdefault(identity, RegistryField(choice.registry, (), choice.tag, choice.shorthand))
        if key not in kind.keys:
            fields[identity] = replace(kind, keys=(*kind.keys, key))
    return list(fields.values())


def _choices(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, Choice[Any]]]:
    for key, field in model.model_fields.items():
        for annotation, choice in leaf_types(field.annotation, list(field.metadata)):
            path = f"{prefix}{key}"
            if choice is not None:
                yield (path if choice.shorthand else f"{path}.{choice.tag}"), choice
                for entry in choice.registry:
                    yield from _choices(entry.options, f"{path}.")
            elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
                yield from _choices(annotation, f"{path}.")


def leaf_types(annotation: Any, metadata: list[Any]) -> Iterator[tuple[Any, Choice[Any] | None]]:
    """Yield the types that a value of this annotation may have, each with its registry choice, if any."""
    choice = next((item for item in metadata if isinstance(item, Choice)), None)
    origin = get_origin(annotation)
    if choice is not None:
        yield annotation, choice
    elif origin is Annotated:
        inner, *annotations = get_args(annotation)
        yield from leaf_types(inner, annotations)
    elif origin in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from leaf_types(member, [])
    else:
        yield annotation, None
