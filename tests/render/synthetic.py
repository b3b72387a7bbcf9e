"""Stored runs made of plain numbers, so that what is printed of them never changes with torch."""

from __future__ import annotations

from typing import Any

from initbench.store.store import StoredRun

EDGES = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0]


def layer(index: int, seed: int, *, scale: float, bounded: bool) -> dict[str, Any]:
    counts = [100 + 60, 40, 20, 10, 5, 2, 1, 0] if seed % 2 == 0 else [100 + 30, 60, 30, 10, 4, 3, 1, 0]
    return {
        "index": index,
        "name": f"blocks.{index - 1}.linear",
        "units": 16,
        "pre": {"mean": 0.01 * index, "std": scale, "q": scale * scale},
        "act": {
            "mean": 0.4 * scale,
            "std": 0.6 * scale + 0.01 * seed,
            "q": scale,
            "zero_fraction": 100 / 238 if seed % 2 == 0 else 100 / 238 + 0.02,
            "dead_fraction": 0.0 if index < 3 else min(1.0, 0.04 * index),
            "saturated_fraction": min(1.0, 0.1 * index) if bounded else None,
            "histogram": {"edges": EDGES, "counts": counts, "below": 0, "above": 0, "nan": 0},
        },
        "grad": {"pre_q": 1e-3 * 10.0 ** (-index), "weight_norm": 0.5},
        "weight_std": 0.1,
    }


def head(index: int) -> dict[str, Any]:
    return {
        "index": index,
        "name": "head",
        "units": 10,
        "pre": {"mean": 0.0, "std": 1.0, "q": 1.0},
        "act": None,
        "grad": {"pre_q": 2.5e-4, "weight_norm": 1.5},
        "weight_std": 0.1,
    }


def snapshot(when: str, step: int, seed: int, hidden: int, scale: float, bounded: bool) -> dict[str, Any]:
    layers = [layer(i, seed, scale=scale * 0.8**i, bounded=bounded) for i in range(1, hidden + 1)]
    return {"when": when, "step": step, "layers": [*layers, head(hidden + 1)]}


def run(
    name: str = "relu_kaiming",
    seed: int = 0,
    *,
    hidden: int = 3,
    status: str = "finished",
    bounded: bool = False,
    diagnosis: list[dict[str, Any]] | None = None,
    dataset: str = "digits",
    asked: str | None = None,
    arm: str = "arm",
) -> StoredRun:
    """One run of 1,000 steps; a diverged one stops after 437."""
    going = status == "finished"
    steps = [0, 100, 200, 300, 400, *([500, 600, 700, 800, 900, 1000] if going else [])]
    convergence = [
        {
            "step": step,
            "epoch": step / 8,
            "train_loss": 2.3 * 0.997**step + 0.01 * seed,
            "val_loss": 2.3 * 0.998**step + 0.01 * seed,
            "val_accuracy": round(0.95 - 0.85 * 0.996**step - 0.005 * seed, 4),
        }
        for step in steps
    ]
    snapshots = [snapshot("init", 0, seed, hidden, 1.0, bounded)]
    if going:
        snapshots += [
            snapshot("train", 500, seed, hidden, 5.0, bounded),
            snapshot("end", 1000, seed, hidden, 2.0, bounded),
        ]
    else:
        convergence[-1] |= {"train_loss": "NaN", "val_loss": "Infinity"}
    last = convergence[-1]
    final = {key: last[key] for key in ("train_loss", "val_loss", "val_accuracy")}
    record = {
        "schema": "initbench.stored/1",
        "run_id": f"{name}-s{seed}-0123456789",
        "experiment": name,
        "arm": arm,
        "seed": seed,
        "status": status,
        "dataset": dataset,
        "dataset_requested": asked or dataset,
        "device": "cpu",
        "steps": 1000,
        "config": {
            "name": name,
            "model": {
                "family": "mlp",
                "depth": hidden + 1,
                "width": 16,
                "activation": "tanh" if bounded else {"name": "leaky_relu", "negative_slope": 0.2},
                "norm": "none",
            },
            "init": {"scheme": "kaiming_normal"},
        },
        "identity": {"torch": "2"},
        "final": {**final, "test_accuracy": 0.93 - 0.01 * seed} if going else None,
        "diverged": {"step": 437, "layer": 2} if status == "diverged" else None,
        "diagnosis": (diagnosis or []) if status in ("finished", "diverged") else None,
        "error": "Traceback (most recent call last):\n  …\nRuntimeError: out of [memory]\n"
        if status == "failed"
        else None,
        "timings": {"train": 1.0, "evaluate": 0.5, "probe": 0.25, "total": 1.75},
    }
    return StoredRun(str(record["run_id"]), record, convergence, snapshots)


def finding(code: str, message: str, layer: int | None = 2) -> dict[str, Any]:
    return {"code": code, "layer": layer, "value": -12.5, "threshold": -9.2, "message": message}


VANISHING = finding(
    "vanishing_forward",
    "the signal falls ×0.50 a layer (layers 1 to 3, theory ×0.50); layer 3 has 2e-01 of layer 1's."
    " leaky_relu keeps q at σ_w² = 2; xavier_normal gives 1. Try init.scheme=kaiming_normal, or [norm]"
    " (model.norm=batch)",
)
DIVERGED = finding("diverged", "the loss was no number after 437 updates, layer 2 first", None)

EXPERIMENTS: dict[str, list[StoredRun]] = {
    "one_seed": [run()],
    "three_seeds_one_diverged": [
        run(seed=0, diagnosis=[VANISHING], asked="mnist"),
        run(seed=1, diagnosis=[VANISHING], asked="mnist"),
        run(seed=2, status="diverged", diagnosis=[DIVERGED], asked="mnist"),
    ],
    "saturated": [run("tanh_xavier", seed, bounded=True) for seed in (0, 1)],
    "deep": [run("deep", hidden=40)],
    "brackets": [run("[red]odd[/red]"), run("[red]odd[/red]", 1, status="failed")],
    "diverged": [run("relu_misprint", seed, status="diverged", diagnosis=[DIVERGED]) for seed in (0, 1)],
}
COMPARED: list[StoredRun] = [
    *(run(seed=seed) for seed in (0, 1, 2)),
    *(run("relu_misprint", seed, status="diverged") for seed in (0, 1)),
    run("tanh_xavier", 0, bounded=True),
    run("tanh_xavier", 1, bounded=True, status="diverged"),
    run("[b]bold[/b]", 0, hidden=5),
    run("[b]bold[/b]", 0, hidden=4, arm="other"),
    run("waiting", 0, status="running"),
    run("on_mnist", 0, dataset="mnist"),
]
