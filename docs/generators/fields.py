"""Render the fields of a pydantic section as rows of a table: key, type, default, meaning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from docs.generators.markdown import code
from initbench.config.fields import as_yaml, default_value, type_words
from initbench.registry import Registry

Link = Callable[[Registry[Any]], str]
"""Markdown link to the registry's table."""


def rows(model: type[BaseModel], link: Link, skip: frozenset[str] = frozenset()) -> list[list[str]]:
    """Return one row per field: key, type, default, description."""
    return [
        [
            code(key),
            type_words(field, link, code),
            default_of(field),
            (field.description or "").replace("\n", " "),
        ]
        for key, field in model.model_fields.items()
        if key not in skip
    ]


def default_of(field: FieldInfo) -> str:
    """Return the default as it would be written in YAML, or `required`."""
    if field.is_required():
        return "required"
    value = default_value(field)
    return "see below" if isinstance(value, dict) else code(as_yaml(value))
