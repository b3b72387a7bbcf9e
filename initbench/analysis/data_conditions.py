"""Data conditions: what was done on purpose to the data that a run was trained and evaluated on."""

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
"""The keys of the config that state them, and what a run has whose config says nothing of them."""
_EVALUATION = "data.shift."


def data_conditions(run: RunSummary) -> dict[str, Any]:
    """The value of each key of PLAIN; `whiten_eps` is null without whitening, where it does nothing."""
    values = {key: run.config_keys.get(key, plain) for key, plain in PLAIN.items()}
    return {**values, "data.whiten_eps": None} if values["data.whiten"] == "none" else values


def non_default_conditions(run: RunSummary, keys: Iterable[str]) -> dict[str, Any]:
    """The conditions among `keys` that are not the plain ones."""
    return {key: value for key, value in data_conditions(run).items() if key in keys and value != PLAIN[key]}


def varying_conditions(runs: Iterable[RunSummary]) -> list[str]:
    """The keys of PLAIN in which runs differ, which are never averaged then; `whiten_eps` if whitened."""
    all_conditions = [data_conditions(run) for run in runs]
    whitened = [conditions for conditions in all_conditions if conditions["data.whiten"] != "none"]
    return [
        key
        for key in keys_that_differ(all_conditions)
        if key in keys_that_differ(whitened) or key != "data.whiten_eps"
    ]


def varying_evaluation_conditions(runs: Iterable[RunSummary]) -> list[str]:
    """Those that decide which data runs were evaluated on."""
    return [key for key in varying_conditions(runs) if key.startswith(_EVALUATION)]
