"""Table of the default of every config key, readable without the schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from initbench.config.registry_fields import leaf_types
from initbench.config.schema import ExperimentConfig
from initbench.registry_choice import Choice


def defaults_json() -> str:
    """Return the table of `initbench.analysis.recorded_defaults` as indented JSON, with a final newline.

    `keys` maps each key to its `default` as stored (absent for required keys) and to its content: the `keys`
    of a section, or the name of a `choice`. In `choices`, `tag` is the key that holds an entry's name, and
    `entries` has the keys of each entry.
    """
    choices: dict[str, Any] = {}
    document = {"keys": _keys(ExperimentConfig, choices), "choices": choices}
    return json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _keys(model: type[BaseModel], choices: dict[str, Any], tag: str = "") -> dict[str, Any]:
    dumped = _default_values(model)
    return {
        key: {**({"default": dumped[key]} if key in dumped else {}), **dict(_nested(field, choices))}
        for key, field in model.model_fields.items()
        if key != tag
    }


def _default_values(model: type[BaseModel]) -> dict[str, Any]:
    """Return the defaults as in a resolved config; required keys have none."""
    defaults = {
        key: field.get_default(call_default_factory=True)
        for key, field in model.model_fields.items()
        if not field.is_required()
    }
    return model.model_construct(**defaults).model_dump(mode="json", include=set(defaults))


def _nested(field: Any, choices: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the section or choice of the field's values; nothing for lists and plain values."""
    for annotation, choice in leaf_types(field.annotation, list(field.metadata)):
        if choice is not None:
            _add_choice(choice, choices)
            yield "choice", choice.registry.kind
        elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield "keys", _keys(annotation, choices)


def _add_choice(choice: Choice[Any], choices: dict[str, Any]) -> None:
    kind = choice.registry.kind
    if kind in choices:
        return
    entries: dict[str, Any] = {}
    choices[kind] = {"tag": choice.tag, "entries": entries}
    for entry in choice.registry:
        entries[entry.name] = _keys(entry.options, choices, choice.tag)
