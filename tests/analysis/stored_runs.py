"""Small run summaries for tests, made without training."""

from __future__ import annotations

from typing import Any

from initbench.analysis.run_summary import RunSummary, summarise_run
from initbench.analysis.tables import Row, Table
from initbench.store.store import StoredRun

CONFIG = {"name": "x", "notes": "", "seeds": 1, "model": {"depth": 4, "norm": "none"}, "train": {"lr": 0.1}}


def stored(
    experiment: str = "a",
    seed: int = 0,
    *,
    accuracies: tuple[float, ...] = (0.1, 0.5, 0.8),
    status: str = "finished",
    test: float | None = 0.7,
    std: tuple[Any, ...] = (1.0, 0.5, 0.25),
    gradients: tuple[Any, ...] = (1.0, 1.0, 1.0),
    dataset: str = "digits",
    dataset_requested: str | None = None,
    arm: str = "arm",
    config: dict[str, Any] | None = None,
    identity: dict[str, Any] | None = None,
    when: str = "init",
) -> RunSummary:
    """Return a run with one hidden layer per value of `std`, evaluated every 10 steps."""
    layers = [
        {"index": i, "pre": {"q": 1.0}, "act": {"std": s}, "grad": {"pre_q": q}}
        for i, (s, q) in enumerate(zip(std, gradients, strict=True), 1)
    ]
    head = {"index": len(layers) + 1, "pre": {"q": 1.0}, "act": None, "grad": {"pre_q": 1e9}}
    final = {"val_accuracy": accuracies[-1], "test_accuracy": test} if status == "finished" else None
    record = {
        "experiment": experiment,
        "arm": arm,
        "seed": seed,
        "status": status,
        "dataset": dataset,
        "dataset_requested": dataset_requested or dataset,
        "final": final,
        "config": {**CONFIG, **(config or {})},
        "identity": identity or {},
    }
    convergence = [
        {"step": 10 * i, "train_loss": 1.0 - accuracy, "val_loss": 1.0 - accuracy, "val_accuracy": accuracy}
        for i, accuracy in enumerate(accuracies)
    ]
    snapshot = {"when": when, "step": 0, "layers": [*layers, head]}
    last = {"index": 1, "pre": {"q": 77.0}, "act": {"std": 77.0}, "grad": {"pre_q": 77.0}}
    end = {"when": "end", "step": 99, "layers": [last]}
    run = StoredRun(f"{experiment}-s{seed}-{arm}", record, convergence, [snapshot, end])
    return summarise_run(run)


def only(found: list[Table]) -> Row:
    (table,) = found
    (row,) = table.rows
    return row
