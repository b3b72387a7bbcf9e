"""Shell completion of runs, figures, config keys, component names, metrics, configs and lessons.

Nothing here imports torch unless there are plug-ins, so that a completion takes a fraction of a second.
Unreadable files are skipped, since the shell cannot display an error.
"""

from __future__ import annotations

import json
import pkgutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import typer

from initbench.errors import InitbenchError

_RUN_KEYS = ("dataset", "experiment", "seed", "status", "with.code", "with.device", "with.torch")
"""Keys that stored runs have in addition to those of their config."""
_CONFIG_ENDINGS = (".yaml", ".yml")


def complete_runs(context: typer.Context, incomplete: str) -> list[str]:
    """Return experiments, sweeps and run ids of the runs directory that start with `incomplete`."""
    from initbench.store import sweep_index
    from initbench.store.store import Store

    root = Path(context.params.get("runs_dir") or "runs")
    try:
        records = Store(root).record_headers()
        swept = sweep_index.sweep_names(root)
    except (InitbenchError, OSError):
        return []
    experiments = [str(record.get("experiment", "")) for record in records]
    return _with_prefix(incomplete, [*experiments, *swept, *(str(record["run_id"]) for record in records)])


def complete_figures(incomplete: str) -> list[str]:
    """Return the names of figures that start with `incomplete`, whatever the runs allow."""
    from initbench.report.build import FIGURE_SECTIONS

    return _with_prefix(incomplete, (key for section in FIGURE_SECTIONS for key in section.keys))


def complete_metrics(incomplete: str) -> list[str]:
    """Complete the last metric of a comma-separated list."""
    from initbench.analysis.metrics import METRICS

    return _complete_last_item(incomplete, METRICS)


def complete_sort(incomplete: str) -> list[str]:
    """Return the names of `compare --sort` that start with `incomplete`; a minus sign is kept."""
    from initbench.analysis.metrics import METRICS
    from initbench.render.compare.display_options import COUNTS, LABEL

    return _with_sign(incomplete, [*METRICS, *COUNTS, LABEL])


def complete_columns(incomplete: str) -> list[str]:
    """Complete the last metric or config key of a comma-separated list."""
    from initbench.analysis.metrics import METRICS

    return _complete_last_item(incomplete, [*METRICS, *_config_keys()])


def complete_keys(incomplete: str) -> list[str]:
    """Complete the last key of stored runs in a comma-separated list."""
    return _complete_last_item(incomplete, [*_config_keys(), *_RUN_KEYS])


def complete_conditions(incomplete: str) -> list[str]:
    """Return completions `KEY=`, or `KEY=VALUE` for a key whose value is a component."""
    return _complete_assignment(incomplete, [*_config_keys(), *_RUN_KEYS])


def complete_config(context: typer.Context, incomplete: str) -> list[str]:
    """Return matching config files, shipped configs and overrides `KEY=` or `KEY=VALUE`."""
    from initbench.config.bundled_files import shipped_names

    words = context.params.get("arguments") or []
    if list(words[-1:]) == ["="] and len(words) > 1:  # bash splits KEY=VALUE into three words
        return _with_prefix(incomplete, _entry_names(words[-2]))
    files = list(_config_files(incomplete))
    return [
        *files,
        *_with_prefix(incomplete, shipped_names()),
        *_complete_assignment(incomplete, _config_keys()),
    ]


def complete_lessons(incomplete: str) -> list[str]:
    """Return `ls` and matching lessons, config files and overrides."""
    from initbench.config.bundled_files import CONFIGS

    lessons = sorted(path.stem for path in (CONFIGS / "lessons").glob("*.yaml"))
    lesson_names = _with_prefix(incomplete, ["ls", *lessons])
    return [*lesson_names, *_config_files(incomplete), *_complete_assignment(incomplete, _config_keys())]


def complete_entries(incomplete: str) -> list[str]:
    """Return the catalog entries that start with `incomplete`."""
    choices = _default_table()["choices"].values()
    return _with_prefix(incomplete, sorted({name for choice in choices for name in choice["entries"]}))


def complete_executors(incomplete: str) -> list[str]:
    """Return `auto` and the executors of initbench that start with `incomplete`."""
    from initbench.runner.workers import executors

    modules = pkgutil.iter_modules(executors.__path__)  # each is called like its executor
    return _with_prefix(incomplete, ["auto", *(module.name for module in modules)])


def complete_ls_sort(incomplete: str) -> list[str]:
    """Return the keys of `ls --sort` that start with `incomplete`; a minus sign is kept."""
    from initbench.cli.run_groups import AGE, SORT_KEYS

    return _with_sign(incomplete, [*SORT_KEYS, AGE])


def complete_ls_group(incomplete: str) -> list[str]:
    """Return the keys of `ls --by` that start with `incomplete`."""
    from initbench.cli.run_groups import GROUP_KEYS

    return _with_prefix(incomplete, GROUP_KEYS)


def _with_prefix(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete) and name]


def _with_sign(incomplete: str, names: Iterable[str]) -> list[str]:
    """Return the matching names, each with the minus sign of `incomplete` if there is one."""
    sign = "-" if incomplete.startswith("-") else ""
    return [sign + name for name in _with_prefix(incomplete.removeprefix("-"), names)]


def _complete_last_item(incomplete: str, names: Iterable[str]) -> list[str]:
    prefix, comma, last = incomplete.rpartition(",")
    return [prefix + comma + name for name in _with_prefix(last, names)]


def _complete_assignment(incomplete: str, keys: Sequence[str]) -> list[str]:
    key, sign, value = incomplete.partition("=")
    if not sign:
        return [f"{name}=" for name in _with_prefix(incomplete, keys)]
    choice = _entry_names(key.removesuffix("!"))
    return [f"{key}={name}" for name in _with_prefix(value, choice)]


def _entry_names(key: str) -> list[str]:
    """Return the entries that a key accepts; empty if its value is not an entry."""
    node: Mapping[str, Any] = _default_table()
    for part in key.split("."):
        keys = node.get("keys", {})
        if part not in keys and _tag_of_choice(node) == part:
            break
        node = keys.get(part, {}) if keys else _options_of_choice(node).get(part, {})
    kind = node.get("choice")
    return sorted(_default_table()["choices"][kind]["entries"]) if kind else []


def _config_keys() -> list[str]:
    """Return the dotted keys of an experiment, including those of every data set and family."""
    return sorted(set(_dotted_keys(_default_table()["keys"], "")))


def _dotted_keys(keys: Mapping[str, Any], path: str) -> Iterator[str]:
    for name, node in keys.items():
        full = path + name
        tag = _tag_of_choice(node)
        below = node.get("keys") or (_options_of_choice(node) if not path else {})
        if tag is not None and not path:
            yield f"{full}.{tag}"
        if below:
            yield from _dotted_keys(below, f"{full}.")
        elif tag is None or path:
            yield full


def _tag_of_choice(node: Mapping[str, Any]) -> str | None:
    return _default_table()["choices"][node["choice"]]["tag"] if "choice" in node else None


def _options_of_choice(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of all entries that a key accepts."""
    if "choice" not in node:
        return {}
    entries = _default_table()["choices"][node["choice"]]["entries"].values()
    return {name: option for options in entries for name, option in (options or {}).items()}


def _default_table() -> dict[str, Any]:
    """Return the keys and entries of an experiment; with plug-ins they come from the registries."""
    from initbench import plugins
    from initbench.analysis.recorded_defaults import default_table

    return _table_with_plugins() if plugins.are_available() else default_table()


@cache
def _table_with_plugins() -> dict[str, Any]:
    from initbench.analysis.recorded_defaults import default_table
    from initbench.config.defaults import defaults_json

    try:
        table: dict[str, Any] = json.loads(defaults_json())
    except InitbenchError:  # a plug-in cannot be imported, as every command will report
        return default_table()
    return table


def _config_files(incomplete: str) -> Iterator[str]:
    """Yield matching config files and folders, relative to the typed folder."""
    folder, slash, start = incomplete.rpartition("/")
    try:
        entries = sorted(Path(folder or ("/" if slash else ".")).iterdir())
    except (OSError, ValueError):
        return
    for entry in entries:
        if entry.name.startswith(start) and not (entry.name.startswith(".") and not start):
            if entry.suffix in _CONFIG_ENDINGS:
                yield f"{folder}{slash}{entry.name}"
            elif entry.is_dir() and start:
                yield f"{folder}{slash}{entry.name}/"
