"""Read configs from files and the command line, and write a config so that it reads back."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from initbench.config.bundled_files import config_path, shipped_names
from initbench.config.config_paths import resolve_paths
from initbench.config.issue_messages import closest_spelling
from initbench.config.overrides import Override, apply_overrides, parse_override
from initbench.config.schema import ExperimentConfig
from initbench.config.validation_errors import KeyPath, Where, dotted_key, locate_error, to_issues
from initbench.config.yaml_reader import MAX_BYTES, MAX_DEPTH, REFUSED, Document, parse_scalar, parse_yaml
from initbench.errors import ConfigError, ConfigIssue
from initbench.registry import nearest_name

_KEY_WORD = re.compile(r"(?:data|model|init|train|probe)\.[A-Za-z_][\w.]*")
M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")
Read = Callable[[Document, str, Sequence[Override]], tuple[T | None, list[ConfigIssue]]]
"""(document, file, overrides) → what it declares, None where that cannot be said, and its faults."""


def load_config(path: Path | str, overrides: Sequence[str], model: type[M]) -> M:
    """Read one config; raises ConfigError with everything that is wrong with it."""
    return load_all([path], overrides, model)[0]


def load_all(paths: Sequence[Path | str], overrides: Sequence[str], model: type[M]) -> list[M]:
    """Read several configs under the same overrides; `-` is standard input.

    Raises one ConfigError with the faults of all files, in the order of the files and their
    lines, then those of the overrides.
    """
    return read_all(paths, overrides, partial(validate_document, model))


def read_all(
    paths: Sequence[Path | str], overrides: Sequence[str], read: Read[T], *, axes: bool = False
) -> list[T]:
    """The same for files that declare something else, or several things.

    With `axes`, an override may have several values parted by commas.
    """
    parsed, on_command_line = _parse_overrides(overrides, axes=axes)
    order = [f"override {text}" for text in overrides]
    in_files: list[ConfigIssue] = []
    configs: list[T] = []
    for path in paths:
        config, faults = _read_one(str(path), parsed, read)
        configs += [] if config is None else [config]
        on_command_line += [fault for fault in faults if fault.where in order]
        in_files += sorted((fault for fault in faults if fault.where not in order), key=_sort_position)
    if in_files or on_command_line:
        on_command_line.sort(key=lambda fault: order.index(fault.where))
        raise ConfigError(dict.fromkeys(in_files + on_command_line))
    return configs


def _sort_position(fault: ConfigIssue) -> tuple[str, int, int]:
    match = re.fullmatch(r"(.*):(\d+):(\d+)", fault.where)
    return (match[1], int(match[2]), int(match[3])) if match else ("", 0, 0)


def _parse_overrides(texts: Sequence[str], *, axes: bool = False) -> tuple[list[Override], list[ConfigIssue]]:
    overrides: list[Override] = []
    faults: list[ConfigIssue] = []
    for text in texts:
        try:
            overrides.append(parse_override(text, axes=axes))
        except ConfigError as error:
            faults += error.issues
    return overrides, faults


def load_overrides(overrides: Sequence[str], model: type[M]) -> M:
    """A config made of `key=value` arguments alone; raises ConfigError with everything wrong with them."""
    parsed, faults = _parse_overrides(overrides)
    config, issues = validate_document(model, parse_yaml(b"{}", "command line"), "command line", parsed)
    if config is None or faults:
        raise ConfigError(dict.fromkeys(faults + issues))
    return config


def with_overrides(config: ExperimentConfig, overrides: Sequence[str]) -> ExperimentConfig:
    """Return the config under `key=value` words; raises ConfigError where they do not fit."""
    parsed = [parse_override(word) for word in overrides]
    other, faults = validate_data(
        ExperimentConfig, apply_overrides(config.resolved(), parsed), lambda _path, _of_key: ""
    )
    if other is None:
        raise ConfigError(faults)
    return other


def _read_one(path: str, overrides: Sequence[Override], read: Read[T]) -> tuple[T | None, list[ConfigIssue]]:
    path = config_path(path)
    file = "<stdin>" if path == "-" else path
    document, faults = read_document(path, file)
    return (None, faults) if document is None else read(document, file, overrides)


def read_document(path: str, file: str) -> tuple[Document | None, list[ConfigIssue]]:
    """The document in the file at `path`, `-` for standard input, which faults call `file`.

    Where it cannot be read to its end, None and what is wrong with it; other faults are the document's.
    """
    try:
        document = parse_yaml(_read(path), file)
    except (OSError, ValueError) as error:
        return None, [ConfigIssue(file, "", _unreadable(Path(path), error))]
    if not document.readable:
        return None, document.faults
    if path != "-":
        document = replace(document, data=resolve_paths(document.data, Path(path).parent))
    return document, []


def validate_document(
    model: type[M], document: Document, file: str, overrides: Sequence[Override]
) -> tuple[M | None, list[ConfigIssue]]:
    """A readable document under overrides as a config, None where it has faults, and these."""
    kind = document.data.get("kind")
    if kind in ("lesson", "sweep") and model is ExperimentConfig:
        position = document.positions.value(["kind"]) or (1, 1)
        problem = f"is no experiment but a {kind}; use: initbench {kind} {file}"
        return None, [ConfigIssue(f"{file}:{position[0]}:{position[1]}", "kind", problem)]
    data, faults = _apply_fitting_overrides(document, overrides)
    unfit = {fault.where for fault in faults}
    applied = [override for override in overrides if override.where not in unfit]
    config, issues = validate_data(model, data, _position_finder(file, document, applied))
    return (None if faults else config), faults + issues


def validate_data(model: type[M], data: dict[str, Any], where: Where) -> tuple[M | None, list[ConfigIssue]]:
    """Plain data as a config, None where it has faults, and these, at the places that `where` finds."""
    try:
        return _validate(model, data), []
    except ValidationError as error:
        refused = [dotted_key(at) for at in _refused_paths(data)]
        return None, [
            fault for fault in to_issues(error, model, where) if not _is_consequence(fault, refused)
        ]


def _read(path: str) -> bytes:
    """The bytes of a file or of standard input, one beyond the limit at most (it may be /dev/zero)."""
    if path == "-":
        if sys.stdin is None:
            raise OSError(errno.EBADF, "standard input is closed")
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    with Path(path).open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _unreadable(path: Path, error: OSError | ValueError) -> str:
    if isinstance(error, IsADirectoryError):
        return "is a directory; name a config file"
    if not isinstance(error, FileNotFoundError):
        return f"cannot be read: {(getattr(error, 'strerror', None) or str(error)).lower()}"
    if not path.parent.is_dir():
        return f"no such file: there is no folder {path.parent}"
    if _KEY_WORD.fullmatch(str(path)):
        return f"no such file; to set a key, write {path}=VALUE"
    if not path.suffix and (shipped := closest_spelling(path.stem, shipped_names())):
        return f"no such file; did you mean the shipped config {shipped!r}?"
    siblings = {
        sibling.stem: sibling for sibling in sorted(path.parent.iterdir()) if sibling.suffix == path.suffix
    }
    guess = nearest_name(path.stem, siblings)  # without the ending, which all have in common
    return f"no such file; did you mean {siblings[guess]}?" if guess else "no such file"


def _apply_fitting_overrides(
    document: Document, overrides: Sequence[Override]
) -> tuple[dict[str, Any], list[ConfigIssue]]:
    """The document's data under the overrides that fit it, and the faults of both."""
    data, faults = document.data, list(document.faults)
    for override in overrides:
        try:
            data = apply_overrides(data, [override])
        except ConfigError as error:
            faults += error.issues
    return data, faults


def _refused_paths(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    if value == REFUSED:
        yield path
    elif isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from _refused_paths(inner, (*path, key))


def _is_consequence(fault: ConfigIssue, refused: Sequence[str]) -> bool:
    """Whether `fault` only says again that a value is missing which the reader has refused."""
    return repr(REFUSED) in fault.problem or any(f"{fault.key}.".startswith(f"{at}.") for at in refused)


def _position_finder(file: str, document: Document, overrides: Sequence[Override]) -> Where:
    """Finds the place of a fault: the override that set the value, else the line that did."""

    def where(path: KeyPath, of_key: bool) -> str:
        """The override or the place in the file that a key comes from."""
        for override in reversed(overrides):
            if path[: len(override.path)] == override.path or _promotes(override.path, path, document):
                return override.where
        for end in range(len(path), 0, -1):
            find = document.positions.key if of_key or end < len(path) else document.positions.value
            position = find(path[:end])
            if position is not None:
                return f"{file}:{position[0]}:{position[1]}"
            setting = [override for override in overrides if override.path[:end] == path[:end]]
            if setting:
                return setting[-1].where
        return f"{file}:1:1"

    return where


def _promotes(override: KeyPath, path: KeyPath, document: Document) -> bool:
    """Whether an override below `path` made a mapping of what the file gives as one word."""
    node = document.positions.find(path)
    return override[: len(path)] == path and node is not None and isinstance(node.value, str)


def _validate(model: type[M], data: Any) -> M:
    """Validate plain data strictly, giving a field of tuples the tuple that YAML cannot write."""
    for _ in range(MAX_DEPTH):
        try:
            return model.model_validate(data)
        except ValidationError as error:
            lists = [
                locate_error(model, entry["loc"]).path
                for entry in error.errors(include_url=False)
                if entry["type"] == "tuple_type" and isinstance(entry["input"], list)
            ]
            if not lists:
                raise
            for path in lists:
                data = _with_tuple(data, path)
    return model.model_validate(data)


def _with_tuple(data: Any, path: KeyPath) -> Any:
    if not path:
        return tuple(data)
    head, rest = path[0], path[1:]
    if isinstance(data, dict):
        return {key: _with_tuple(value, rest) if key == head else value for key, value in data.items()}
    return type(data)(_with_tuple(value, rest) if at == head else value for at, value in enumerate(data))


class _Dumper(yaml.SafeDumper):
    """Writes what YAML 1.1 and YAML 1.2 parsers read alike."""

    def ignore_aliases(self, *_: Any) -> bool:
        """Write every value out: an alias saves nothing here and hides what a key holds."""
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=_style(text))


def _style(text: str) -> str | None:
    lines = text.split("\n")
    printable = all(line.isprintable() for line in lines)
    if len(lines) > 1 and printable and text[0] not in " \n" and all(line == line.rstrip() for line in lines):
        return "|"
    if len(lines) > 1 or not printable:  # PyYAML's other styles fold, and lose, some line breaks
        return '"'
    try:
        plain = parse_scalar(text) == text and text.lower() not in ("y", "n")
    except ValueError:
        plain = False
    return None if plain else "'"


def _represent_list(dumper: yaml.SafeDumper, items: list[Any]) -> yaml.SequenceNode:
    flow = not any(isinstance(item, list | dict) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=flow)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(list, _represent_list)


def to_yaml(config: BaseModel) -> str:
    """The resolved config as YAML that `load`, and any YAML 1.1 or 1.2 parser, reads back the same.

    Keys stand in the order of the schema, text of several lines as a block.
    """
    data = config.model_dump(mode="json")
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
