"""TensorBoard, MLflow and W&B read what was exported, offline, and a repeated export doubles nothing."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from exported import CONFIG, EDGES, store_run, wandb_records

from initbench.export.tracker_values import bins_with_outside
from initbench.store.histograms import Histogram
from initbench.store.store import Store

KINDS = ("tensorboard", "mlflow", "wandb")
PACKAGES = {"tensorboard": ("tensorboard", "crc32c"), "mlflow": ("mlflow", "sqlalchemy"), "wandb": ("wandb",)}


def require(kind: str) -> None:
    for package in PACKAGES[kind]:
        pytest.importorskip(package, reason=f"needs the extra `{kind}`")


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of an experiment, and a diverged run."""
    root = tmp_path_factory.mktemp("stored")
    for seed in (0, 1):
        store_run(root, seed=seed, val_losses=(2.0, 1.0, 0.5 + seed), shifts=True)
    store_run(root, "bad", val_losses=(2.0, math.inf, math.nan), diverged=17)
    return root


@pytest.fixture(scope="module")
def new_output(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function that returns an empty directory for a kind, with an empty database for mlflow.

    MLflow takes seconds to create its tables, so they are created once and copied.
    """
    template = tmp_path_factory.mktemp("template") / "mlflow.db"

    def make(kind: str) -> Path:
        require(kind)
        output = tmp_path_factory.mktemp(kind)
        if kind == "mlflow":
            from initbench.export.mlflow_store import MlflowExporter

            MlflowExporter()._create_database(template)
            shutil.copy(template, output)
        return output

    return make


@pytest.fixture(scope="module")
def outputs(stored: Path, new_output: Any) -> Any:
    """A function that returns the directory with the export of a kind, made once."""
    made: dict[str, Path] = {}

    def output(kind: str) -> Path:
        if kind not in made:
            made[kind] = new_output(kind)
            assert export_to(kind, stored, made[kind]).written == 3
        return made[kind]

    return output


def export_to(kind: Any, stored: Path, output: Path) -> Any:
    from initbench.analysis.selection import Selection
    from initbench.export.export_runs import export_runs

    return export_runs(Selection(Store(stored)), kind, output).counts


# TensorBoard


@pytest.fixture
def accumulator(outputs: Any) -> Any:
    """TensorBoard's own reader on the directory of a run."""
    directory = outputs("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def read(run_id: str) -> Any:
        reader = EventAccumulator(str(directory / run_id), size_guidance={"tensors": 0, "scalars": 0})
        reader.Reload()
        return reader

    return read


def test_tensorboard_reads_the_stored_scalars(stored: Path, accumulator: Any):
    reader, run = accumulator("relu-s1-abc"), Store(stored).read("relu-s1-abc")
    losses = [(event.step, event.value) for event in reader.Scalars("curves/val_loss")]
    assert losses == [(line["step"], line["val_loss"]) for line in run.convergence]
    stds = [(event.step, event.value) for event in reader.Scalars("act_std/layer_01")]
    assert stds == [(s["step"], s["layers"][0]["act"]["std"]) for s in run.snapshots]
    (accuracy,) = reader.Scalars("metrics/final_val_accuracy")
    assert accuracy.step == 20 and accuracy.value == pytest.approx(0.6, rel=1e-7)  # stored as float32
    assert reader.Scalars("gradient_shift/layer_02")[0].step == 1
    assert "act_std/layer_02" not in reader.Tags()["scalars"], "a head has no activation"


def test_tensorboard_reads_the_stored_histograms(stored: Path, accumulator: Any):
    from tensorboard.util.tensor_util import make_ndarray

    reader, run = accumulator("relu-s0-abc"), Store(stored).read("relu-s0-abc")
    for event, snapshot in zip(reader.Tensors("activation/layer_01"), run.snapshots, strict=True):
        record = snapshot["layers"][0]["act"]["histogram"]
        rows = make_ndarray(event.tensor_proto).tolist()
        assert event.step == snapshot["step"]
        assert [row[2] for row in rows] == [*record["counts"], record["above"]]
        assert [row[0] for row in rows] == record["edges"] and rows[-1][:2] == [1.0, 1.5]
    first = make_ndarray(reader.Tensors("pre_activation/layer_01")[0].tensor_proto).tolist()
    assert first == [[-4, -2, 5], [-2, 0, 3], [0, 2, 4], [2, 4, 3]]
    assert reader.SummaryMetadata("gradient/layer_01").plugin_data.plugin_name == "histograms"


def test_tensorboard_reads_config_keys_as_hyperparameters(accumulator: Any):
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    (tag,) = [tag for tag in accumulator("relu-s0-abc").Tags()["tensors"] if tag.startswith("_hparams_")]
    content = accumulator("relu-s0-abc").SummaryMetadata(tag).plugin_data.content
    session = HParamsPluginData.FromString(content).session_start_info
    assert session.hparams["init.scheme"].string_value == "kaiming_normal"
    assert session.hparams["train.lr"].number_value == 0.1 and session.hparams["model.bias"].bool_value
    assert session.group_name == "abc", "the seeds of an arm are one group"


def test_a_diverged_run_keeps_its_nonfinite_losses_in_tensorboard(accumulator: Any):
    losses = [event.value for event in accumulator("bad-s0-abc").Scalars("curves/val_loss")]
    assert losses[:2] == [2.0, math.inf] and math.isnan(losses[2])


def test_checksums_of_event_files_are_those_of_tensorboard(outputs: Any):
    directory = outputs("tensorboard")
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    (path,) = (directory / "relu-s0-abc").iterdir()
    data, position, records = path.read_bytes(), 0, 0
    while position < len(data):
        (size,) = struct.unpack_from("<Q", data, position)
        body = data[position + 12 : position + 12 + size]
        (of_size,) = struct.unpack_from("<I", data, position + 8)
        (of_body,) = struct.unpack_from("<I", data, position + 12 + size)
        assert (of_size, of_body) == (masked_crc32c(data[position : position + 8]), masked_crc32c(body))
        position, records = position + 16 + size, records + 1
    assert records == 2 + 4, "the version, the hyperparameters, and the steps 0, 1, 10 and 20"


def test_outside_bins_are_added_only_where_entries_are_outside():
    assert bins_with_outside(Histogram(EDGES, [1, 2], 0, 0, 9)) == [(0.0, 0.5, 1), (0.5, 1.0, 2)]
    assert bins_with_outside(Histogram(EDGES, [1, 2], 4, 0, 0))[0] == (-0.5, 0.0, 4)


def test_a_histogram_without_a_scale_has_bins_of_width_1():
    zeros = Histogram([0.0, 0.0, 0.0], [0, 9], 0, 0, 0)
    assert bins_with_outside(zeros) == [(-0.5, 0.5, 9)]
    infinite = Histogram([0.0, 0.0, 0.0], [0, 9], 1, 2, 3)
    assert bins_with_outside(infinite) == [(-1.5, -0.5, 1), (-0.5, 0.5, 9), (0.5, 1.5, 2)]


# MLflow


@pytest.fixture
def client(outputs: Any) -> Any:
    directory = outputs("mlflow")
    from mlflow.tracking import MlflowClient

    return MlflowClient(f"sqlite:///{directory / 'mlflow.db'}")


def mlflow_runs(client: Any) -> dict[str, Any]:
    experiment = client.get_experiment_by_name("initbench").experiment_id
    found = client.search_runs([experiment])
    runs = {run.data.tags["initbench.run_id"]: run for run in found}
    assert len(runs) == len(found), "no run is there twice"
    return runs


def test_mlflow_reads_params_metrics_and_tags(client: Any):
    runs = mlflow_runs(client)
    assert sorted(runs) == ["bad-s0-abc", "relu-s0-abc", "relu-s1-abc"]
    run = runs["relu-s1-abc"]
    assert run.info.run_name == "relu-s1-abc" and run.info.status == "FINISHED"
    assert run.data.params["init.scheme"] == "kaiming_normal" and run.data.params["seed"] == "1"
    assert run.data.params["train.lr"] == "0.1" and run.data.params["model.bias"] == "true"
    assert run.data.metrics["final_val_accuracy"] == 0.6 and run.data.metrics["val_loss"] == 1.5
    assert run.data.tags["initbench.experiment"] == "relu" and run.data.tags["initbench.status"] == "finished"
    history = client.get_metric_history(run.info.run_id, "val_loss")
    assert sorted((metric.step, metric.value) for metric in history) == [(0, 2.0), (10, 1.0), (20, 1.5)]
    assert run.info.end_time >= run.info.start_time > 1.7e12


def test_mlflow_has_the_tables_of_layers_and_histograms_as_artifacts(client: Any, tmp_path: Path):
    run = mlflow_runs(client)["relu-s0-abc"]
    path = client.download_artifacts(run.info.run_id, "histograms.csv", str(tmp_path))
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("run_id,experiment,seed,moment") and len(lines) == 1 + 3 * 3 * 5
    assert {item.path for item in client.list_artifacts(run.info.run_id)} == {"layers.csv", "histograms.csv"}


def test_a_diverged_run_keeps_its_nonfinite_losses_in_mlflow(client: Any):
    run = mlflow_runs(client)["bad-s0-abc"]
    history = {m.step: m.value for m in client.get_metric_history(run.info.run_id, "val_loss")}
    assert history[0] == 2.0 and history[10] > 1e308 and math.isnan(history[20])
    assert "final_val_accuracy" not in run.data.metrics and run.data.tags["initbench.diagnosis"] == "diverged"


# W&B


def wandb_directories(output: Path) -> dict[str, Path]:
    markers = list(output.glob("wandb/offline-run-*/initbench.json"))
    found = {json.loads(marker.read_text())["run_id"]: marker.parent for marker in markers}
    assert len(found) == len(markers) == len(list((output / "wandb").iterdir())), "no run is there twice"
    return found


def items(update: Any) -> dict[str, Any]:
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in update}


def test_wandb_files_hold_config_history_and_summary(outputs: Any):
    directory = wandb_directories(outputs("wandb"))["relu-s1-abc"]
    records = list(wandb_records(directory))
    (run,) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert (run.run_id, run.display_name, run.project, run.run_group) == (
        *("relu-s1-abc", "relu-s1-abc"),
        *("initbench", "relu"),
    )
    config = items(run.config.update)
    assert config["init.scheme"] == "kaiming_normal" and config["train.lr"] == 0.1 and config["seed"] == 1
    history = [record.history for record in records if record.WhichOneof("record_type") == "history"]
    rows = {entry.step.num: items(entry.item) for entry in history}
    assert {step: row.get("val_loss") for step, row in rows.items()} == {0: 2.0, 1: None, 10: 1.0, 20: 1.5}
    assert rows[10]["act_std/layer_01"] == 10.75
    assert rows[0]["activation/layer_01/values"] == [7, 8, 3]
    assert rows[0]["activation/layer_01/bins"] == [*EDGES, 1.5]
    summary: dict[str, Any] = {}
    for record in records:
        if record.WhichOneof("record_type") == "summary":
            summary |= items(record.summary.update)
    assert summary["final_val_accuracy"] == 0.6 and summary["val_loss"] == 1.5
    assert records[-1].WhichOneof("record_type") == "exit"


def test_many_bins_are_merged_for_wandb():
    require("wandb")
    from initbench.export.wandb_offline import _wandb_bins

    counts, edges = _wandb_bins(Histogram([float(i) for i in range(1025)], [1] * 1024, 2, 0, 0))
    assert len(counts) == 342 and len(edges) == 343 and sum(counts) == 1026
    assert edges[0] == -1.0 and edges[-1] == 1024.0 and counts[0] == 4


def test_ids_that_wandb_rejects_are_replaced():
    require("wandb")
    from initbench.export.wandb_offline import wandb_id

    assert wandb_id("relu-s0-abc") == "relu-s0-abc"
    ids = [wandb_id("a:b"), wandb_id("a_b#"), wandb_id("é;"), wandb_id("x" * 200)]
    assert len(set(ids)) == 4 and all(re.fullmatch(r"[\w.-]{1,64}", name, re.ASCII) for name in ids)


# All trackers


def contents(directory: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {str(path.relative_to(directory)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.mark.parametrize("kind", KINDS)
def test_exported_twice_is_there_once(kind: str, stored: Path, outputs: Any, initbench: Any):
    output = outputs(kind)
    (output / "mine.txt").write_text("mine")
    before = contents(output)
    said = initbench("export", "--to", kind, "--runs-dir", stored, "-o", output)
    assert said.code == 0 and said.out.startswith(f"0 runs written to {output}, 3 unchanged\n")
    after = contents(output)
    if kind == "mlflow":  # opening the database may touch it
        before.pop("mlflow.db"), after.pop("mlflow.db")
    assert after == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_rerun_replaces_the_earlier_version(kind: str, new_output: Any, tmp_path: Path):
    root, output = tmp_path / "runs", new_output(kind)
    store_run(root, seed=0)
    store_run(root, seed=1)
    assert export_to(kind, root, output).written == 2
    directory = output / "relu-s0-abc"
    if kind == "wandb":
        directory = wandb_directories(output)["relu-s0-abc"]
    directory.mkdir(exist_ok=True)
    (directory / "notes.txt").write_text("mine")
    store_run(root, seed=0, val_losses=(2.0, 1.0, 0.25), rerun=True)
    counts = export_to(kind, root, output)
    assert (counts.written, counts.unchanged) == (1, 1)
    assert export_to(kind, root, output).unchanged == 2
    if kind == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        reader = EventAccumulator(str(directory))
        reader.Reload()
        assert [event.value for event in reader.Scalars("curves/val_loss")] == [2.0, 1.0, 0.25]
    elif kind == "mlflow":
        from mlflow.tracking import MlflowClient

        run = mlflow_runs(MlflowClient(f"sqlite:///{output / 'mlflow.db'}"))["relu-s0-abc"]
        assert run.data.metrics["val_loss"] == 0.25
    else:
        assert wandb_directories(output)["relu-s0-abc"] != directory
        directory = wandb_directories(output)["relu-s0-abc"]
        text = b"".join(record.SerializeToString() for record in wandb_records(directory))
        assert b"0.25" in text and len(wandb_directories(output)) == 2
    assert (directory / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("kind", ["mlflow", "wandb"])
def test_an_export_that_was_killed_is_completed(
    kind: str, new_output: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    root, output = tmp_path / "runs", new_output(kind)
    store_run(root, seed=0)
    store_run(root, seed=1)
    from initbench.export import tables

    def fail(*_: object) -> float:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tables.RunTables, "time_of_step" if kind == "wandb" else "last_step", property(fail))
        with pytest.raises(KeyboardInterrupt):
            export_to(kind, root, output)
    assert export_to(kind, root, output).written == 2
    if kind == "mlflow":
        from mlflow.tracking import MlflowClient

        assert len(mlflow_runs(MlflowClient(f"sqlite:///{output / 'mlflow.db'}"))) == 2
    else:
        assert len(wandb_directories(output)) == 2
    assert not (output / ".export.tmp").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_odd_names_and_values_are_accepted(kind: str, new_output: Any, tmp_path: Path, initbench: Any):
    output = new_output(kind).rename(tmp_path / "é 'x'")
    odd = {"a\nb🎉=;": "x" * 10_000, "empty": "", "../up": "a\0b", "huge": 10**30, "list": [1, None]}
    store_run(tmp_path / "runs", '=1+1, "q" 🎉%:#', config={"train": {**CONFIG["train"], **odd}})
    store_run(tmp_path / "runs", "n" * 150)
    for written in (2, 0):
        arguments = ["--to", kind, "--runs-dir", tmp_path / "runs", "-o", output]
        said = initbench("export", *arguments)
        assert said.code == 0 and said.out.startswith(f"{written} runs written"), said.err


def test_a_path_that_is_no_uri_of_a_database_is_refused(tmp_path: Path, initbench: Any):
    require("mlflow")
    store_run(tmp_path / "runs")
    said = initbench("export", "--to", "mlflow", "--runs-dir", tmp_path / "runs", "-o", tmp_path / "a#b")
    assert said.code == 2 and "the path must not contain '#'" in said.err


def test_a_file_that_is_not_a_database_is_one_line(tmp_path: Path, initbench: Any):
    require("mlflow")
    store_run(tmp_path / "runs")
    (tmp_path / "mlflow.db").write_text("mine " * 1000)
    said = initbench("export", "--to", "mlflow", "--runs-dir", tmp_path / "runs", "-o", tmp_path)
    assert said.code == 3 and said.err.startswith("initbench: MLflow cannot write ")
    assert (tmp_path / "mlflow.db").read_text() == "mine " * 1000


@pytest.mark.slow
def test_a_database_that_was_not_completed_is_created_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    require("mlflow")
    from mlflow.tracking import MlflowClient

    def fail(uri: str) -> None:
        Path(uri.removeprefix("sqlite:///")).write_bytes(b"SQLite format 3")
        raise KeyboardInterrupt

    root, output = tmp_path / "runs", tmp_path / "out"
    store_run(root)
    with monkeypatch.context() as patch:
        patch.setattr("mlflow.tracking.MlflowClient", fail)
        with pytest.raises(KeyboardInterrupt):
            export_to("mlflow", root, output)
    assert [path.name for path in output.iterdir()] == [".export.lock"]
    assert export_to("mlflow", root, output).written == 1
    assert list(mlflow_runs(MlflowClient(f"sqlite:///{output / 'mlflow.db'}"))) == ["relu-s0-abc"]


WATCHED = """
import sys
attempts = []
def watch(event, arguments):
    if event == "socket.connect" and not isinstance(arguments[1], (str, bytes)):
        attempts.append((event, arguments[1]))
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        attempts.append((event, arguments[:1]))
sys.addaudithook(watch)
from initbench.cli.main import run_command
code = run_command(sys.argv[1:])
assert not {"torch", "torchvision", "tensorflow"} & set(sys.modules), "torch was imported"
assert not attempts, attempts
sys.exit(code)
"""


@pytest.mark.parametrize(
    "kind", ["csv", "parquet", "tensorboard", pytest.param("mlflow", marks=pytest.mark.slow), "wandb"]
)
def test_no_connection_is_attempted_and_torch_is_not_loaded(
    kind: str, stored: Path, outputs: Any, tmp_path: Path
):
    if kind in PACKAGES:
        require(kind)
    elif kind == "parquet":
        pytest.importorskip("pyarrow", reason="needs the extra `table`")
    online = {"WANDB_MODE": "online", "WANDB_API_KEY": "0" * 40, "WANDB_ERROR_REPORTING": "true"}
    online |= {"MLFLOW_TRACKING_URI": "http://mlflow.invalid", "MLFLOW_DISABLE_TELEMETRY": "false"}
    online |= {"HOME": str(tmp_path), "DO_NOT_TRACK": "false", "PYTHONPATH": os.pathsep.join(sys.path)}
    online["PATH"] = os.environ["PATH"]  # and no variables of pytest or CI
    command = [sys.executable, "-c", WATCHED, "export", "--to", kind, "--runs-dir", str(stored), "-o", "out"]
    if trace := shutil.which("strace"):  # wandb writes through a program that is not written in Python
        traced = [trace, "-f", "--seccomp-bpf", "-qq", "-e", "trace=connect", "-o", "trace.txt"]
        if subprocess.run([*traced, "true"], cwd=tmp_path, capture_output=True).returncode == 0:
            command = [*traced, *command]
    done = subprocess.run(command, env=online, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 runs written to out")
    if kind == "tensorboard":  # another process writes the same bytes, although it orders hashes differently
        earlier, later = (contents(path) for path in (outputs(kind), tmp_path / "out"))
        assert {name: later[name][0] for name in later} == {name: earlier[name][0] for name in later}
    if (tmp_path / "trace.txt").exists():
        assert "AF_INET" not in (tmp_path / "trace.txt").read_text()
