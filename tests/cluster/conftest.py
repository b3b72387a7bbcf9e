"""A small sweep in a folder whose name needs quotes, and the programs of a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster_programs import programs  # noqa: F401

SWEEP = """\
kind: sweep
name: tiny
base: base.yaml
grid:
  init.scheme: [xavier_normal, kaiming_normal]
  model.depth: [2, 3]
seeds: 2
gates: ["mean(divergence_rate) > 0"]
"""
BASE = """\
kind: experiment
name: base
data: {name: digits}
model: {family: mlp, depth: 3, width: 16}
train: {steps: 6, batch_size: 32, lr: 0.05}
probe: {batch: 16, bins: 4}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with `configs/tiny.yaml` and its base."""
    path = tmp_path / "it's a $HOME %a"
    (path / "configs").mkdir(parents=True)
    (path / "configs" / "tiny.yaml").write_text(SWEEP, encoding="utf-8")
    (path / "configs" / "base.yaml").write_text(BASE, encoding="utf-8")
    monkeypatch.chdir(path)
    return path
