"""Defaults of config keys that were added after a run was stored.

The config of a run has every key that existed when it was trained. The default of a key that was added later
does not change the computation, so a config without the key is equivalent to one with the default. The
defaults are in `defaults.json`, which `python -m docs.generate` writes from the schema
(`initbench.config.defaults`). Stored runs can therefore be compared without the schema and without torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

Keys = Mapping[str, Mapping[str, Any]]
"""By key: its `default` as in a stored config, and `keys` (a section) or `choice` (a component) if nested."""

TABLE = Path(__file__).with_name("defaults.json")


def with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config with its missing keys at their defaults, including those of sections and components.

    Existing keys are not changed, even if their value is null. Keys without a default are not added, nor are
    keys of components that no longer exist.
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
    """Return a component, given as a name or a mapping, with its missing options at their defaults.

    A name stays a name if the component has no options.
    """
    tag = choice["tag"]
    component = {tag: value} if isinstance(value, str) else value
    keys = choice["entries"].get(component.get(tag)) if isinstance(component, dict) else None
    if keys is None:
        return value
    filled = _fill_section(component, keys)
    return value if isinstance(value, str) and len(filled) == 1 else filled
