"""What every key of a config is by default, as a table that can be read without the schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from initbench.config.registry_fields import leaf_types
from initbench.config.schema import ExperimentConfig
from initbench.registry_choice import Choice


def defaults_json() -> str:
    """The table of `initbench.analysis.recorded_defaults` as indented JSON text, with a newline at the end.

    `keys`: by key its `default` as it is stored (none where the key is required), and what is below it:
    `keys` of a section, or the name of one of the `choices`. Of these, `tag` holds an entry's name, and
    `entries` have the keys of each entry that has options.
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
    """The defaults as a resolved config has them; required keys have none."""
    defaults = {
        key: field.get_default(call_default_factory=True)
        for key, field in model.model_fields.items()
        if not field.is_required()
    }
    return model.model_construct(**defaults).model_dump(mode="json", include=set(defaults))


def _nested(field: Any, choices: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The section or the choice that a value of the field is; nothing for lists and plain values."""
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
