"""Text descriptions of the fields of a section: types, limits, and defaults as YAML."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from initbench.registry import Registry
from initbench.registry_choice import Choice

_NAMES: dict[Any, str] = {
    int: "integer",
    float: "number",
    str: "text",
    bool: "true or false",
    type(None): "null",
}
_BOUNDS = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
_ROUND = {2**63: "2⁶³"}

Naming = Callable[[Registry[Any]], str]


def _registry_kind(registry: Registry[Any]) -> str:
    return registry.kind


def type_words(field: FieldInfo, name: Naming = _registry_kind, quote: Callable[[object], str] = str) -> str:
    """Describe the field's type and limits; `name` describes a registry, `quote` a literal value."""
    return " or ".join(dict.fromkeys(_describe(field.annotation, field.metadata, name, quote)))


def default_value(field: FieldInfo) -> Any:
    """Return the default as plain data: a registry entry as its name, another section as a mapping.

    None if the field is required, or if null is the default.
    """
    if field.is_required():
        return None
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return getattr(value, "name", "") or getattr(value, "family", "") or value.model_dump(mode="json")
    return value


def as_yaml(value: Any) -> str:
    """Format plain data as YAML on one line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(as_yaml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {as_yaml(inner)}" for key, inner in value.items()) + "}"
    if value == "":
        return '""'
    return f"{value:g}" if isinstance(value, float) and abs(value) < 1e-3 and value else str(value)


def _describe(
    annotation: Any, metadata: list[Any], name: Naming, quote: Callable[[object], str]
) -> Iterator[str]:
    choice = next((item for item in metadata if isinstance(item, Choice)), None)
    if choice is not None:
        yield name(choice.registry)
        return
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *annotations = get_args(annotation)
        yield from _describe(inner, [*_flatten(annotations), *metadata], name, quote)
    elif origin in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _describe(member, [] if member is type(None) else metadata, name, quote)
    elif origin is Literal:
        yield from (quote(value) for value in get_args(annotation))
    elif origin is list:
        yield "list of " + " or ".join(_describe(get_args(annotation)[0], [], name, quote))
    elif origin is dict:
        yield "mapping"
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield "section"
    else:
        yield _NAMES.get(annotation, str(annotation)) + _limits(metadata)


def _flatten(metadata: list[Any]) -> Iterator[Any]:
    for item in metadata:
        yield from item.metadata if isinstance(item, FieldInfo) else [item]


def _limits(metadata: list[Any]) -> str:
    limits = [
        f"{sign} {_ROUND.get(bound, f'{bound:,}' if isinstance(bound, int) else f'{bound:g}')}"
        for item in metadata
        for name, sign in _BOUNDS
        if (bound := getattr(item, name, None)) is not None
    ]
    return " " + ", ".join(limits) if limits else ""
