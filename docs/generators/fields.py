"""Describe the fields of a pydantic section: key, type, default, meaning."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from docs.generators.markdown import code
from initbench.choice import Choice
from initbench.registry import Registry

Link = Callable[[Registry[Any]], str]
"""Markdown link to the registry's table."""

_NAMES: dict[Any, str] = {
    int: "integer",
    float: "number",
    str: "text",
    bool: "true or false",
    type(None): "null",
}
_BOUNDS = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
_ROUND = {2**63: "2⁶³"}


def rows(model: type[BaseModel], link: Link, skip: frozenset[str] = frozenset()) -> list[list[str]]:
    """One row for each field: key, type, default, description."""
    return [
        [code(key), type_of(field, link), default_of(field), (field.description or "").replace("\n", " ")]
        for key, field in model.model_fields.items()
        if key not in skip
    ]


def type_of(field: FieldInfo, link: Link) -> str:
    """The field's type and limits in words."""
    return " or ".join(dict.fromkeys(_describe(field.annotation, field.metadata, link)))


def default_of(field: FieldInfo) -> str:
    """The default as it would be written in YAML, or `required`."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        named = getattr(value, "name", "") or getattr(value, "family", "")
        return code(named) if named else "see below"
    return code(_yaml(value))


def _yaml(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_yaml(item) for item in value) + "]"
    if value == "":
        return '""'
    return f"{value:g}" if isinstance(value, float) and abs(value) < 1e-3 and value else str(value)


def _describe(annotation: Any, metadata: list[Any], link: Link) -> Iterator[str]:
    chosen = next((item for item in metadata if isinstance(item, Choice)), None)
    if chosen is not None:
        yield link(chosen.registry)
        return
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *own = get_args(annotation)
        yield from _describe(inner, [*_flat(own), *metadata], link)
    elif origin in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _describe(member, [] if member is type(None) else metadata, link)
    elif origin is Literal:
        yield from (code(value) for value in get_args(annotation))
    elif origin is list:
        yield "list of " + " or ".join(_describe(get_args(annotation)[0], [], link))
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield "section"
    else:
        yield _NAMES.get(annotation, str(annotation)) + _limits(metadata)


def _flat(metadata: list[Any]) -> Iterator[Any]:
    for item in metadata:
        yield from item.metadata if isinstance(item, FieldInfo) else [item]


def _limits(metadata: list[Any]) -> str:
    found = [
        f"{sign} {_ROUND.get(bound, f'{bound:,}' if isinstance(bound, int) else f'{bound:g}')}"
        for item in metadata
        for name, sign in _BOUNDS
        if (bound := getattr(item, name, None)) is not None
    ]
    return " " + ", ".join(found) if found else ""
