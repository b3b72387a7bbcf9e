"""Files that a config names are looked for beside the config first, whatever the working directory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_FILE_KEY = re.compile(r"(?:^|\.)(?:data\.path|init\.(?:scheme|head)\.from)$")
_RUN_NAME = re.compile(r"[A-Za-z0-9][\w-]*")
"""What `from` may hold instead of a path: the name of a run or an experiment, without a dot or slash."""


def resolve_paths(value: Any, folder: Path, key: str = "") -> Any:
    """Return the plain data `value` with paths relative to `folder` where a file is there.

    Others stay as they are: they are relative to the working directory or the data root. `key` is the
    dotted key of `value`; keys of axes and arms, `grid: {data.path: [...]}`, count as well.
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
