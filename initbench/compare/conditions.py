"""Data conditions: what was done on purpose to the data that a run was trained and evaluated on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from initbench.compare.facts import RunFacts
from initbench.compare.keys import differing

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


def conditions(run: RunFacts) -> dict[str, Any]:
    """The value of each key of PLAIN; `whiten_eps` is null without whitening, where it does nothing."""
    found = {key: run.config_keys.get(key, plain) for key, plain in PLAIN.items()}
    return {**found, "data.whiten_eps": None} if found["data.whiten"] == "none" else found


def apart(runs: Iterable[RunFacts], by: Sequence[str]) -> list[str]:
    """The keys of PLAIN, beside `by`, in which runs differ: such runs are never averaged."""
    return [key for key in differing([conditions(run) for run in runs]) if key not in by]


def evaluated_apart(runs: Iterable[RunFacts]) -> list[str]:
    """Those that decide which data runs were evaluated on."""
    return [key for key in apart(runs, ()) if key.startswith(_EVALUATION)]
