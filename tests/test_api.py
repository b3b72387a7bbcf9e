"""`initbench.run`, `sweep`, `load_runs` and `compare` in Python."""

from __future__ import annotations

import importlib
import json
import os
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import initbench
from initbench.cli.main import run_command
from initbench.errors import ConfigError, MissingExtraError, RunFailedError, UsageError
from initbench.render.html import html_table, preformatted_html
from initbench.results import Runs, SweepRuns
from initbench.runner.user_code import use_functions
from tests.plugins.processes import run_python

CONFIG = {
    "kind": "experiment",
    "name": "tiny",
    "data": {"name": "digits"},
    "model": {"family": "mlp", "depth": 3, "width": 8},
    "train": {"steps": 20, "batch_size": 32, "eval_every": 10},
    "probe": {"batch": 32},
    "seeds": 2,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return initbench.run(CONFIG, runs_dir=tmp_path_factory.mktemp("api") / "runs")


class _Balance(HTMLParser):
    """Parser that collects the text and counts unbalanced tags."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.open = "", 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open += 1

    def handle_endtag(self, tag: str) -> None:
        self.open -= 1

    def handle_data(self, data: str) -> None:
        self.text += data


def _html_text(result: object) -> str:
    parser = _Balance()
    parser.feed(result._repr_html_())  # type: ignore[attr-defined]
    parser.close()
    assert parser.open == 0
    return parser.text


def test_a_run_is_trained_stored_and_found_again(trained: Runs) -> None:
    assert [run.seed for run in trained] == [0, 1]
    assert {run.status for run in trained} == {"finished"}
    again = initbench.run(CONFIG, runs_dir=trained.store.root)
    assert again.run_ids == trained.run_ids
    assert [run.created for run in again] == [run.created for run in trained]  # not trained again
    loaded = initbench.load_runs("tiny", runs_dir=trained.store.root, where=["seed=1"])
    assert loaded.run_ids == trained[1:].run_ids
    assert loaded[0] == trained[1]


def test_overrides_change_keys(tmp_path: Path) -> None:
    runs = initbench.run(
        CONFIG, runs_dir=tmp_path, train__steps=4, seeds=1, init__scheme="xavier_normal", model__norm="batch"
    )
    (record,) = runs.to_records(target=0.0)
    assert record["train.steps"] == 4
    assert record["init.scheme"] == "xavier_normal"
    assert record["model.norm"] == "batch"
    assert record["steps_to_target"] == 0.0
    assert record["final_val_accuracy"] == runs[0].final["val_accuracy"]


def test_a_config_may_be_a_file_or_the_name_of_a_shipped_config(tmp_path: Path) -> None:
    small = {"data__name": "digits", "train__steps": 2, "seeds": 1, "model__depth": 2, "model__width": 4}
    named = initbench.run("relu_kaiming", runs_dir=tmp_path, **small)
    file = tmp_path / "own.yaml"
    file.write_text(json.dumps({**CONFIG, "seeds": 1}), encoding="utf-8")
    assert [run.experiment for run in named] == ["relu_kaiming"]
    assert [run.experiment for run in initbench.run(file, runs_dir=tmp_path)] == ["tiny"]


def test_a_comparison_has_the_numbers_of_the_command(trained: Runs) -> None:
    other = initbench.run(CONFIG, runs_dir=trained.store.root, name="zeros", init__scheme="zeros")
    comparison = initbench.compare(trained, other, baseline="tiny")
    document = comparison.as_data()
    assert document == initbench.compare(baseline="tiny", runs_dir=trained.store.root).as_data()
    records = {(record["row"], record["metric"]): record for record in comparison.to_records()}
    assert records["tiny", "final_val_accuracy"]["n"] == 2
    assert records["zeros", "final_val_accuracy"]["baseline"] == "tiny"
    assert "verdict" in records["zeros", "final_val_accuracy"]
    assert set(comparison.to_pandas()["row"]) == {"tiny", "zeros"}
    assert repr(comparison) == "<RunComparison of 2 rows in 1 table>"
    assert "zeros" in str(comparison)
    assert "zeros" in _html_text(comparison)


def test_results_are_shown_in_a_terminal_and_in_a_notebook(trained: Runs) -> None:
    assert repr(trained) == "<2 runs of 1 experiment: tiny>"
    assert "activation statistics" in str(trained).lower() or "tiny" in str(trained)
    assert "finished" in _html_text(trained)
    assert trained.as_data()["schema"] == "initbench.run/1"
    assert list(trained.to_pandas()["seed"]) == [0, 1]


def test_text_is_inert_in_html() -> None:
    table = html_table(["<b>"], [["a<script>&"]], title="<i>", notes=["<p>"])
    for page in (table, preformatted_html("a<script>&")):
        assert "<script>" not in page
        parser = _Balance()
        parser.feed(page)
        assert parser.open == 0
        assert "a<script>&" in parser.text


def test_a_probe_describes_itself_in_a_line() -> None:
    import torch

    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    batch = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    initbench.apply_init(net, "zeros")
    assert repr(initbench.probe(net, batch)).startswith("<Probe of Sequential: ")
    assert repr(initbench.lint(net, batch)).startswith("<Lint of Sequential: ")
    assert "Sequential" in _html_text(initbench.probe(net, batch))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"train__stepz": 3}, "did you mean"),
        ({"train__steps": -1}, "train.steps"),
        ({"init__scheme": "kaiming_norml"}, "kaiming_normal"),
    ],
)
def test_a_wrong_override_is_named(overrides: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        initbench.run(CONFIG, runs_dir=tmp_path, **overrides)
    assert not list(tmp_path.iterdir())


def test_what_does_not_exist_is_named(trained: Runs, tmp_path: Path) -> None:
    root = trained.store.root
    with pytest.raises(UsageError, match="tiny"):
        initbench.load_runs("tinny", runs_dir=root)
    with pytest.raises(UsageError, match="tiny"):
        initbench.compare(baseline="tinny", runs_dir=root)
    with pytest.raises(UsageError, match="two for a pivot"):
        initbench.compare(by=["a", "b", "c"], runs_dir=root)
    with pytest.raises(UsageError, match="not a list"):
        initbench.run(["tiny"], runs_dir=tmp_path)  # type: ignore[arg-type]


def test_a_failed_training_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from initbench.train import loop

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("injected")

    monkeypatch.setattr(loop.Training, "run", fail)
    with pytest.raises(RunFailedError, match="injected"):
        initbench.run(CONFIG, runs_dir=tmp_path, seeds=1)
    assert [run.status for run in initbench.load_runs(runs_dir=tmp_path)] == ["failed"]


OWN = """
import torch
from torch import nn


def make(input_shape, classes, width=4):
    return nn.Sequential(nn.Linear(input_shape[0], width), nn.Tanh(), nn.Linear(width, classes))


def make_data():
    x = torch.randn(160, 5, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    return {"x_train": x[:120], "y_train": y[:120], "x_test": x[120:], "y_test": y[120:]}
"""
LOSS = """
FACTOR = 1.0


def squared(outputs, targets):
    return FACTOR * (outputs.softmax(1)[:, 0] - (targets == 0).float()).square().mean()
"""
AXES = {"init.scheme": ["xavier_normal", "kaiming_normal"], "model.depth": [2, 3]}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> SweepRuns:
    return initbench.sweep(CONFIG, AXES, runs_dir=tmp_path_factory.mktemp("sweep") / "runs", train__lr=0.02)


def test_a_sweep_is_that_of_the_command(
    swept: SweepRuns, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(json.dumps(CONFIG), encoding="utf-8")
    axes = [f"{key}={','.join(map(str, values))}" for key, values in AXES.items()]
    options = ["--runs-dir", str(tmp_path / "runs"), "--json", "--quiet"]
    assert run_command(["sweep", str(file), *axes, "train.lr=0.02", *options]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [[run["run_id"] for run in point["runs"]] for point in document["points"]] == [
        list(point.run_ids) for point in swept.result.variants
    ]
    assert swept.as_data().keys() == document.keys()
    assert len(swept.runs) == 8
    assert {run.status for run in swept.runs} == {"finished"}


def test_a_sweep_trains_only_what_is_missing(swept: SweepRuns) -> None:
    store = swept.runs.store
    again = initbench.sweep(
        CONFIG, {**AXES, "model.depth": [2, 3, 4]}, runs_dir=store.root, train__lr=0.02, seeds=2
    )
    before = {run.run_id: run.created for run in swept.runs}
    assert len(again.runs) == 12
    assert {run.run_id: run.created for run in again.runs if run.run_id in before} == before
    rows = {row.label for table in again.comparison.tables for row in table.rows}
    assert rows == {point.label for point in again.result.variants}
    assert "kaiming_normal_depth4" in str(again)
    assert repr(again) == "<SweepRuns of tiny: 6 points, 12 runs>"
    assert "kaiming_normal" in _html_text(again)


def test_faults_of_axes_are_those_of_the_command(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'xavier_normal'"):
        initbench.sweep(CONFIG, {"init.scheme": ["xavier_norml"]}, runs_dir=tmp_path)
    with pytest.raises(ConfigError, match=r"model\.depht.*did you mean"):
        initbench.sweep(CONFIG, {"model.depht": [1, 2]}, runs_dir=tmp_path)
    with pytest.raises(UsageError, match="not a list"):
        initbench.sweep([CONFIG], AXES, runs_dir=tmp_path)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("library", ["polars", "pandas"])
def test_tidy_frames(trained: Runs, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if library == "pandas":
        monkeypatch.setitem(sys.modules, "polars", None)
    frames = {table: trained.to_frame(table) for table in ("runs", "curves", "layers", "histograms")}
    assert {type(frame).__module__.partition(".")[0] for frame in frames.values()} == {library}
    rows = {table: len(frame) for table, frame in frames.items()}
    assert rows["runs"] == 2
    assert rows["curves"] == 2 * 3  # at steps 0, 10 and 20
    assert rows["layers"] == 2 * 3 * 3  # three moments, three layers
    accuracies = list(frames["runs"]["final_val_accuracy"])
    assert accuracies == [run.final["val_accuracy"] for run in trained if run.final is not None]
    layers = frames["layers"]
    first = dict(zip(layers.columns, (next(iter(layers[name])) for name in layers.columns), strict=True))
    pre = trained.store.read(trained[0].run_id).snapshots[0]["layers"][0]["pre"]
    assert (first["run_id"], first["moment"], first["layer"]) == (trained[0].run_id, "init", 1)
    assert first["q"] == pre["q"]
    with pytest.raises(UsageError, match="there is no table 'layer'; did you mean 'layers'"):
        trained.to_frame("layer")


def test_without_a_library_frames_name_the_extra(trained: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("polars", "pandas"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'initbench\[frame\]'"):
        trained.to_frame()


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of the user with a net and data, and the directory of their runs."""
    (tmp_path / "own_module.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_losses.py").write_text(LOSS, encoding="utf-8")
    yield importlib.import_module("own_module")
    use_functions(None, None)
    for name in ("own_module", "own_losses"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("own_module")
def test_a_loss_of_the_user_is_that_of_the_command(tmp_path: Path) -> None:
    losses, root = importlib.import_module("own_losses"), tmp_path / "runs"
    runs = initbench.run(CONFIG, loss=losses.squared, runs_dir=root)
    assert {run.status for run in runs} == {"finished"}
    record = runs.store.read(runs.run_ids[0]).record
    assert record["config"]["train"]["loss"] == "squared"
    assert [(entry["module"], entry["name"]) for entry in record["plugins"]] == [("own_losses", "squared")]
    assert initbench.run(CONFIG, loss="own_losses:squared", runs_dir=root).run_ids == runs.run_ids

    points = initbench.sweep(
        CONFIG, {"train.loss": ["cross_entropy", "squared"]}, loss=losses.squared, runs_dir=root
    )
    records = [points.runs.store.read(run.run_id).record for run in points.runs]
    assert [entry["config"]["train"]["loss"] for entry in records] == ["cross_entropy"] * 2 + ["squared"] * 2
    assert records[2]["final"] == record["final"]
    with pytest.raises(ConfigError, match="unknown loss 'squared'"):
        initbench.run(CONFIG, train__loss="squared", runs_dir=root)  # a loss is used for one call
    assert "INITBENCH_LOSS" not in os.environ

    file = tmp_path / "tiny.yaml"
    file.write_text(json.dumps(CONFIG), encoding="utf-8")
    result = run_python(
        tmp_path, Path(__file__).parents[1], "-m", "initbench", "run", file.name, "--json", "--quiet",
        "--loss-from", "own_losses:squared", "--runs-dir", str(tmp_path / "of_the_command"),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert [run["run_id"] for run in json.loads(result.stdout)["runs"]] == list(runs.run_ids)


@pytest.mark.usefixtures("own_module")
def test_code_that_changes_in_a_notebook(tmp_path: Path) -> None:
    losses, root = importlib.import_module("own_losses"), tmp_path / "runs"
    small = {"seeds": 1, "train__steps": 4, "runs_dir": root}
    before = initbench.run(CONFIG, loss=losses.squared, **small)
    file = tmp_path / "own_losses.py"
    file.write_text(LOSS.replace("FACTOR = 1.0", "FACTOR = 23.0"), encoding="utf-8")
    with pytest.raises(UsageError, match="own_losses has changed since own_losses was imported: reload"):
        initbench.run(CONFIG, loss=losses.squared, **small)
    importlib.reload(losses)
    after = initbench.run(CONFIG, loss=losses.squared, **small)
    assert after.run_ids != before.run_ids
    first, second = before[0].final, after[0].final
    assert first is not None
    assert second is not None
    assert second["train_loss"] > 10.0 * first["train_loss"]

    with pytest.raises(UsageError, match="'mse' of own_losses is taken"):
        file.write_text(LOSS.replace("squared", "mse"), encoding="utf-8")
        initbench.run(CONFIG, loss=importlib.reload(losses).mse, **small)
    assert "INITBENCH_LOSS" not in os.environ


def test_nets_and_data_of_the_user(own_module: Any, tmp_path: Path) -> None:
    config = {key: value for key, value in CONFIG.items() if key not in ("data", "model")}
    runs = initbench.run(config, model=own_module.make, data=own_module.make_data, runs_dir=tmp_path / "runs")
    by_name = initbench.run(
        config, model="own_module:make", data="own_module:make_data", runs_dir=tmp_path / "runs"
    )
    assert by_name.run_ids == runs.run_ids
    assert {run.status for run in runs} == {"finished"}
    record = runs.store.read(runs.run_ids[0]).record
    assert record["custom_model"]["function"] == "make"
    assert record["custom_data"]["function"] == "own_module:make_data"
    assert record["samples"]["train"] + record["samples"]["val"] == 120
    points = initbench.sweep(
        config,
        {"model.options.width": [4, 8]},
        model=own_module.make,
        data=own_module.make_data,
        runs_dir=tmp_path / "runs",
        seeds=1,
    )
    assert len(points.runs) == 2
    with pytest.raises(ConfigError, match="--model MODULE:FUNCTION"):
        initbench.run({**config, "model": {"family": "custom"}}, runs_dir=tmp_path / "runs")


def test_a_function_that_workers_cannot_import_is_refused(tmp_path: Path) -> None:
    def make(input_shape: tuple[int, ...], classes: int) -> nn.Module:
        raise AssertionError((input_shape, classes))

    with pytest.raises(UsageError, match="put the function into a file"):
        initbench.run(CONFIG, model=make, runs_dir=tmp_path)
    assert not list(tmp_path.iterdir())
