"""The registries a config can name, found by walking the config's own types."""

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
    """A registry, and the config keys that name its entries."""

    registry: Registry[Any]
    keys: tuple[str, ...]
    """In the order in which a config meets them: `model.norm`; `data.name` where no name can stand bare."""
    tag: str
    """The key that holds an entry's name beside its options."""
    shorthand: bool
    """Whether the bare name stands for an entry with its default options."""

    @property
    def key(self) -> str:
        """The first of its keys."""
        return self.keys[0]

    @property
    def title(self) -> str:
        """The heading of its table."""
        noun = self.registry.kind
        plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
        return plural[0].upper() + plural[1:]


def registry_fields() -> list[RegistryField]:
    """Every registry once, in the order in which a config meets them."""
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
    """The types that a value of this annotation may have, each with the registry that it names, if any."""
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
