"""The tables of batch norm's statistics and of covariate shift: what they hold, and that they fit."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from initbench.render.run_sections import norm_tables, shift_table
from initbench.store.store import StoredRun


def run(gap: float, shift: float, *, seed: int = 0) -> StoredRun:
    layers = [
        {"index": 1, "batch_norm": {"running_mean_gap": gap, "running_var_ratio": 4 * gap}},
        {"index": 2},
    ]
    halved = [
        {"index": 1, "batch_norm": {"running_mean_gap": gap / 2, "running_var_ratio": gap}},
        {"index": 2},
    ]
    entry = {
        "step": 0,
        "val_accuracy": 0.1,
        "val_loss": 2.0,
        "val_loss_batch": 3.0,
        "val_accuracy_batch": 0.2,
    }
    entry |= {"val_loss_population": 4.0, "val_accuracy_population": 0.3}
    record: dict[str, Any] = {"status": "finished", "seed": seed, "config": {"train": {"batch_size": 8}}}
    record["final"] = {**entry, "val_accuracy_batch": 0.75}
    snapshots = [
        {"when": "init", "step": 0, "layers": layers},
        {"when": "end", "step": 1000, "layers": halved},
    ]
    shifts = []
    for step, factor in ((1, 1.0), (11, 3.0)):
        keys = ("gradient_shift", "gradient_shift_cosine", "input_mean_drift", "input_std_drift")
        values = dict.fromkeys(keys, factor * shift) | {"input_mean_drift": None if step == 1 else 0.5}
        values |= {"input_mean_from_init": 0.25, "input_std_from_init": None}
        shifts.append({"step": step, "layers": [{"index": i, "hidden": i < 2, **values} for i in (1, 2)]})
    return StoredRun(f"x-s{seed}", record, [entry], snapshots, shifts)


def lines(table: Any, width: int) -> list[str]:
    console = Console(width=200, color_system=None)
    with console.capture() as captured:
        console.print(table)
    found = [line.rstrip() for line in captured.get().splitlines()]
    legend = next((i for i, line in enumerate(found) if line.startswith(("gap:", "gradient shift:"))), None)
    assert all(len(line) <= width for line in found[:legend])
    return found


def test_batch_norm_over_time_and_by_kind_of_statistics() -> None:
    gaps, kinds = norm_tables([run(0.5, 0.1), run(0.1, 0.1, seed=1)], all_layers=False, width=80)
    heading, first, legend = lines(gaps, 80)
    assert heading.split("  ")[0] == "Batch norm"
    assert "0.300 → 0.150" in first
    assert "0.894 → 0.224" in first, "the ratio's mean is geometric"
    assert "2 seeds, steps 0 → 1,000" in legend
    shown = lines(kinds, 80)
    assert shown[0].split("  ")[-1] == "val loss, end"
    assert shown[1].split()[:3] == ["running", "statistics", "10.0"]
    assert "batch statistics (8)" in shown[2] and "20.0 ±0.0" in shown[2] and "75.0 ±0.0" in shown[2]
    assert "population statistics" in shown[3] and "4.000" in shown[3]


def test_covariate_shift_is_a_mean_over_updates_and_runs() -> None:
    table = shift_table([run(0.5, 0.1), run(0.5, 0.3, seed=1)], all_layers=False, width=120)
    shown = lines(table, 120)
    assert shown[1].split() == ["layer", "1", "0.400", "0.400", "0.500", "0.400", "0.250", "–"]
    assert shown[2].startswith("head 2")
    assert "means over 2 measured updates and 2 seeds" in " ".join(shown[3:])
    narrow = lines(shift_table([run(0.5, 0.1)], all_layers=False, width=70), 70)
    assert "mean, from init" not in narrow[0]


def test_runs_without_either_have_no_table() -> None:
    record = {"status": "finished", "seed": 0, "config": {}, "final": {"val_accuracy": 0.5}}
    plain = StoredRun("x", record, [], [{"when": "init", "step": 0, "layers": [{"index": 1}]}])
    assert norm_tables([plain], all_layers=False, width=80) == []
    assert shift_table([plain], all_layers=False, width=80) is None
