"""Faults of a config in plain words: what was found, what is expected, and the nearest name.

`to_issues` converts pydantic's list of errors into ConfigIssues. Pydantic's locations contain labels of
unions in addition to keys; the path of keys is recovered by walking the model's types.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from initbench.config.issue_messages import (
    NOUNS,
    dotted_key_in_file,
    issue_text,
    type_mismatch,
    unknown_key,
)
from initbench.errors import ConfigIssue
from initbench.registry import nearest_name
from initbench.registry_choice import ANY, Choice, options_model

MAX_FAULTS = 100
"""Maximum number of faults of one config that are listed."""

KeyPath = tuple[str | int, ...]
Where = Callable[[KeyPath, bool], str]
"""Function (path, whether of the key rather than the value) → `where` of a ConfigIssue."""
WrittenKey = Callable[[KeyPath], KeyPath]
"""Function that returns the dotted key with which the user set a path; empty if the keys were nested."""


def dotted_key(path: Sequence[str | int]) -> str:
    """Return a path as it is written on the command line: `model.norm.num_groups`."""
    return ".".join(str(part) for part in path)


@dataclass(frozen=True)
class ErrorLocation:
    """Location of one pydantic error in the config."""

    path: KeyPath
    parents: tuple[Any, ...]
    """Types at the level of the last key."""
    union: KeyPath | None
    """Location up to the first union without a tag, whose branches fail together."""

    @property
    def siblings(self) -> tuple[str, ...]:
        """Valid keys at the level of the last one."""
        return tuple(dict.fromkeys(key for node in self.parents for key in _keys(node)))


def locate_error(model: type[BaseModel], loc: KeyPath) -> ErrorLocation:
    """Return the path of keys for a pydantic location, without the labels of unions and choices."""
    nodes: list[Any] = [model]
    path: KeyPath = ()
    parents: tuple[Any, ...] = ()
    union: KeyPath | None = None
    for index, part in enumerate(loc):
        nodes = [inner for node in nodes for inner in _unwrap(node)]
        label = next((step for node in nodes if (step := _label(node, part)) is not None), None)
        if label is not None:
            if union is None and not any(isinstance(node, Choice) for node in nodes):
                union = loc[:index]
            nodes = label
            continue
        if part == "[key]":
            continue
        parents = tuple(nodes)
        nodes = [child for node in nodes for child in _children(node, part)]
        path = (*path, part)
    return ErrorLocation(path, parents, union)


def _unwrap(node: Any) -> Iterator[Any]:
    """Remove Annotated and `| None`; a Choice in the annotation replaces all of it."""
    origin, arguments = get_origin(node), get_args(node)
    if origin is Annotated:
        choice = next((mark for mark in arguments[1:] if isinstance(mark, Choice)), None)
        yield from [choice] if choice is not None else _unwrap(arguments[0])
    elif origin in (Union, types.UnionType):
        members = [member for member in arguments if member is not type(None)]
        yield from _unwrap(members[0]) if len(members) == 1 else [_Branches(tuple(members))]
    else:
        yield node


@dataclass(frozen=True)
class _Branches:
    members: tuple[Any, ...]


def _label(node: Any, part: str | int) -> list[Any] | None:
    """Return the types below `part` if pydantic inserted it as a label, else None."""
    if isinstance(node, _Branches):
        members = [member for member in node.members if getattr(member, "__name__", None) == part]
        return members or list(node.members)
    if isinstance(node, Choice):
        members = [options_model(entry, node.tag) for entry in node.registry if part in (entry.name, ANY)]
        return members or None
    return None


def _is_model(node: Any) -> bool:
    return isinstance(node, type) and issubclass(node, BaseModel)


def _keys(node: Any) -> list[str]:
    return [info.alias or name for name, info in node.model_fields.items()] if _is_model(node) else []


def _children(node: Any, part: str | int) -> list[Any]:
    if _is_model(node):
        fields = {info.alias or name: info for name, info in node.model_fields.items()}
        info = fields.get(str(part))
        return [] if info is None else [Annotated[info.annotation, *info.metadata, "field"]]
    origin, arguments = get_origin(node), get_args(node)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return [arguments[1]]
    if origin is tuple and Ellipsis not in arguments:
        return [arguments[part]] if isinstance(part, int) and part < len(arguments) else []
    return [arguments[0]] if arguments and isinstance(part, int) else []


def to_issues(
    error: ValidationError, model: type[BaseModel], where: Where, written_key: WrittenKey
) -> list[ConfigIssue]:
    """Return one ConfigIssue for each fault that `error` reports in data for `model`."""
    groups: dict[Any, list[tuple[ErrorLocation, Any]]] = {}
    for index, entry in enumerate(error.errors(include_url=False)):
        location = locate_error(model, entry["loc"])
        groups.setdefault(index if location.union is None else location.union, []).append((location, entry))
        if len(groups) > MAX_FAULTS:
            break
    faults = [fault for group in groups.values() for fault in _faults(group, where, written_key)]
    if len(faults) <= MAX_FAULTS:
        return faults
    rest = error.error_count() - MAX_FAULTS
    return [
        *faults[:MAX_FAULTS],
        ConfigIssue(where((), False), "", f"has {rest:,} more faults, which are not listed"),
    ]


def _faults(
    group: list[tuple[ErrorLocation, Any]], where: Where, written_key: WrittenKey
) -> Iterator[ConfigIssue]:
    """Yield the faults of one value; if all branches of a union refuse it, one message names them all."""
    top = min(len(location.path) for location, _ in group)
    specific = [pair for pair in group if pair[1]["type"] not in NOUNS or len(pair[0].path) > top]
    if specific:
        yield from (_fault(location, entry, where, written_key) for location, entry in specific)
    else:
        location, problem = group[0][0], type_mismatch([entry for _, entry in group])
        yield ConfigIssue(where(location.path, False), dotted_key(location.path), problem)


def _fault(location: ErrorLocation, entry: Any, where: Where, written_key: WrittenKey) -> ConfigIssue:
    path, code, ctx = location.path, entry["type"], entry.get("ctx", {})
    if code == "missing" and isinstance(path[-1], int):
        path, problem = path[:-1], f"needs more values, has {len(entry['input'])}"
    elif code == "extra_forbidden":
        problem = _unknown_key(location, written_key(path))
    elif code.startswith("choice_") or code == "key_fault":
        problem = str(ctx["problem"])
        path = _steps(ctx["key"]) if "key" in ctx else path + _steps(ctx.get("at", ""))
    elif code in NOUNS:
        problem = type_mismatch([entry])
    else:
        problem = issue_text(entry)
    unknown_component = str(ctx["name"]) if code == "choice_unknown" else ""
    return ConfigIssue(where(path, code == "extra_forbidden"), dotted_key(path), problem, unknown_component)


def _unknown_key(location: ErrorLocation, written: KeyPath) -> str:
    *parents, key = map(str, location.path)
    if "." in key:
        return dotted_key_in_file(_nearest_keys(location.parents, key.split(".")))
    prefix, suffix = (parents, written[len(location.path) :]) if written else ([], ())
    return unknown_key(key, location.siblings, prefix=prefix, suffix=tuple(map(str, suffix)))


def _nearest_keys(nodes: Sequence[Any], parts: Sequence[str]) -> list[str]:
    """Return the valid keys nearest to the parts of a dotted key; empty if a part resembles none."""
    meant: list[str] = []
    for part in parts:
        nodes = [model for node in nodes for inner in _unwrap(node) for model in _models(inner)]
        keys = dict.fromkeys(key for node in nodes for key in _keys(node))
        guess = part if part in keys else nearest_name(part, keys)
        if guess is None:
            return []
        meant.append(guess)
        nodes = [child for node in nodes for child in _children(node, guess)]
    return meant


def _models(node: Any) -> list[Any]:
    """Return the models of all entries of a Choice, or of all branches of a union."""
    if isinstance(node, Choice):
        return [options_model(entry, node.tag) for entry in node.registry]
    return list(node.members) if isinstance(node, _Branches) else [node]


def _steps(key: str) -> KeyPath:
    return tuple(int(part) if part.isdecimal() else part for part in key.split(".") if part)
