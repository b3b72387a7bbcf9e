"""The least that run.json, metrics.jsonl and layers.jsonl hold for a run to be readable."""

from __future__ import annotations

from typing import Any

RECORD: dict[str, Any] = {
    "experiment": "relu",
    "arm": "0123456789",
    "seed": 0,
    "dataset": "digits",
    "dataset_requested": "digits",
    "device": "cpu",
    "config": {
        "model": {"family": "mlp", "activation": "relu", "norm": "none"},
        "init": {"scheme": "kaiming_normal"},
    },
}
FINAL = {"val_accuracy": 0.5, "test_accuracy": 0.5}


def line(step: int = 0, **more: object) -> dict[str, Any]:
    """An evaluation."""
    return {"step": step, "train_loss": 1.0, "val_loss": 1.0, "val_accuracy": 0.5, **more}


def snapshot(**more: object) -> dict[str, Any]:
    """A probe of a net without layers."""
    return {"when": "init", "layers": [], **more}
