"""Metrics of covariate shift and batch norm statistics in comparisons and gates."""

from __future__ import annotations

from typing import Any

import pytest

from initbench.analysis.gates.expression import Quantity
from initbench.analysis.gates.parser import parse_gate
from initbench.analysis.gates.run_values import quantity_value
from initbench.analysis.metrics import METRICS
from initbench.analysis.run_summary import RunSummary, summarise_run
from initbench.store.packed_numbers import PackedNumbers
from initbench.store.store import StoredRun

CONFIG = {"name": "x", "model": {"norm": "batch"}, "train": {"steps": 20, "batch_size": 2}}
RECORD = {
    "experiment": "x",
    "arm": "a",
    "seed": 0,
    "status": "finished",
    "dataset": "digits",
    "config": CONFIG,
}
KINDS = {"val_accuracy_batch": 0.2, "val_accuracy_population": 0.3, "val_loss_batch": 2.0}


def shifted(step: int, *shifts: float, drift: float | None = None) -> dict[str, Any]:
    """Return a snapshot with one hidden layer for each of `shifts`, and a head."""
    layers = [
        {
            "hidden": i < len(shifts),
            "gradient_shift": value,
            "gradient_shift_cosine": 1.0 - value,
            "input_mean_drift": drift,
            "input_std_drift": None,
        }
        for i, value in enumerate((*shifts, 100.0))
    ]
    return {"step": step, "layers": layers}


def facts(*shifts: dict[str, Any], kinds: dict[str, float] | None = None) -> RunSummary:
    def layer(gap: float | None) -> dict[str, Any]:
        kept = {} if gap is None else {"batch_norm": {"running_mean_gap": gap, "running_var_ratio": 2 * gap}}
        act = None if gap is None else {"std": 1.0}
        return {"pre": {"q": 1.0}, "act": act, "grad": {"pre_q": 1.0}, **kept}

    snapshots = [
        {"when": when, "step": 0, "layers": [layer(gap), layer(gap / 2), layer(None)]}
        for when, gap in (("init", 0.5), ("end", 0.25))
    ]
    entry = {"step": 0, "train_loss": 3.0, "val_loss": 3.0, "val_accuracy": 0.1, **(kinds or {})}
    final = {"val_accuracy": 0.9, "test_accuracy": 0.9, **(kinds or {})}
    return summarise_run(StoredRun("x-s0-a", {**RECORD, "final": final}, [entry], snapshots, list(shifts)))


def of(run: RunSummary, text: str) -> float | None:
    [quantity] = [node for node in parse_gate(f"{text} > 0").walk() if isinstance(node, Quantity)]
    return quantity_value(quantity, run, None)


RUN = facts(shifted(1, 0.0, 0.1, 0.2), shifted(11, 0.0, 0.3, 0.6, drift=5.0), kinds=KINDS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("layer[1].gradient_shift@train", 0.0),
        ("layer[2].gradient_shift@train", 0.2),
        ("layer[-1].gradient_shift@train", 0.4),
        ("layer[-1].gradient_shift_cosine@train", 0.6),
        ("layer[-1].input_mean_drift@train", 5.0),
        ("layer[-1].input_std_drift@train", None),
        ("exp(slope(gradient_shift@train))", 2.0),
        ("min_layer(gradient_shift@train)", 0.2),
        ("layer[1].running_mean_gap@init", 0.5),
        ("layer[-1].running_mean_gap@end", 0.125),
        ("layer[2].running_var_ratio@init", 0.5),
        ("gradient_shift", 0.3),
        ("gradient_shift_cosine", 0.7),
        ("input_drift", 5.0),
        ("init_val_accuracy", 0.1),
        ("init_val_loss", 3.0),
        ("init_val_accuracy_batch", 0.2),
        ("final_val_accuracy_population", 0.3),
        ("final_val_loss_batch", 2.0),
        ("final_val_loss_population", None),
    ],
)
def test_what_gates_read(text: str, expected: float | None) -> None:
    found = of(RUN, text)
    if text.startswith("exp"):
        assert found is not None
        found = 2.0 ** (found / 0.6931471805599453)
    assert found == (None if expected is None else pytest.approx(expected))


def test_nets_without_have_none() -> None:
    plain = facts()
    for name in ("gradient_shift", "input_drift", "init_val_loss_batch"):
        assert METRICS[name].value(plain, None) is None
    assert of(plain, "layer[1].gradient_shift@train") is None
    assert of(plain, "slope(input_mean_drift@train)") is None


@pytest.mark.parametrize("run", [RUN, facts(), facts(shifted(1, 0.0))])
def test_the_summary_file_gives_them_back(run: RunSummary) -> None:
    packed = PackedNumbers.from_record(run.packed.as_record())
    assert packed.unpack() == (run.evaluations, run.layers)
