"""Reports of synthetic runs for tests, made without training and without files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

from initbench.analysis.run_summary import summarise_run
from initbench.analysis.tables import build_tables
from initbench.render.compare.analysed_table import analyse
from initbench.render.compare.display_options import View
from initbench.report.figure import ReportFigure
from initbench.report.report_runs import ReportRuns, report_of_tables
from initbench.store.store import Store, StoredRun
from tests.render import synthetic

Figures = Callable[[ReportRuns], Iterator[ReportFigure]]


class _Store:
    """A store that holds runs in memory."""

    def __init__(self, runs: Sequence[StoredRun]) -> None:
        self.runs = {run.run_id: run for run in runs}

    def read_if_there(self, run_id: str) -> StoredRun | None:
        return self.runs.get(run_id)


def report_of(
    runs: Sequence[StoredRun], *, baseline: str | None = None, by: Sequence[str] = ()
) -> ReportRuns:
    """Return the report of runs, whose rows are experiments or the values of keys."""
    tables = build_tables([summarise_run(run) for run in runs], by=by)
    return report_of_tables(cast(Store, _Store(runs)), analyse(tables, View(baseline=baseline)))


def stored_run(
    name: str = "kaiming",
    seed: int = 0,
    *,
    accuracy: float = 0.0,
    config: dict[str, Any] | None = None,
    **options: Any,
) -> StoredRun:
    """Return a synthetic run with gradients and accuracies that depend on the seed.

    Args:
        name: Name of the experiment.
        seed: Seed.
        accuracy: Number added to all accuracies.
        config: Sections that replace those of the config.
        options: Options of `synthetic.run`.
    """
    run = synthetic.run(name, seed, arm=name, **options)
    record = json.loads(json.dumps(run.record))
    record["config"] |= config or {}
    record["identity"] = {"precision": "fp32", "torch": "2"}
    for snapshot in run.snapshots:
        for layer in snapshot["layers"]:
            layer["grad"]["pre_q"] *= seed + 1.0
    change = accuracy + 0.004 * ((seed * 7) % 5 - 2)
    for entry in run.convergence:
        entry["val_accuracy"] += change
    if record["final"]:
        record["final"]["val_accuracy"] += change
        record["final"]["test_accuracy"] += change
    return StoredRun(run.run_id, record, run.convergence, run.snapshots)


def two_arms(seeds: int = 3) -> list[StoredRun]:
    """Return runs of two experiments, kaiming and xavier, of which xavier is worse."""
    return [
        *(stored_run("kaiming", seed) for seed in range(seeds)),
        *(stored_run("xavier", seed, accuracy=-0.06 - 0.001 * seed) for seed in range(seeds)),
    ]


def swept_runs() -> list[StoredRun]:
    """Return runs of a grid of two inits and three learning rates, of which the largest diverges.

    The best accuracy is not the last one.
    """
    runs = [
        stored_run(
            f"{scheme}_lr{lr}",
            seed,
            accuracy=-lr if scheme == "lsuv" else -2 * lr,
            status="diverged" if lr == 0.3 or (lr == 0.1 and scheme == "zeros" and not seed) else "finished",
            config={"init": {"scheme": {"name": scheme, scheme: 1}}, "train": {"lr": lr}},
        )
        for scheme in ("lsuv", "zeros")
        for lr in (0.01, 0.1, 0.3)
        for seed in range(2)
    ]
    for run in runs:
        run.convergence[-2]["val_accuracy"] += 0.03
    return runs


def normed_runs(seeds: int = 3) -> list[StoredRun]:
    """Return runs of a net without a norm and of one with batch norm, whose statistics were recorded."""
    normed = [stored_run("batch", seed) for seed in range(seeds)]
    for seed, run in enumerate(normed):
        for snapshot in run.snapshots:
            for layer in snapshot["layers"][:-1]:
                ratio = (3.0 + seed) ** (1 if snapshot["step"] else -1)
                gap = (seed + layer["index"]) / (1 + snapshot["step"])
                layer["batch_norm"] = {"running_mean_gap": gap, "running_var_ratio": ratio}
        for entry, accuracy in ((run.convergence[0], 0.1), (run.record["final"], 0.9)):
            for suffix, share in (("_batch", 0.9), ("_population", 0.95)):
                entry[f"val_accuracy{suffix}"] = share * accuracy + 0.01 * seed
                entry[f"val_loss{suffix}"] = 1.0
    return [*(stored_run("plain", seed) for seed in range(seeds)), *normed]


def shifted_runs(seeds: int = 3) -> list[StoredRun]:
    """Return runs of two nets of three hidden layers whose covariate shift was measured four times."""
    return [
        replace(stored_run(name, seed), shifts=[_shift(step, seed, factor) for step in (1, 101, 201, 301)])
        for name, factor in (("small", 0.1), ("large", 1.0))
        for seed in range(seeds)
    ]


def _shift(step: int, seed: int, factor: float) -> dict[str, Any]:
    layers = [
        {
            "index": index,
            "name": f"layer{index}",
            "hidden": index < 4,
            "input_mean_drift": None if step == 1 else factor * (index - 1) * (seed + 1) / step,
            "input_std_drift": None if step == 1 else 77.0,
            "input_mean_from_init": None if step == 1 else 78.0,
            "input_std_from_init": None if step == 1 else 79.0,
            "gradient_norm": 1.0,
            "gradient_shift": factor * (index - 1) * (1 + seed + step / 100),
            "gradient_shift_cosine": 0.5,
        }
        for index in range(1, 5)
    ]
    return {"step": step, "layers": layers}


def pretrained_runs(seeds: int = 3) -> list[StoredRun]:
    """Return runs of which those of one experiment were pre-trained layer by layer."""
    pretrained = [
        stored_run("pretrained", seed, config={"init": {"scheme": {"name": "autoencoder", "kind": "plain"}}})
        for seed in range(seeds)
    ]
    for seed, run in enumerate(pretrained):
        layers = [
            {"layer": layer, "loss_start": 1.0 + seed, "loss_end": (0.1 + 0.1 * seed) / layer, "steps": 5}
            for layer in (1, 2, 3)
        ]
        run.record["pretraining"] = {"layers": layers, "seconds": 1.0, "samples": 99, "steps": 15}
    return [*(stored_run("plain", seed) for seed in range(seeds)), *pretrained]


def figure_of(figures: Figures, report: ReportRuns, key: str) -> ReportFigure:
    """Return the figure with this key."""
    return next(figure for figure in figures(report) if figure.key == key)


def record_of(figure: ReportFigure, **values: Any) -> dict[str, Any]:
    """Return the only record of a figure that has these values."""
    (record,) = records_of(figure, **values)
    return record


def records_of(figure: ReportFigure, **values: Any) -> list[dict[str, Any]]:
    """Return the records of a figure that have these values."""
    return [record for record in figure.rows() if values.items() <= record.items()]
