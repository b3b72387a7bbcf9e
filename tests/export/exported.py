"""Small stored runs with known numbers, written without training, and reads of what was exported."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from initbench.store.store import Store

CONFIG: dict[str, Any] = {
    "name": "relu",
    "notes": "",
    "seeds": 1,
    "model": {"family": "mlp", "activation": "relu", "norm": "none", "depth": 2, "bias": True},
    "init": {"scheme": {"name": "kaiming_normal", "mode": "fan_in"}, "gain": None},
    "train": {"steps": 20, "batch_size": 32, "lr": 0.1},
    "data": {"name": "digits"},
}
EDGES = [0.0, 0.5, 1.0]


def store_run(
    root: Path,
    experiment: str = "relu",
    seed: int = 0,
    *,
    val_losses: tuple[float, ...] = (2.0, 1.0, 0.5),
    config: dict[str, Any] | None = None,
    diverged: int | None = None,
    shifts: bool = False,
    rerun: bool = False,
    record: dict[str, Any] | None = None,
) -> str:
    """Store a complete run that is evaluated every 10 steps, and return its id."""
    run_id = f"{experiment}-s{seed}-abc"
    base = {
        "experiment": experiment,
        "arm": "abc",
        "seed": seed,
        "dataset": "digits",
        "dataset_requested": "mnist",
        "device": "cpu",
        "config": {**CONFIG, **(config or {})},
        "steps": 20,
        "cohort": 1,
        "timings": {"train": 4.0, "total": 4.0},
        "identity": {"device": "cpu", "code": "c0de", "data": {"name": "digits", "fingerprint": "f00d"}},
        "versions": {"initbench": "0.1.0"},
        **(record or {}),
    }
    with Store(root).claim(run_id, base, "name: relu\n", rerun=rerun) as writer:
        for i, loss in enumerate(val_losses):
            writer.append_convergence(
                {
                    "step": 10 * i,
                    "epoch": i / 2,
                    "train_loss": loss,
                    "val_loss": loss,
                    "val_accuracy": 0.1 + i / 4,
                }
            )
        for moment, step in (("init", 0), ("train", 10), ("end", 20)):
            writer.append_snapshot({"when": moment, "step": step, "layers": _layers(step)})
        if shifts:
            for step in (1, 10):
                writer.append_shift({"step": step, "layers": [_shifted(i) for i in (1, 2)]})
        if diverged is None:
            writer.finish(
                {
                    "final": {
                        "train_loss": 0.5,
                        "val_loss": val_losses[-1],
                        "val_accuracy": 0.6,
                        "test_accuracy": 0.5,
                    }
                }
            )
        else:
            found = [{"code": "diverged", "message": "the loss was no longer finite"}]
            writer.finish(
                {"status": "diverged", "diverged": {"step": diverged, "layer": 1}, "diagnosis": found}
            )
    return run_id


def _layers(step: int) -> list[dict[str, Any]]:
    """A hidden layer with all histograms, in both forms, and a head without an activation."""
    rest = {"below": 0, "above": 3, "nan": 1}
    hidden = {
        "index": 1,
        "name": "blocks.0.linear",
        "units": 16,
        "pre": {
            "q": 1.5 + step,
            "mean": 0.25,
            "std": 1.0,
            "signal": 0.5,
            "correlation": None,
            "quantiles": {"p01": -2.0, "p25": -1.0, "p50": 0.0, "p75": 1.0, "p99": 2.0},
            "histogram": {"span": [-2.0, 2.0], "counts": [3, 4 + step], **rest, "below": 5},
        },
        "act": {
            "mean": 0.5,
            "std": 0.75 + step,
            "q": 0.8125,
            "zero_fraction": 0.5,
            "dead_fraction": 0.0,
            "saturated_fraction": None,
            "effective_rank": 3.0,
            "histogram": {"edges": EDGES, "counts": [7, 8 + step], **rest},
        },
        "grad": {
            "pre_q": 1e-300,
            "zero_fraction": 0.5,
            "weight_norm": 2.0,
            "histogram": {"span": [-1e-3, 1e-3], "counts": [6, 6], **rest, "above": 0},
        },
        "unit_spread": 0.9,
        "weight_std": 0.1,
        "jacobian": {"mean_sigma2": 1.25, "condition": math.inf if step == 20 else 30.0},
    }
    head = {
        "index": 2,
        "name": "head",
        "units": 10,
        "pre": {"q": 4.0},
        "act": None,
        "grad": {"pre_q": None},
        "weight_std": 0.2,
        "unit_spread": 1.0,
    }
    return [hidden, head]


def _shifted(index: int) -> dict[str, Any]:
    drifts = ("input_mean_drift", "input_std_drift", "input_mean_from_init", "input_std_from_init")
    gradient = {"gradient_norm": 1.5, "gradient_shift": 0.25 * index, "gradient_shift_cosine": 0.9}
    return {
        "index": index,
        "name": f"layer{index}",
        "hidden": index == 1,
        **dict.fromkeys(drifts, 0.1),
        **gradient,
    }


def wandb_records(directory: Path) -> Iterator[Any]:
    """The records of the .wandb file of an offline run, which is a log in LevelDB's format."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = directory.glob("*.wandb")
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    position, part = 7, b""
    while position + 7 <= len(data):
        rest = 32768 - position % 32768
        if rest < 7:
            position += rest
            continue
        _, size, kind = struct.unpack("<IHB", data[position : position + 7])
        part = (b"" if kind in (1, 2) else part) + data[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):
            yield Record.FromString(part)
