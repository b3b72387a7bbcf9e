"""Data conditions: deliberate changes to the data that a run is trained and evaluated on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from initbench.analysis.config_keys import keys_that_differ
from initbench.analysis.run_summary import RunSummary

PLAIN: dict[str, Any] = {
    "data.whiten": "none",
    "data.whiten_eps": None,
    "data.order": "shuffled",
    "data.labelled": None,
    "data.label_noise": 0.0,
    "data.shift.brightness": 0.0,
    "data.shift.translate": 0,
    "data.shift.noise": 0.0,
}
"""The config keys of data conditions, with their defaults."""
_EVALUATION = "data.shift."


def data_conditions(run: RunSummary) -> dict[str, Any]:
    """Return the value of each key of PLAIN; `whiten_eps` is None without whitening, as it has no effect."""
    values = {key: run.config_keys.get(key, plain) for key, plain in PLAIN.items()}
    return {**values, "data.whiten_eps": None} if values["data.whiten"] == "none" else values


def non_default_conditions(run: RunSummary, keys: Iterable[str]) -> dict[str, Any]:
    """Return the conditions among `keys` that differ from their defaults."""
    return {key: value for key, value in data_conditions(run).items() if key in keys and value != PLAIN[key]}


def varying_conditions(runs: Iterable[RunSummary]) -> list[str]:
    """Return the keys of PLAIN in which runs differ; `whiten_eps` only if whitened runs differ in it.

    Runs that differ in such a key are never averaged.
    """
    all_conditions = [data_conditions(run) for run in runs]
    whitened = [conditions for conditions in all_conditions if conditions["data.whiten"] != "none"]
    return [
        key
        for key in keys_that_differ(all_conditions)
        if key in keys_that_differ(whitened) or key != "data.whiten_eps"
    ]


def varying_evaluation_conditions(runs: Iterable[RunSummary]) -> list[str]:
    """Return the varying conditions that affect the data that runs are evaluated on."""
    return [key for key in varying_conditions(runs) if key.startswith(_EVALUATION)]
