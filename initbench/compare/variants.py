"""What sets experiments of one name apart: the keys of their configs and identities that differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from initbench.store.store import StoredRun

_NOT_COMPARED = ("name", "notes", "seeds")
Arm = tuple[str, str]
"""An experiment's name and the digest shared by its seeds."""


def variants(samples: Mapping[Arm, StoredRun]) -> dict[Arm, dict[str, Any]]:
    """For each arm, given one run of it, its values of the keys in which the arms of its name differ.

    A key without a value (null, or an option that the component has not) is left out.
    """
    described = {arm: _flat(_description(run)) for arm, run in samples.items()}
    found: dict[Arm, dict[str, Any]] = {}
    for (name, digest), own in described.items():
        same_name = [flat for (other, _), flat in described.items() if other == name]
        keys = sorted({key for flat in same_name for key in flat})
        differing = [key for key in keys if len({repr(flat.get(key)) for flat in same_name}) > 1]
        found[name, digest] = {key: own[key] for key in differing if key in own}
    return found


def _description(run: StoredRun) -> dict[str, Any]:
    config = {key: value for key, value in run.record["config"].items() if key not in _NOT_COMPARED}
    return {**config, "with": run.record.get("identity") or {}}


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Dotted paths to values; a component `{name: group, num_groups: 8}` is a name with options below it."""
    if not isinstance(value, dict):
        return {} if value is None else {path: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        below = f"{path}.{key}" if path else key
        flat |= _flat(inner, path if path and key == "name" else below)
    return flat
