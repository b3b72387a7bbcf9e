"""Paths in a config are searched first relative to the folder of the config file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_FILE_KEY = re.compile(r"(?:^|\.)(?:data\.path|init\.(?:scheme|head)\.from)$")
_RUN_NAME = re.compile(r"[A-Za-z0-9][\w-]*")
"""Pattern of run and experiment names, which `from` accepts instead of a path: no dots, no slashes."""


def resolve_paths(value: Any, folder: Path, key: str = "") -> Any:
    """Return the plain data `value` with each path prefixed by `folder` if that file exists.

    Other paths are unchanged: they are relative to the working directory or the data root. `key` is the
    dotted key of `value`. Keys of axes and arms are resolved too, e.g. `grid: {data.path: [...]}`.
    """
    if isinstance(value, dict):
        return {
            name: resolve_paths(inner, folder, f"{key}.{name}" if key else name)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [resolve_paths(inner, folder, key) for inner in value]
    if isinstance(value, str) and _FILE_KEY.search(key) and not _RUN_NAME.fullmatch(value):
        return _next_to_config(value, folder)
    return value


def _next_to_config(name: str, folder: Path) -> str:
    try:
        path = folder / name
        return name if Path(name).is_absolute() or not path.is_file() else str(path)
    except (OSError, ValueError):  # too long for a file name, or it holds a NUL
        return name
