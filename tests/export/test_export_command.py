"""`initbench export` on the command line."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from exported import CONFIG, store_run

from initbench.optional_packages import import_optional
from initbench.store import sweep_index
from initbench.store.store import Store

EXTRAS = {"parquet": "table", "tensorboard": "tensorboard", "mlflow": "mlflow", "wandb": "wandb"}
PACKAGES = {"parquet": "pyarrow", "tensorboard": "tensorboard", "mlflow": "sqlalchemy", "wandb": "wandb"}


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    for seed in (0, 1):
        store_run(root, "relu", seed)
    store_run(root, "tanh", config={"model": {**CONFIG["model"], "activation": "tanh", "depth": 50}})
    return root


def exported_ids(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.partition(",")[0] for line in lines[1:]]


@pytest.mark.parametrize("kind", EXTRAS)
def test_a_missing_extra_is_one_line_with_the_install_command(
    kind: str, stored: Path, tmp_path: Path, initbench: Any, monkeypatch: pytest.MonkeyPatch
):
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGES[kind]]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, PACKAGES[kind], None)
    said = initbench("export", "--to", kind, "--runs-dir", stored, "-o", tmp_path / "out")
    assert said.code == 2 and said.out == "" and said.err.count("\n") == 1
    assert said.err.endswith(f"pip install 'initbench[{EXTRAS[kind]}]'\n")
    assert not (tmp_path / "out").exists()


def test_the_extras_are_declared(repository: Path):
    import tomllib

    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(EXTRAS.values()) <= project["optional-dependencies"].keys()


def test_a_directory_of_the_name_of_a_package_is_not_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "no_such_package").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    with pytest.raises(Exception, match=r"pip install 'initbench\[x\]'"):
        import_optional("no_such_package", "Files", "x")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "parket"], "'parket' is not one of"),
        ([], "Missing option '--to'"),
        (["--to", "csv", "rleu"], "no stored run matches 'rleu'; did you mean 'relu'?"),
        (["--to", "csv", "--where", "model.dept=3"], "did you mean 'model.depth'?"),
        (["--to", "csv", "--where", "model.depth=3"], "none of 3 runs"),
        (["--to", "csv", "--tables", "layer"], "there is no table 'layer'; did you mean 'layers'?"),
        (["--to", "tensorboard", "--tables", "runs"], "--tables cannot be combined with --to tensorboard"),
        (["--to", "csv", "--target", "90"], "--target"),
        (["--to", "csv", "-o", "runs"], "is in the directory of stored runs"),
        (["--to", "csv", "-o", "runs/x/../y"], "is in the directory of stored runs"),
        (["--to", "csv", "--runs-dir", "empty"], "there are no runs in empty to export"),
    ],
)
def test_mistakes_are_answered_with_exit_code_2(
    arguments: list[str], message: str, stored: Path, initbench: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(stored.parent)
    said = initbench("export", *arguments)
    assert said.code == 2 and said.out == "" and message in said.err
    assert sorted(path.name for path in stored.parent.iterdir()) == ["runs"]


def test_runs_are_selected_as_in_compare(stored: Path, initbench: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(stored.parent)
    everything = ["relu-s0-abc", "relu-s1-abc", "tanh-s0-abc"]
    for patterns, expected in (
        ([], everything),
        (["tanh"], everything[2:]),
        (["relu-s1"], everything[1:2]),
        (["*-s0-*"], [everything[0], everything[2]]),
        (["--where", "model.depth=50"], everything[2:]),
        (["--where", "seed!=0"], everything[1:2]),
    ):
        said = initbench("export", *patterns, "--to", "csv")
        assert said.code == 0, said.err
        assert exported_ids(Path("export/csv/runs.csv")) == expected
        assert sorted(set(exported_ids(Path("export/csv/curves.csv")))) == expected
    assert said.out.splitlines()[:2] == ["1 run written to export/csv", "export/csv/runs.csv"]


def test_a_sweep_is_a_pattern_and_its_missing_experiments_are_reported(
    stored: Path, initbench: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(stored.parent)
    untuned: dict[str, Any] = {"tuning_runs": [], "tuning": None}
    points = {
        name: {"experiment": name, "keys": {"model.depth": 2}, "runs": [f"{name}-s0-abc"], **untuned}
        for name in ("relu", "gone")
    }
    sweep_index.add_points(stored, "depths", points)
    said = initbench("export", "depths", "--to", "csv")
    assert said.code == 0 and exported_ids(Path("export/csv/runs.csv")) == ["relu-s0-abc"]
    assert "gone" in said.err


def test_json_is_one_document(stored: Path, tmp_path: Path, initbench: Any):
    Store(stored).claim("cut-s0-abc", {"experiment": "cut"}, "name: cut\n").stop("failed", "boom")
    said = initbench("export", "--to", "csv", "--runs-dir", stored, "-o", tmp_path / "out", "--json")
    document = json.loads(said.out)
    assert (document["to"], document["written"], document["unchanged"]) == ("csv", 3, 0)
    assert list(document["skipped"]) == ["cut-s0-abc"]
    assert document["output"] == str(tmp_path / "out")


def test_a_trained_run_is_exported_as_it_is_stored(tmp_path: Path):
    """Without torch in the exporting process, and with the statistics that training really stores."""
    options = ["data.name=digits", "train.steps=20", "model.depth=3", "model.width=16", "seeds=1", "--quiet"]
    command = [sys.executable, "-m", "initbench"]
    config = ["relu_xavier_batchnorm", *options, "probe.covariate_shift=10", "--offline"]
    subprocess.run([*command, "run", *config], cwd=tmp_path, check=True, capture_output=True)
    done = subprocess.run([*command, "export", "--to", "csv"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    (directory,) = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    import csv

    def rows(table: str) -> list[dict[str, str]]:
        with (tmp_path / "export" / "csv" / f"{table}.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert [float(row["val_loss"]) for row in rows("curves")] == [line["val_loss"] for line in lines]
    assert float(rows("curves")[0]["val_loss_batch"]) == lines[0]["val_loss_batch"]
    snapshots = [json.loads(line) for line in (directory / "layers.jsonl").read_text().splitlines()]
    layers, last = rows("layers"), snapshots[-1]["layers"][0]
    end = next(row for row in layers if row["moment"] == "end" and row["layer"] == "1")
    assert float(end["act_std"]) == last["act"]["std"] and float(end["q"]) == last["pre"]["q"]
    assert float(end["running_mean_gap"]) == last["batch_norm"]["running_mean_gap"]
    assert {row["moment"] for row in layers if row["gradient_shift"]} == {"train"}
    never = {name for name in layers[0] if not any(row[name] for row in layers)}
    assert never == {"positions", "saturated_fraction"}, "maps and bounded activations only"
    counts = last["act"]["histogram"]
    stated = [
        int(row["count"])
        for row in rows("histograms")
        if row["moment"] == "end" and row["layer"] == "1" and row["quantity"] == "activation"
    ]
    assert stated == [counts["below"], *counts["counts"], counts["above"], counts["nan"]]
