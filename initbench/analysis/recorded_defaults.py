"""The keys that a stored config does not have yet, at their defaults.

A run's config holds every key that there was when it was trained. A key that was added later has a default
that changes nothing, so a config without it computes what one with the default does. The defaults are in
`defaults.json`, which `python -m docs.generate` writes from the schema (`initbench.config.defaults`); so
stored runs are compared without the schema and without torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

Keys = Mapping[str, Mapping[str, Any]]
"""By key: its `default`, as a stored config has it, and where there are keys below it `keys` or `choice`."""

TABLE = Path(__file__).with_name("defaults.json")


def with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the keys that it lacks, those of its sections and of its components included.

    A key that is there stays as it is, also where its value is null. Keys without a default are left out, and
    so are those of components that have no entry any more.
    """
    return _fill_section(config, _load_table()["keys"])


def default_table() -> dict[str, Any]:
    """Return every key of an experiment with its default, and the entries of every kind of component."""
    return _load_table()


@cache
def _load_table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return table


def _fill_section(section: Mapping[str, Any], keys: Keys) -> dict[str, Any]:
    present = {key: _fill_value(value, keys[key]) if key in keys else value for key, value in section.items()}
    missing = {key: node["default"] for key, node in keys.items() if key not in section and "default" in node}
    return {**present, **missing}


def _fill_value(value: Any, node: Mapping[str, Any]) -> Any:
    if "keys" in node:
        return _fill_section(value, node["keys"]) if isinstance(value, dict) else value
    return _fill_component(value, _load_table()["choices"][node["choice"]]) if "choice" in node else value


def _fill_component(value: Any, choice: Mapping[str, Any]) -> Any:
    """An entry's name, or a mapping with it; a name alone where the entry has no options."""
    tag = choice["tag"]
    component = {tag: value} if isinstance(value, str) else value
    keys = choice["entries"].get(component.get(tag)) if isinstance(component, dict) else None
    if keys is None:
        return value
    filled = _fill_section(component, keys)
    return value if isinstance(value, str) and len(filled) == 1 else filled
