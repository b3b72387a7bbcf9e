"""Orders and groups of the runs that `initbench ls` lists."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from initbench.errors import UnknownNameError

Summary = Mapping[str, Any]

SORT_KEYS = {
    "run": "run_id",
    "experiment": "experiment",
    "seed": "seed",
    "status": "status",
    "data": "dataset",
    "device": "device",
    "val": "val_accuracy",
    "test": "test_accuracy",
    "steps": "steps",
    "created": "created",
    "finished": "finished",
}
"""What `--sort` takes, with the key of a run that it stands for; the keys themselves are taken as well."""
GROUP_KEYS = {name: SORT_KEYS[name] for name in ("experiment", "status", "data", "device", "seed")}
"""What `--by` takes, likewise."""
AGE = "age"
"""What `--sort` calls the time since a run was created: the youngest first."""
_NUMBERS = ("seed", "val_accuracy", "test_accuracy", "steps")
_HEADINGS = {"val %": "val", "test %": "test"}


def sort_runs(summaries: Sequence[Summary], sort: str) -> list[Summary]:
    """Return the runs in the order of `[-]NAME`, equal ones as they were; those without a value come last.

    Raises UnknownNameError for another name.
    """
    name, is_descending = sort.removeprefix("-").strip(), sort.startswith("-")
    if name == AGE:
        name, is_descending = "created", not is_descending
    key = _key_named("--sort", name, SORT_KEYS, (AGE,))
    present = [run for run in summaries if _is_sortable(run.get(key), key)]
    absent = [run for run in summaries if not _is_sortable(run.get(key), key)]
    return [*sorted(present, key=lambda run: run[key], reverse=is_descending), *absent]


def group_runs(summaries: Sequence[Summary], by: str) -> list[dict[str, Any]]:
    """Return a mapping for each value of the key `by`, in the order in which the runs have them.

    `runs` counts the runs of the group, `statuses` those of each status; the accuracies are means over the
    runs that have one, and `created` is the time of the youngest. Raises UnknownNameError for another key.
    """
    key = _key_named("--by", by, GROUP_KEYS)
    groups: defaultdict[Any, list[Summary]] = defaultdict(list)
    for run in summaries:
        value = run.get(key)
        groups[value if isinstance(value, str | int) else None].append(run)
    return [
        {
            key: value,
            "runs": len(runs),
            "statuses": dict(Counter(str(run["status"]) for run in runs)),
            "val_accuracy": _mean_of(runs, "val_accuracy"),
            "test_accuracy": _mean_of(runs, "test_accuracy"),
            "created": max((str(run["created"]) for run in runs if run["created"]), default=None),
        }
        for value, runs in groups.items()
    ]


def group_heading(by: str) -> str:
    """Return the key of a group that holds its value, for a name that `--by` takes."""
    return _key_named("--by", by, GROUP_KEYS)


def _key_named(option: str, name: str, keys: Mapping[str, str], others: Sequence[str] = ()) -> str:
    name = _HEADINGS.get(name, name)
    if name in keys.values():
        return name
    if name not in keys:
        from initbench.registry import unknown_name_message

        raise UnknownNameError(f"{option}: {unknown_name_message('key', name, [*keys, *others])}")
    return keys[name]


def _is_sortable(value: object, key: str) -> bool:
    """Whether a run has a value of the kind that the key is sorted by; NaN is no number."""
    if key in _NUMBERS:
        return isinstance(value, int | float) and not math.isnan(value)
    return isinstance(value, str)


def _mean_of(runs: Sequence[Summary], key: str) -> float | None:
    numbers = [run[key] for run in runs if isinstance(run[key], int | float) and not math.isnan(run[key])]
    return sum(numbers) / len(numbers) if numbers else None
