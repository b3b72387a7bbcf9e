"""The tidy tables that all exports are based on."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from exported import CONFIG, EDGES, store_run

from initbench.analysis.metrics import METRICS
from initbench.analysis.run_summary import summarise_run
from initbench.export.tables import FIXED_COLUMNS, RunTables, build_run_tables, table_schemas
from initbench.store.packed_numbers import LAYER_STATISTICS, SHIFT_STATISTICS
from initbench.store.store import Store

GOLDEN = {
    "runs": "run_id experiment seed status created finished arm dataset dataset_requested fingerprint steps"
    " batch_size diverged_step diagnosis seconds machine version",
    "curves": "run_id experiment seed step epoch train_loss val_loss val_accuracy val_loss_batch"
    " val_accuracy_batch val_loss_population val_accuracy_population val_r2 val_mse val_top5_accuracy"
    " val_perplexity val_mean_iou val_f1 val_iou val_top2_accuracy val_top3_accuracy val_top10_accuracy"
    " val_top20_accuracy",
    "layers": "run_id experiment seed moment step layer name units hidden positions q pre_mean pre_std signal"
    " correlation pre_p01 pre_p25 pre_p50 pre_p75 pre_p99 act_q act_mean act_std zero_fraction dead_fraction"
    " saturated_fraction effective_rank delta_q delta_zero_fraction weight_gradient weight_std unit_spread"
    " jacobian_mean_sigma2 jacobian_condition running_mean_gap running_var_ratio gradient_norm gradient_shift"
    " gradient_shift_cosine input_mean_drift input_std_drift input_mean_from_init input_std_from_init",
    "histograms": "run_id experiment seed moment step layer name quantity bin low high count",
}


def tables_of(root: Path, run_id: str, target: float | None = None) -> RunTables:
    run = Store(root).read(run_id)
    return build_run_tables(run, summarise_run(run), target)


@pytest.mark.parametrize("table", GOLDEN)
def test_columns_are_a_contract(table: str):
    assert [column.name for column in FIXED_COLUMNS[table]] == GOLDEN[table].split()


def test_the_row_of_a_run_has_its_config_keys_and_metrics(tmp_path: Path):
    tables = tables_of(tmp_path, store_run(tmp_path), target=0.3)
    row = tables.run
    assert (row["dataset"], row["dataset_requested"], row["fingerprint"]) == ("digits", "mnist", "f00d")
    assert (row["status"], row["seconds"], row["steps"], row["batch_size"]) == ("finished", 4.0, 20, 32)
    assert row["init.scheme"] == "kaiming_normal" and row["init.scheme.mode"] == "fan_in"
    assert row["model.depth"] == 2 and row["with.code"] == "c0de"
    assert row["final_val_accuracy"] == 0.6 and row["act_std_end_first"] == 20.75
    assert row["steps_to_target"] == 10
    assert METRICS.keys() <= row.keys()
    assert tables_of(tmp_path, tables.run_id).run["steps_to_target"] is None


def test_columns_of_runs_are_sorted_config_keys_between_fixed_columns_and_metrics(tmp_path: Path):
    store_run(tmp_path, "a")
    store_run(tmp_path, "b", config={"init": {"scheme": "lsuv", "gain": 2}})
    store_run(tmp_path, "c", config={"init": {"scheme": "lsuv", "gain": "auto"}, "kind": "experiment"})
    store = Store(tmp_path)
    schema = table_schemas([summarise_run(store.read(run_id)) for run_id in store.find([])])["runs"]
    names = [column.name for column in schema]
    fixed, config = GOLDEN["runs"].split(), names[len(GOLDEN["runs"].split()) : -len(METRICS)]
    assert names[: len(fixed)] == fixed and names[-len(METRICS) :] == list(METRICS)
    assert config == sorted(config) and {"init.scheme.mode", "train.lr", "with.code"} <= set(config)
    assert len(set(names)) == len(names)
    kinds = {column.name: column.kind for column in schema}
    assert (kinds["init.gain"], kinds["model.depth"], kinds["train.lr"]) == ("text", "integer", "number")
    assert kinds["model.bias"] == "boolean"
    rows = [tables_of(tmp_path, f"{name}-s0-abc").columns("runs", schema) for name in "abc"]
    assert [row["init.gain"] for row in rows] == [[None], ["2"], ["auto"]]


def test_values_that_no_typed_column_can_hold_become_text(tmp_path: Path):
    config = {
        "train": {**CONFIG["train"], "huge": 10**30, "list": [1, 2]},
        "model": {**CONFIG["model"], "x": {}},
    }
    run_id = store_run(tmp_path, config=config)
    schema = table_schemas([summarise_run(Store(tmp_path).read(run_id))])["runs"]
    row = tables_of(tmp_path, run_id).columns("runs", schema)
    assert row["train.huge"] == ["1" + "0" * 30] and row["train.list"] == ["[1, 2]"]


def test_curves_keep_nonfinite_numbers_and_a_diverged_run_has_no_final_metrics(tmp_path: Path):
    losses = (2.0, math.inf, math.nan)
    tables = tables_of(tmp_path, store_run(tmp_path, val_losses=losses, diverged=17))
    assert [row["step"] for row in tables.curves] == [0, 10, 20]
    assert tables.curves[1]["val_loss"] == math.inf and math.isnan(tables.curves[2]["val_loss"])
    assert tables.curves[0]["val_loss_batch"] is None
    assert tables.run["status"] == "diverged" and tables.run["diverged_step"] == 17
    assert tables.run["diagnosis"] == "diverged" and tables.run["final_val_accuracy"] is None
    assert "final_val_accuracy" not in tables.metrics and tables.metrics["init_val_loss"] == 2.0


def test_statistics_of_layers_are_those_of_the_summary(tmp_path: Path):
    run = Store(tmp_path).read(store_run(tmp_path, shifts=True))
    summary = summarise_run(run)
    tables = build_run_tables(run, summary, None)
    for moment in ("init", "end"):
        rows = [row for row in tables.layers if row["moment"] == moment]
        stated = [{name: row[name] for name in LAYER_STATISTICS} for row in rows]
        assert stated == summary.layers[moment]
    assert [row["hidden"] for row in tables.layers if row["moment"] == "init"] == [True, False]
    shifted = [row for row in tables.layers if row["moment"] == "train" and row["layer"] == 1]
    means = {name: sum(row[name] for row in shifted) / len(shifted) for name in SHIFT_STATISTICS}
    assert means == pytest.approx(summary.layers["train"][0])


def test_a_probe_and_a_shift_at_one_step_share_their_rows(tmp_path: Path):
    tables = tables_of(tmp_path, store_run(tmp_path, shifts=True))
    keys = [(row["moment"], row["step"], row["layer"]) for row in tables.layers]
    steps = [("init", 0), ("train", 1), ("train", 10), ("end", 20)]
    assert keys == [(*step, layer) for step in steps for layer in (1, 2)]
    both = tables.layers[4]
    assert both["act_std"] == 10.75 and both["gradient_shift"] == 0.25
    assert tables.layers[2]["gradient_shift"] == 0.25 and "act_std" not in tables.layers[2]


def test_bins_of_a_histogram_cover_all_its_entries(tmp_path: Path):
    tables = tables_of(tmp_path, store_run(tmp_path))
    columns = tables.columns("histograms", FIXED_COLUMNS["histograms"])
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    first = [row for row in rows if row["moment"] == "init" and row["quantity"] == "activation"]
    assert [row["bin"] for row in first] == [-1, 0, 1, 2, None]
    assert [row["low"] for row in first] == [None, *EDGES, None]
    assert [row["high"] for row in first] == [*EDGES, None, None]
    assert [row["count"] for row in first] == [0, 7, 8, 3, 1]
    before = [row for row in rows if row["moment"] == "init" and row["quantity"] == "pre_activation"]
    assert [row["low"] for row in before[1:-1]] == [-2.0, 0.0, 2.0]
    assert sum(row["count"] for row in before) == 5 + 3 + 4 + 3 + 1
    quantities = {(row["layer"], row["quantity"]) for row in rows}
    assert quantities == {(1, "activation"), (1, "pre_activation"), (1, "gradient")}


def test_the_digest_changes_with_any_exported_number(tmp_path: Path):
    first = tables_of(tmp_path, store_run(tmp_path))
    assert tables_of(tmp_path, first.run_id).digest == first.digest
    assert tables_of(tmp_path, first.run_id, target=0.3).digest != first.digest
    changed = store_run(tmp_path, val_losses=(2.0, 1.0, 0.25), rerun=True)
    assert tables_of(tmp_path, changed).digest != first.digest


def test_times_of_steps_are_interpolated(tmp_path: Path):
    tables = tables_of(tmp_path, store_run(tmp_path))
    assert tables.time_of_step(10) - tables.time_of_step(0) == pytest.approx(2.0)
    diverged = tables_of(tmp_path, store_run(tmp_path, "x", diverged=2))
    assert diverged.time_of_step(2) - diverged.time_of_step(0) == pytest.approx(4.0)
