"""`initbench.run`, `load_runs` and `compare` in Python."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from torch import nn

import initbench
from initbench.api import Runs
from initbench.errors import ConfigError, RunFailedError, UsageError
from initbench.render.html import html_table, preformatted_html

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
