"""Examples of how to write a registry entry in a config, and the shipped configs that name it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from initbench.config.bundled_files import CONFIGS
from initbench.config.fields import as_yaml, default_value
from initbench.config.registry_fields import RegistryField
from initbench.config.yaml_reader import parse_yaml
from initbench.registry import RegistryEntry

PLACEHOLDER = "..."
"""Placeholder for the value of an option without default."""


def example_options(kind: RegistryField, entry: RegistryEntry) -> dict[str, Any]:
    """Return options for an example: the required ones, otherwise the first of the entry's own."""
    fields = {key: field for key, field in entry.options.model_fields.items() if key != kind.tag}
    required = {key: PLACEHOLDER for key, field in fields.items() if field.is_required()}
    own_keys = [key for key in fields if key in entry.options.__annotations__]
    return required or {key: default_value(fields[key]) for key in own_keys[:1]}


def yaml_example(kind: RegistryField, entry: RegistryEntry) -> list[str]:
    """Return the lines of a config that choose `entry`."""
    *sections, last = kind.key.split(".")
    options = example_options(kind, entry)
    if kind.shorthand:
        value = {kind.tag: entry.name, **options} if options else entry.name
        lines = [f"{last}: {as_yaml(value)}"]
    else:
        lines = [f"{key}: {as_yaml(value)}" for key, value in ((last, entry.name), *options.items())]
    indent = "  " * len(sections)
    return [f"{'  ' * depth}{key}:" for depth, key in enumerate(sections)] + [indent + line for line in lines]


def override_examples(kind: RegistryField, entry: RegistryEntry) -> list[list[str]]:
    """Return ways to choose `entry` on the command line, each a list of key=value arguments."""
    options = example_options(kind, entry)
    plain = f"{kind.key}={entry.name}"
    if not options:
        return [[plain]]
    if kind.shorthand:
        whole = [f"{kind.key}={as_yaml({kind.tag: entry.name, **options})}"]
        return [whole] if PLACEHOLDER in options.values() else [[plain], whole]
    section = kind.key.rpartition(".")[0]
    return [[plain, *(f"{section}.{key}={as_yaml(value)}" for key, value in options.items())]]


def bundled_configs(kind: RegistryField, name: str) -> list[str]:
    """Return the shipped experiments that name the entry; empty if the package has no configs."""
    return [
        f"configs/{file}"
        for file, data in _data_of_configs(CONFIGS).items()
        if any(_name_at(data, key, kind.tag) == name for key in kind.keys)
    ]


@cache
def _data_of_configs(folder: Path) -> dict[str, Any]:
    """Return the data of the configs in a folder by file name; empty if there is no such folder."""
    paths = sorted(folder.glob("*.yaml")) if folder.is_dir() else []
    return {path.name: parse_yaml(path.read_text(encoding="utf-8"), str(path)).data for path in paths}


def _name_at(data: Any, key: str, tag: str) -> Any:
    for part in key.split("."):
        data = data.get(part) if isinstance(data, dict) else None
    return data.get(tag) if isinstance(data, dict) else data
