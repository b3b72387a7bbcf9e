"""A sweep is named where runs are: in `compare`, `show`, `rm` and the Tab key's answers."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from initbench.store import sweep_index
from initbench.store.store import Store
from tests.cli.test_cli_strict import CODE, put

Initbench = Callable[..., Any]


@pytest.fixture
def swept(tmp_path: Path) -> Path:
    """Return a store with two experiments of the sweep `nets` and an unrelated one."""
    runs = tmp_path / "runs"
    for name in ("nets.relu", "nets.tanh", "nets_alone"):
        put(runs, name, range(2), seeds=2)
    points = {
        name: {
            "experiment": f"nets.{name}",
            "keys": {"model.activation": name},
            "runs": [f"nets.{name}-s{seed}-{CODE}" for seed in range(2)],
            "tuning_runs": [],
            "tuning": None,
        }
        for name in ("relu", "tanh")
    }
    sweep_index.add_points(runs, "nets", points)
    return runs


def test_compare_and_show_take_the_name_of_a_sweep(initbench: Initbench, swept: Path) -> None:
    (table,) = json.loads(initbench("compare", "nets", "--runs-dir", swept, "--json").out)["tables"]
    assert sorted(row["label"] for row in table["rows"]) == ["nets.relu", "nets.tanh"]
    shown = json.loads(initbench("show", "nets", "--runs-dir", swept, "--json").out)
    assert [run["experiment"] for run in shown["runs"]] == ["nets.relu"] * 2 + ["nets.tanh"] * 2


def test_an_experiment_of_the_name_comes_before_a_sweep(initbench: Initbench, swept: Path) -> None:
    put(swept, "nets", range(1), seeds=1)
    shown = json.loads(initbench("show", "nets", "--runs-dir", swept, "--json").out)
    assert [run["experiment"] for run in shown["runs"]] == ["nets"]


def test_rm_takes_the_name_of_a_sweep(initbench: Initbench, swept: Path) -> None:
    assert initbench("rm", "nets", "--yes", "--runs-dir", swept).code == 0
    assert {record["experiment"] for record in Store(swept).records()} == {"nets_alone"}
    assert initbench("rm", "nets", "--yes", "--runs-dir", swept).code == 2, "nothing of the sweep is left"


def test_layers_are_written_as_csv(initbench: Initbench, swept: Path, tmp_path: Path) -> None:
    file = tmp_path / "layers.csv"
    assert initbench("compare", "nets", "--layers", "-o", file, "--runs-dir", swept).code == 0
    lines = list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
    told = [(line["row"], line["layer"], line["moment"], line["n"], float(line["act_std"])) for line in lines]
    assert sorted(told) == [(row, "1", "init", "2", 0.5) for row in ("nets.relu", "nets.tanh")]


def test_histograms_are_bars_of_ascii_where_there_is_nothing_else() -> None:
    from initbench.render.text import sparkline

    counts = [0, 1, 2, 3, 4, 5, 6, 8]
    assert sparkline(counts) == "▁▁▂▃▄▅▆█"
    assert sparkline(counts, ascii_only=True) == "__.:-=+#"
    assert sparkline([0, 0], ascii_only=True) == "--------"


def test_notes_are_printed_when_they_are_asked_for(initbench: Initbench, swept: Path) -> None:
    short = initbench("compare", "nets", "--runs-dir", swept).out
    every = initbench("compare", "nets", "--runs-dir", swept, "--notes").out
    assert "; --notes for details" in short and "standard deviation" not in short
    assert "--notes for details" not in every and "± is the standard deviation over seeds" in every
