"""A first config, paths relative to a config, and the configs that a wheel contains."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from initbench.cli.new import first_config
from initbench.config.loading import load_config
from initbench.config.schema import ExperimentConfig
from initbench.study.load import load_mixed

ROOT = Path(__file__).parents[2]


def test_new_writes_a_config_that_is_valid_and_never_overwrites(initbench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = initbench("new", "mine")
    assert (said.code, said.out) == (0, "wrote mine.yaml; start it with: initbench run mine.yaml\n")
    config = load_config("mine.yaml", [], ExperimentConfig)
    assert config.name == "mine"
    text = Path("mine.yaml").read_text()
    again = initbench("new", "mine")
    assert again.code == 2
    assert "already exists" in again.err
    assert Path("mine.yaml").read_text() == text == first_config("mine")


@pytest.mark.parametrize("name", ["a b", "-", "x" * 200, "no/such/folder/x", ".yaml", ""])
def test_new_refuses_a_name_that_no_experiment_can_have(initbench, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert initbench("new", "--", name).code == 2
    assert list(tmp_path.iterdir()) == []


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    x, y = np.random.default_rng(0).normal(size=(40, 4)), np.arange(40) % 2
    np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)


def paths_of(file, *overrides):
    (config,) = load_mixed([str(file)], list(overrides))
    configs = [config] if isinstance(config, ExperimentConfig) else [each.config for each in config.variants]
    return [config.data.path for config in configs]


SWEEP = "kind: sweep\nname: s\nbase: {data: {name: npz, path: a.npz}}\n"


def test_a_path_in_a_config_is_relative_to_the_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative, here = Path("sub/a.npz"), Path("b.npz")
    write(relative)
    write(here)
    write(Path("sub/b.npz"))
    file = Path("sub/c.yaml")
    file.write_text("name: c\ndata: {name: npz, path: a.npz}\n")
    assert paths_of(file) == [str(relative)]
    assert paths_of(tmp_path / file) == [str(tmp_path / relative)]
    assert paths_of(file, "data.path=b.npz") == [str(here)], (
        "an override is relative to the working directory"
    )
    file.write_text("name: c\ndata: {name: npz, path: b.npz}\n")
    assert paths_of(file) == ["sub/b.npz"]
    file.write_text(SWEEP + "grid: {data.path: [a.npz, b.npz]}\n")
    assert paths_of(file) == ["sub/a.npz", "sub/b.npz"]
    file.write_text("kind: sweep\nname: s\nbase: base/e.yaml\ngrid: {train.lr: [0.1]}\n")
    Path("sub/base").mkdir()
    Path("sub/base/e.yaml").write_text("name: e\ndata: {name: npz, path: ../a.npz}\n")
    assert paths_of(file) == ["sub/base/../a.npz"]


def test_where_the_data_lie_changes_no_id(tmp_path):
    write(tmp_path / "a.npz")
    (tmp_path / "c.yaml").write_text("name: c\ndata: {name: npz, path: a.npz}\n")
    found = load_config(tmp_path / "c.yaml", [], ExperimentConfig)
    assert found.data.path == str(tmp_path / "a.npz")
    assert "path" not in found.identity_keys()["data"]


def test_weights_beside_a_config_are_found_and_names_of_runs_are_not_taken_for_files(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"")
    (tmp_path / "earlier").write_bytes(b"")
    for source, becomes in (
        ("w.safetensors", str(tmp_path / "w.safetensors")),
        ("earlier", "earlier"),
        ("elsewhere/w.pt", "elsewhere/w.pt"),
    ):
        (tmp_path / "c.yaml").write_text(f"name: c\ninit: {{scheme: {{name: pretrained, from: {source}}}}}\n")
        assert load_config(tmp_path / "c.yaml", [], ExperimentConfig).init.scheme.source == becomes


@pytest.mark.slow
def test_a_wheel_brings_its_configs_templates_and_data_files(tmp_path):
    source = tmp_path / "source"
    command = [
        "git",
        "ls-files",
        "initbench",
        "configs",
        "*.toml",
        "setup.py",
        "MANIFEST.in",
        "README.md",
        "LICENSE",
    ]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for file in listed:
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, source / file)
    command = [sys.executable, "-m", "pip", "wheel", str(source), "--no-deps", "-q", "-w", str(tmp_path)]
    subprocess.run(command, check=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    files = [file for file in listed if file.startswith(("initbench/", "configs/"))]
    expected = {f"initbench/{file}" if file.startswith("configs") else file for file in files}
    assert any(file.endswith(".py.template") for file in expected)
    assert expected <= names, expected - names
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    said = subprocess.run(
        [sys.executable, "-m", "initbench", "validate", "relu_kaiming", "ci", "01_symmetry"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == "relu_kaiming: ok\nci: ok\nsymmetry: ok\n"
    for template in ("own_model", "own_data", "ci", "lecture"):
        subprocess.run(
            [sys.executable, "-m", "initbench", "new", f"my_{template}", "--template", template],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
            check=True,
        )
        assert (tmp_path / f"my_{template}" / "README.md").is_file()
