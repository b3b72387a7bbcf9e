"""Overrides: `key=value` arguments of a command line that change a config.

Values are written as in config files: `5`, `1e-3`, `true`, `[1, 2]`, `{name: zeros}`. Plain text needs no
quotes besides those of the shell and may contain any character (`notes=a: b # c`). Both `key=` and `key=null`
set the key to null; `key='""'` sets it to the empty text.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from initbench.config.issue_messages import yaml_type_name
from initbench.config.validation_errors import KeyPath, dotted_key
from initbench.config.yaml_reader import MAX_DEPTH, parse_scalar, parse_yaml
from initbench.errors import ConfigError, ConfigIssue

_LOOKS_LIKE_KEY = re.compile(r"\s*[A-Za-z_][\w.-]*\s*[+:]?=|[+~]{1,2}[A-Za-z_]")
_SIGNS = "+~"
"""Prefixes in another program's overrides, where `+key=value` adds a key and `~key` removes one."""
KEY = re.compile(r"[A-Za-z_][\w-]*(?:\.[A-Za-z_][\w-]*)*", re.ASCII)
"""Pattern of a dotted key."""


@dataclass(frozen=True)
class Override:
    """One `key=value` argument."""

    path: tuple[str, ...]
    value: Any
    text: str
    """The argument as given; for a value from a file, its key."""
    position: str = ""
    """`file:line:column` of a value from a file."""
    is_axis: bool = False
    """Whether `value` is a list whose values are each run."""
    source: KeyPath = ()
    """Path of the value in the file by which messages name it; empty to name it by `path`."""

    @property
    def where(self) -> str:
        """Source of this value, as a ConfigIssue names it."""
        return self.position or f"override {self.text}"


def split_arguments(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split arguments into files and overrides.

    An override has a dotted key before its `=` and is not an existing file. Arguments that look like the
    overrides of other programs count as overrides too.
    """
    files: list[str] = []
    overrides: list[str] = []
    for arg in args:
        is_override = (_LOOKS_LIKE_KEY.match(arg) or _is_separated_by_colon(arg)) and not _exists(arg)
        (overrides if is_override else files).append(arg)
    return files, overrides


def _is_separated_by_colon(arg: str) -> bool:
    """Return whether `arg` is a key and a value with a colon between them: `model.depth:3`."""
    key, colon, _ = arg.partition(":")
    return bool(colon) and "." in key and KEY.fullmatch(key) is not None and "/" not in arg


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):  # too long for a file name, or it holds a NUL
        return False


def parse_override(text: str, *, axes: bool = False) -> Override:
    """Parse one `key=value`; raises ConfigError if the key or the value is malformed.

    With `axes`, several values separated by commas are an axis; otherwise they are refused.
    """
    key, equals, written = (part.strip() for part in text.partition("="))
    if text[:1] in _SIGNS and text.strip(_SIGNS):
        raise _override_error(text, "", _without_sign(text))
    if not equals and _is_separated_by_colon(text):
        raise _override_error(text, "", f"write {'='.join(part.strip() for part in text.split(':', 1))}")
    if written[:1] == "=" or key[-1:] in ("+", "-", ":"):
        raise _override_error(text, "", f"write {key.rstrip('+-:')}={written.lstrip('= ')}")
    if not equals or not KEY.fullmatch(key):
        raise _override_error(text, "", f"{key!r} is not a key such as train.lr; write key=value")
    path = tuple(key.split("."))
    if len(path) > MAX_DEPTH:
        raise _override_error(text, "", f"is nested deeper than {MAX_DEPTH} levels, the limit")
    if _is_list_of_values(written):
        if axes:
            return Override(path, _flow_value(text, key, f"[{written}]"), text, is_axis=True)
        raise _override_error(text, key, _one_value(key, written))
    return Override(path, _value(text, key, written), text)


def _without_sign(text: str) -> str:
    """Return advice for `+key=value`, `++key=value` and `~key`."""
    key, equals, written = text.lstrip(_SIGNS).partition("=")
    if text[0] == "~":
        key = key.strip()
        return f"to have the default, leave the key out; else write {key}=VALUE (no + or ~ here)"
    return f"write {key.strip()}={written.strip() if equals else 'VALUE'} (no + or ~ here)"


def _value(text: str, key: str, written: str) -> Any:
    if written[:1] in ("[", "{", '"', "'"):
        return _flow_value(text, key, written)
    try:
        return parse_scalar(written)
    except ValueError as error:
        raise _override_error(text, key, str(error)) from None


def _flow_value(text: str, key: str, written: str) -> Any:
    """Parse a value in brackets, braces or quotes as the only key of a document."""
    document = parse_yaml(f"value: {written}", "")
    if document.faults:
        raise ConfigError(ConfigIssue(f"override {text}", key, fault.problem) for fault in document.faults)
    if list(document.data) != ["value"]:
        raise _override_error(text, key, "holds more than one value")
    return document.data["value"]


def _is_list_of_values(written: str) -> bool:
    """Return whether commas at the top level separate values, and not the clauses of a sentence."""
    values = parse_yaml(f"value: [{written}]", "").data.get("value")
    if "," not in written or not isinstance(values, list) or len(values) < 2:
        return False
    return not any(isinstance(value, str) and re.search(r"\s", value) for value in values)


def _one_value(key: str, written: str) -> str:
    return (
        f"one value belongs here; to run each, use `initbench sweep FILE {key}={written}`; "
        f"a list is written {key}=[{written}]"
    )


def _override_error(text: str, key: str, problem: str) -> ConfigError:
    return ConfigError([ConfigIssue(f"override {text}", key, problem)])


def apply_overrides(data: dict[str, Any], overrides: Sequence[Override]) -> dict[str, Any]:
    """Return a deep copy of `data` with `overrides` applied in order.

    Missing mappings on the path are created. A name on the path becomes a mapping with that name, so that
    `model.norm.num_groups=8` completes `norm: group`. A value replaces the previous value completely.

    Raises:
        ConfigError: If a path leads through a number or a list.
    """
    merged = copy.deepcopy(data)
    faults = [fault for override in overrides if (fault := _set_value(merged, override)) is not None]
    if faults:
        raise ConfigError(faults)
    return merged


def _set_value(data: dict[str, Any], override: Override) -> ConfigIssue | None:
    *parents, last = override.path
    inside = data
    for depth, key in enumerate(parents, start=1):
        below = inside.get(key)
        if below is None:
            below = {}
        elif isinstance(below, str):
            below = {"name": below}
        if not isinstance(below, dict):
            return ConfigIssue(
                override.where,
                dotted_key(override.path),
                f"{dotted_key(override.path[:depth])} is {yaml_type_name(below)} and has no keys; "
                "replace it whole",
            )
        inside[key] = below
        inside = below
    inside[last] = copy.deepcopy(override.value)
    return None
