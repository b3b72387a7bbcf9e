"""Sort and group the runs that `initbench ls` lists."""

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
    "val_r2": "val_r2",
    "test_r2": "test_r2",
    "val_loss": "val_loss",
    "steps": "steps",
    "created": "created",
    "finished": "finished",
}
"""Names that `--sort` accepts, with the key of a run; the keys themselves are accepted too."""
GROUP_KEYS = {name: SORT_KEYS[name] for name in ("experiment", "status", "data", "device", "seed")}
"""Names that `--by` accepts, with the key of a run."""
AGE = "age"
"""Name for `--sort` of the time since a run was created; the newest run comes first."""
_NUMBERS = ("seed", "val_accuracy", "test_accuracy", "val_r2", "test_r2", "val_loss", "steps")
_HEADINGS = {"val %": "val", "test %": "test"}


def sort_runs(summaries: Sequence[Summary], sort: str) -> list[Summary]:
    """Sort the runs by `[-]NAME` (stable); runs without a value come last.

    Raises:
        UnknownNameError: If the name is not a sort key.
    """
    name, is_descending = sort.removeprefix("-").strip(), sort.startswith("-")
    if name == AGE:
        name, is_descending = "created", not is_descending
    key = _key_named("--sort", name, SORT_KEYS, (AGE,))
    present = [run for run in summaries if _is_sortable(run.get(key), key)]
    absent = [run for run in summaries if not _is_sortable(run.get(key), key)]
    return [*sorted(present, key=lambda run: run[key], reverse=is_descending), *absent]


def group_runs(summaries: Sequence[Summary], by: str) -> list[dict[str, Any]]:
    """Group the runs by the key `by`, in order of first appearance, and return one mapping per group.

    `runs` is the number of runs, `statuses` the number per status, `created` the time of the newest run.
    Accuracies and R² are means over the runs that have one.

    Raises:
        UnknownNameError: If `by` is not a group key.
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
            **{key: mean for key in ("val_r2", "test_r2") if (mean := _mean_of(runs, key)) is not None},
            "created": max((str(run["created"]) for run in runs if run["created"]), default=None),
        }
        for value, runs in groups.items()
    ]


def group_heading(by: str) -> str:
    """Return the key that holds a group's value, for a name that `--by` accepts."""
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
    """Return whether a value has the type that its key is sorted by; NaN does not count as a number."""
    if key in _NUMBERS:
        return isinstance(value, int | float) and not math.isnan(value)
    return isinstance(value, str)


def _mean_of(runs: Sequence[Summary], key: str) -> float | None:
    values = [run.get(key) for run in runs]
    numbers = [value for value in values if isinstance(value, int | float) and not math.isnan(value)]
    return sum(numbers) / len(numbers) if numbers else None
