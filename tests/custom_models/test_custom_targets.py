"""Nets of the user for sequences and masks: the examples of docs/own_nets.md, and outputs that do not fit."""

from __future__ import annotations

import json
import math
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from initbench.models.model_factory import load_factory
from tests.plugins.test_plugins_page import BLOCK

WORDS = ("the", "cat", "sat", "on", "mat", "and", "dog", "ran", "after", "rain", "fell", "roof")


@pytest.fixture
def page(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The files of the page in the working directory, with small data and short trainings."""
    files = dict(BLOCK.findall((repository / "docs" / "own_nets.md").read_text(encoding="utf-8")))
    for name in ("gpt.py", "unet.py"):
        assert len([line for line in files[name].splitlines() if line]) <= 20
        (tmp_path / name).write_text(files[name], encoding="utf-8")
    gpt, unet = (yaml.safe_load(files[name]) for name in ("gpt.yaml", "unet.yaml"))
    assert len(gpt["grid"]["init.scheme"]) * len(gpt["grid"]["model.options.depth"]) == 8
    for name, config in (
        ("gpt", {"name": "gpt", "init": {"scheme": "as_built"}, **gpt["base"]}),
        ("unet", unet),
    ):
        small = {**config, "seeds": 1, "train": {**config["train"], "steps": 24}, "probe": {"batch": 16}}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(small), encoding="utf-8")
    drawn = random.Random(0)
    (tmp_path / "novel.txt").write_text(" ".join(drawn.choice(WORDS) for _ in range(1500)), encoding="utf-8")
    write_masks(tmp_path / "masks.npz")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield tmp_path
    load_factory(None)
    for name in ("gpt", "unet", "wrong"):
        sys.modules.pop(name, None)


def write_masks(path: Path) -> None:
    """Write images with a bright square, whose pixels are the mask."""
    stream, arrays = np.random.default_rng(0), {}
    for part, samples in (("train", 160), ("test", 40)):
        masks = np.zeros((samples, 16, 16), "float32")
        for mask in masks:
            row, column = stream.integers(0, 11, 2)
            mask[row : row + 5, column : column + 5] = 1.0
        noise = stream.normal(0.0, 0.3, (samples, 16, 16, 1)).astype("float32")
        arrays |= {f"x_{part}": noise + masks[..., None], f"y_{part}": masks}
    np.savez(path, **arrays)


def trained(initbench: Any, name: str) -> dict[str, Any]:
    said = initbench("run", f"{name}.yaml", "--model", f"{name}:make", "--json", "--quiet", "--device", "cpu")
    assert said.code == 0, said.err
    (run,) = json.loads(said.out)["runs"]
    return run


def test_a_gpt_learns_a_text(initbench: Any, page: Path) -> None:
    run = trained(initbench, "gpt")
    first, last = run["convergence"][0], run["convergence"][-1]
    letters = len(set((page / "novel.txt").read_text(encoding="utf-8")))
    assert abs(first["val_loss"] - math.log(letters)) < 1.0, "near chance, in nats per character"
    assert last["val_loss"] < first["val_loss"] - 0.5
    assert last["val_perplexity"] == pytest.approx(math.exp(last["val_loss"]), rel=1e-6)
    assert run["status"] == "finished"
    layers = run["snapshots"][0]["layers"]
    assert all("jacobian" not in layer for layer in layers), "there is one for each position"
    assert all(layer["grad"]["pre_q"] > 0.0 for layer in layers)


def test_a_unet_learns_masks(initbench: Any, page: Path) -> None:
    run = trained(initbench, "unet")
    first, last = run["convergence"][0], run["convergence"][-1]
    assert last["val_loss"] < 0.5 * first["val_loss"]
    assert last["val_iou"] > first["val_iou"]
    assert 0.0 <= run["final"]["test_iou"] <= run["final"]["test_f1"] <= 1.0, "the intersection is smaller"


@pytest.mark.parametrize(
    ("name", "layers", "problem"),
    [
        ("gpt", "nn.Embedding(vocabulary, 4), nn.Flatten(), nn.Linear(128, vocabulary)", "the logits of"),
        ("gpt", "nn.Linear(32, vocabulary)", "cannot take the samples, int64 of shape (B, 32)"),
        (
            "unet",
            "nn.Conv2d(1, 2, 3, padding=1)",
            "of shape (B, 2, 16, 16), and the outputs have shape (B, 16, 16)",
        ),
    ],
)
def test_outputs_that_do_not_fit_the_targets_are_refused(
    initbench: Any, page: Path, name: str, layers: str, problem: str
) -> None:
    code = f"from torch import nn\ndef make(input_shape, vocabulary=1):\n    return nn.Sequential({layers})\n"
    (page / "wrong.py").write_text(code, encoding="utf-8")
    said = initbench("run", f"{name}.yaml", "--model", "wrong:make", "--quiet", "--device", "cpu")
    assert said.code == 2
    assert problem in said.err
    assert "Traceback" not in said.err
