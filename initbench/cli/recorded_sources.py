"""Name the plug-in or the function of the user that stored runs were made with, if a command lacks it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from initbench.errors import ConfigError, InitbenchError, UnknownNameError
from initbench.plugins import PluginOrigin
from initbench.store.record_schema import find_defect
from initbench.store.run_directory import RUN

MAX_RUNS = 200
"""Number of runs that are searched, the newest ones."""
NO_FACTORY = "--model MODULE:FUNCTION"
"""Part of the message that a net of the user lacks its function."""
NO_DATA_FUNCTION = "--data-from MODULE:FUNCTION"
"""Part of the message that data of the user lack their function."""


def recorded_sources(error: InitbenchError, arguments: Sequence[str]) -> list[str]:
    """Return a line for each unknown name that stored runs have from a plug-in, or for missing nets and data.

    Args:
        error: An error of a command. Only unknown names, missing nets and missing data are considered.
        arguments: Arguments of the command. The runs of its config files are searched first, then the
            newest runs of the store.
    """
    if NO_DATA_FUNCTION in str(error):
        return _recorded_data(arguments)
    names = _unknown_components(error)
    if not names:
        return _recorded_model(arguments) if NO_FACTORY in str(error) else []
    lines: dict[str, str] = {}
    for entry in _recorded_entries(arguments):
        name = entry["name"]
        if name in names and name not in lines:
            origin = PluginOrigin(entry["module"], entry["distribution"], entry["version"])
            separator = ";" if origin.distribution is None else ","
            absence = f"{separator} {origin.absence}" if origin.absence else ""
            lines[name] = f"{entry['kind']} {name!r} came from plug-in {origin}{absence}"
    return list(lines.values())


def _recorded_model(arguments: Sequence[str]) -> list[str]:
    """Return a line with the function that built the nets of stored runs, those of the config first."""
    for record in _records(arguments):
        if entry := record.get("custom_model"):
            source = f"--model {entry['function']} of module {entry['module']}, code {entry['code']}"
            return [f"the stored runs of {record['experiment']} were made with {source}"]
    return []


def _recorded_data(arguments: Sequence[str]) -> list[str]:
    """Return a line with the function that returned the data of stored runs, those of the config first."""
    for record in _records(arguments):
        if entry := record.get("custom_data"):
            source = f"--data-from {entry['function']}"
            return [f"the stored runs of {record['experiment']} were trained on data of {source}"]
    return []


def _unknown_components(error: InitbenchError) -> set[str]:
    """Return the names of components that the error says are unknown."""
    if isinstance(error, ConfigError):
        return {issue.unknown_component for issue in error.issues} - {""}
    return {error.component} - {""} if isinstance(error, UnknownNameError) else set()


def _recorded_entries(arguments: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the entries of plug-ins that run.json files have recorded."""
    for record in _records(arguments):
        yield from record.get("plugins") or ()


def _records(arguments: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the contents of run.json files; unreadable files are skipped."""
    for path in (*_records_beside(arguments), *_newest_records(_store_root(arguments))):
        with suppress(OSError, ValueError):
            record = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(record, dict) and find_defect(record) is None:
                yield record


def _records_beside(arguments: Sequence[str]) -> Iterator[Path]:
    for argument in arguments:
        if argument.endswith((".yaml", ".yml")):
            yield Path(argument).with_name(RUN)


def _store_root(arguments: Sequence[str]) -> Path:
    """Return the directory of stored runs that the command names."""
    for index, argument in enumerate(arguments):
        if argument == "--runs-dir" and index + 1 < len(arguments):
            return Path(arguments[index + 1])
        if argument.startswith("--runs-dir="):
            return Path(argument.partition("=")[2])
    return Path(os.environ.get("INITBENCH_RUNS") or "runs")


def _newest_records(root: Path) -> list[Path]:
    with suppress(OSError):
        runs = [entry for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith(".")]
        runs.sort(key=lambda entry: entry.stat().st_mtime, reverse=True)
        return [Path(entry.path) / RUN for entry in runs[:MAX_RUNS]]
    return []
