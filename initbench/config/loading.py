"""Read configs from files and the command line, and write a config as YAML that reads back the same."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from initbench.config.bundled_files import config_path, shipped_names
from initbench.config.issue_messages import closest_spelling
from initbench.config.overrides import Override, apply_overrides, parse_override
from initbench.config.schema import ExperimentConfig
from initbench.config.validation_errors import (
    KeyPath,
    Where,
    WrittenKey,
    dotted_key,
    locate_error,
    to_issues,
)
from initbench.config.yaml_reader import MAX_BYTES, MAX_DEPTH, REFUSED, Document, parse_scalar, parse_yaml
from initbench.data.dataset import form_of
from initbench.errors import ConfigError, ConfigIssue
from initbench.models.build import check
from initbench.registry import nearest_name

_KEY_WORD = re.compile(r"(?:data|model|init|train|probe)\.[A-Za-z_][\w.]*")
_FILE_KEY = re.compile(r"(?:^|\.)(?:data\.(?:\w+_)?path|init\.(?:scheme|head)\.from)$")
_RUN_NAME = re.compile(r"[A-Za-z0-9][\w-]*")
"""Pattern of run and experiment names, which `from` accepts instead of a path: no dots, no slashes."""
M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")
Read = Callable[[Document, Sequence[Override]], tuple[T | None, list[ConfigIssue]]]
"""Function (document, overrides) → (declared object, None if it cannot be built; faults)."""


def load_config(path: Path | str, overrides: Sequence[str], model: type[M]) -> M:
    """Read one config; raises ConfigError with all its faults."""
    return load_all([path], overrides, model)[0]


def load_all(paths: Sequence[Path | str], overrides: Sequence[str], model: type[M]) -> list[M]:
    """Read several configs under the same overrides; `-` is standard input.

    Raises:
        ConfigError: If there are faults; it lists those of all files in the order of files and lines, then
            those of the overrides.
    """
    return read_all(paths, overrides, partial(validate_document, model))


def read_all(
    paths: Sequence[Path | str], overrides: Sequence[str], read: Read[T], *, axes: bool = False
) -> list[T]:
    """Read several files with `read`, which decides what each declares; errors as in `load_all`.

    With `axes`, an override may have several values separated by commas.
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
    """Build a config from `key=value` arguments alone; raises ConfigError with all their faults."""
    return load_mapping({}, overrides, model, source="command line")


def load_mapping(
    data: Mapping[str, Any], overrides: Sequence[str], model: type[M], *, source: str = "mapping"
) -> M:
    """Build a config from plain data with `key=value` arguments applied.

    Raises:
        ConfigError: If there are faults. Positions are those in the YAML text of the data, called `source`.
    """
    return read_mapping(data, overrides, partial(validate_document, model), source=source)


def read_mapping(
    data: Mapping[str, Any],
    overrides: Sequence[str],
    read: Read[T],
    *,
    source: str = "mapping",
    axes: bool = False,
) -> T:
    """Read plain data with `read`, like a file of `read_all`; errors as in `load_mapping`."""
    parsed, faults = _parse_overrides(overrides, axes=axes)
    text = yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True)
    config, issues = read(parse_yaml(text.encode(), source), parsed)
    if config is None or faults:
        raise ConfigError(dict.fromkeys(faults + issues))
    return config


def with_overrides(config: ExperimentConfig, overrides: Sequence[str]) -> ExperimentConfig:
    """Return the config with `key=value` arguments applied; raises ConfigError if they do not fit."""
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
    return (None, faults) if document is None else read(document, overrides)


def read_document(path: str, file: str) -> tuple[Document | None, list[ConfigIssue]]:
    """Read the document at `path` (`-` for standard input); faults name it `file`.

    If it cannot be read to its end, return None and its faults; other faults are in the document.
    """
    try:
        document = parse_yaml(_read(path), file)
    except (OSError, ValueError) as error:
        return None, [ConfigIssue(file, "", _unreadable(Path(path), error))]
    if not document.readable:
        return None, document.faults
    if path != "-":
        document = replace(document, data=_resolve_paths(document.data, Path(path).parent))
    return document, []


def validate_document(
    model: type[M], document: Document, overrides: Sequence[Override], root: KeyPath = ()
) -> tuple[M | None, list[ConfigIssue]]:
    """Return a document with overrides as a config, None if it has faults, and the faults.

    If the document's data are a section of its file, `root` is the path of that section.
    """
    kind = document.data.get("kind")
    if kind in ("lesson", "sweep") and model is ExperimentConfig:
        problem = f"is no experiment but a {kind}; use: initbench {kind} {document.file}"
        return None, [ConfigIssue(document.where(("kind",)), "kind", problem)]
    data, faults = _apply_fitting_overrides(document, overrides)
    unfit = {fault.where for fault in faults}
    sources = _Sources(document, [override for override in overrides if override.where not in unfit], root)
    config, issues = validate_data(model, data, sources.where, sources.written_key)
    faults += [replace(issue, key=sources.key(tuple(issue.key.split(".")))) for issue in issues]
    return (None if faults else config), faults


def validate_data(
    model: type[M], data: dict[str, Any], where: Where, written_key: WrittenKey | None = None
) -> tuple[M | None, list[ConfigIssue]]:
    """Return plain data as a config, None if it has faults, and the faults with positions from `where`.

    The net of an experiment must also be buildable, as far as the form of its data is known before loading.
    """
    try:
        config = _validate(model, data)
    except ValidationError as error:
        refused = [dotted_key(at) for at in _refused_paths(data)]
        issues = to_issues(error, model, where, written_key or (lambda _path: ()))
        return None, [fault for fault in issues if not _is_consequence(fault, refused)]
    if isinstance(config, ExperimentConfig) and (form := form_of(config.data)) is not None:
        try:
            check(config.model, config.init, form=form)
        except ConfigError as error:
            return None, [
                replace(fault, where=where(tuple(fault.key.split(".")), False)) for fault in error.issues
            ]
    return config, []


def _read(path: str) -> bytes:
    """Read a file or standard input, at most one byte beyond the limit (it may be /dev/zero)."""
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
    """Return the document's data with the overrides that fit, and the faults of both."""
    data, faults = document.data, list(document.faults)
    for override in overrides:
        try:
            data = apply_overrides(data, [override])
        except ConfigError as error:
            faults += [replace(fault, key=dotted_key(override.source) or fault.key) for fault in error.issues]
    return data, faults


def _refused_paths(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    if value == REFUSED:
        yield path
    elif isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from _refused_paths(inner, (*path, key))


def _is_consequence(fault: ConfigIssue, refused: Sequence[str]) -> bool:
    """Return whether `fault` only repeats that a value is missing which the reader has refused."""
    return repr(REFUSED) in fault.problem or any(f"{fault.key}.".startswith(f"{at}.") for at in refused)


@dataclass(frozen=True)
class _Sources:
    """Sources of the values of a config: sections of a file, and overrides."""

    document: Document
    overrides: Sequence[Override]
    root: KeyPath

    def where(self, path: KeyPath, of_key: bool) -> str:
        """Return the override or the file position that the value at `path` comes from."""
        override = self._override(path)
        if override is not None and not override.source:
            return override.where
        return self.document.where(self._path_in_file(path), of_key=of_key)

    def key(self, path: Sequence[str]) -> str:
        """Return the dotted key of a value as its source names it."""
        return dotted_key([part for part in self._path_in_file(tuple(path)) if part != ""])

    def written_key(self, path: KeyPath) -> KeyPath:
        """Return the dotted key of the override that names the last part of `path`; empty without one."""
        override = self._override(path)
        is_named = override is not None and override.path[: len(path)] == path
        return override.path if override is not None and is_named and len(override.path) > 1 else ()

    def _path_in_file(self, path: KeyPath) -> KeyPath:
        override = self._override(path)
        if override is None:
            return (*self.root, *path)
        return (*override.source, *path[len(override.path) :]) if override.source else path

    def _override(self, path: KeyPath) -> Override | None:
        """Return the last override that set the value at `path`, or created the mapping that lacks it."""
        for override in reversed(self.overrides):
            if path[: len(override.path)] == override.path or self._promotes(override, path):
                return override
        for end in range(len(path), 0, -1):
            if self.document.positions.find((*self.root, *path[:end])) is not None:
                return None
            setting = [override for override in self.overrides if override.path[:end] == path[:end]]
            if setting:
                return setting[-1]
        return None

    def _promotes(self, override: Override, path: KeyPath) -> bool:
        """Return whether an override below `path` turned a single word of the file into a mapping."""
        node = self.document.positions.find((*self.root, *path))
        return override.path[: len(path)] == path and node is not None and isinstance(node.value, str)


def _validate(model: type[M], data: Any) -> M:
    """Validate plain data strictly, converting lists to tuples for tuple fields, which YAML cannot write."""
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


def _resolve_paths(value: Any, folder: Path, key: str = "") -> Any:
    """Return the plain data `value` with each path prefixed by `folder` if that file or folder exists.

    Other paths are unchanged: they are relative to the working directory or the data root. `key` is the
    dotted key of `value`. Keys of axes and arms are resolved too, e.g. `grid: {data.path: [...]}`.
    """
    if isinstance(value, dict):
        return {
            name: _resolve_paths(inner, folder, f"{key}.{name}" if key else name)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [_resolve_paths(inner, folder, key) for inner in value]
    is_run = key.endswith("from") and isinstance(value, str) and _RUN_NAME.fullmatch(value)
    if isinstance(value, str) and _FILE_KEY.search(key) and not is_run:
        return _next_to_config(value, folder)
    return value


def _next_to_config(name: str, folder: Path) -> str:
    try:
        path = folder / name
        return name if not name or Path(name).is_absolute() or not path.exists() else str(path)
    except (OSError, ValueError):  # too long for a file name, or it holds a NUL
        return name


class _Dumper(yaml.SafeDumper):
    """Dumper whose output YAML 1.1 and 1.2 parsers read alike."""

    def ignore_aliases(self, *_: Any) -> bool:
        """Return True to write every value out: an alias would hide the value of a key."""
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
    """Return the resolved config as YAML that any YAML 1.1 or 1.2 parser reads back the same.

    Keys are in the order of the schema; text of several lines is a block.
    """
    return dump_yaml(config.model_dump(mode="json"))


def dump_yaml(data: Any) -> str:
    """Return plain data as YAML that any YAML 1.1 or 1.2 parser reads back the same."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
