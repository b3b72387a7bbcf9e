"""Runs whose files were deleted, cut or never were what they claim: found out, named, trained again."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from records import FINAL, RECORD, line, snapshot

from initbench.errors import StoreError
from initbench.store.store import Store

CONFIG = "name: relu\n"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


def put(store: Store, run_id: str, **updates: object) -> None:
    with store.claim(run_id, RECORD, CONFIG) as run:
        run.finish(updates)


def spoil(path: Path, how: str) -> None:
    match how:
        case "deleted":
            path.unlink()
        case "emptied":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("how", ["deleted", "emptied", "cut"])
@pytest.mark.parametrize("name", ["config.yaml", "metrics.jsonl", "layers.jsonl", "weights.safetensors"])
@pytest.mark.parametrize("status", ["finished", "diverged"])
def test_a_run_that_lost_a_file_is_crashed_and_trained_again(
    store: Store, name: str, how: str, status: str
) -> None:
    def train() -> None:
        with store.claim("a", RECORD, CONFIG) as run:
            run.append_convergence(line())
            run.append_snapshot(snapshot())
            run.finish({"status": status, "final": FINAL}, weights=b"weights")

    train()
    assert store.status("a") == status
    spoil(store.root / "a" / name, how)
    assert store.status("a") == "crashed"
    (record,) = store.records()
    assert (record["status"], record["final"]) == ("crashed", None)
    assert name in record["error"]
    assert store.read("a").record == record
    Store(store.root).recover()
    train()
    assert store.status("a") == status


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"files": {}}', '{"files": {"run.json": {}}}', "[" * 10**5]
)
def test_a_damaged_manifest_vouches_for_nothing(store: Store, text: str) -> None:
    put(store, "a")
    (store.root / "a" / "manifest.json").write_text(text)
    assert store.status("a") == "crashed"
    assert store.read("a").record["error"] == "manifest.json is damaged"
    assert store.verify("a") == ["manifest.json is damaged"]


def test_a_rerun_that_lost_a_file_never_takes_the_place_of_a_whole_run(store: Store) -> None:
    put(store, "a", answer=1)
    put(store, "b", answer=2)
    rerun = store.root / ".a.rerun"
    (store.root / "b").rename(rerun)
    (rerun / "config.yaml").unlink()
    store.recover()
    assert store.read("a").record["answer"] == 1
    assert not rerun.exists()


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("experiment", None, "experiment is not a string"),
        ("seed", "0", "seed is not an integer"),
        ("seed", True, "seed is not an integer"),
        ("arm", ..., "arm is missing"),
        ("config", {"model": {}}, "config.model.family is missing"),
        ("config", [], "config is not a mapping"),
        ("final", {"val_accuracy": 0.5}, "final.test_accuracy is missing"),
        ("final", {"val_accuracy": "high", "test_accuracy": 1}, "final.val_accuracy is not a number"),
        ("diverged", {"step": 3}, "diverged.layer is missing"),
        ("diagnosis", [{"code": "dead"}], "diagnosis[0].message is missing"),
    ],
)
def test_a_record_that_lacks_something_is_damaged(
    store: Store, key: str, value: object, problem: str
) -> None:
    put(store, "whole")
    put(store, "a", final=FINAL)
    path = store.root / "a" / "run.json"
    record = json.loads(path.read_text())
    record = {k: v for k, v in {**record, key: value}.items() if v is not ...}
    path.write_text(json.dumps(record))
    assert store.status("a") == "damaged"
    assert sorted(r["status"] for r in store.records()) == ["damaged", "finished"]
    with pytest.raises(StoreError, match=re.escape(f"{path} is damaged: {problem}")):
        store.read("a")
    put(store, "a")
    assert store.status("a") == "finished", "it is trained again"


def with_theory(theory: dict[str, Any]) -> str:
    layer = {"index": 1, "pre": {"q": 1.0}, "act": None, "grad": {"pre_q": 1.0}, "theory": theory}
    return json.dumps({"when": "init", "layers": [layer]})


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("metrics.jsonl", "{}", "line 2: step is missing"),
        ("metrics.jsonl", "[]", "line 2: the top level is not a mapping"),
        ("metrics.jsonl", '{"step": 1, "train_loss": "x"}', "line 2: train_loss is not a number"),
        ("layers.jsonl", '{"when": "end"}', "line 2: layers is missing"),
        ("layers.jsonl", '{"when": "end", "layers": [{"index": 1}]}', "line 2: layers[0].pre is missing"),
        ("layers.jsonl", with_theory({"q": 1.0}), "line 2: layers[0].theory.q is not a mapping"),
        (
            "layers.jsonl",
            with_theory({"q": {"value": 1.0, "sd": "x", "trusted": True}}),
            "line 2: layers[0].theory.q.sd is not a number",
        ),
        (
            "layers.jsonl",
            with_theory({"bias": {"shift": 0.0}}),
            "line 2: layers[0].theory.bias.half_width is missing",
        ),
    ],
)
def test_a_line_that_lacks_something_is_a_plain_error(
    store: Store, name: str, text: str, problem: str
) -> None:
    with store.claim("a", RECORD, CONFIG) as run:
        run.append_convergence(line())
        run.append_snapshot(snapshot())
    path = store.root / "a" / name
    path.write_text(path.read_text() + text + "\n")
    with pytest.raises(StoreError, match=re.escape(f"{path} is damaged: {problem}")):
        store.read("a")


def test_a_damaged_line_is_a_plain_error(store: Store) -> None:
    put(store, "a")
    (store.root / "a" / "layers.jsonl").write_text("{]\n")
    with pytest.raises(StoreError, match=r"layers\.jsonl is damaged"):
        store.read("a")


def layers_with(histogram: dict[str, object] | None, section: str) -> list[dict[str, Any]]:
    layer: dict[str, Any] = {"index": 1, "pre": {"q": 1.0}, "act": None, "grad": {"pre_q": 1.0}}
    second = {**layer, "index": 2, section: {**layer[section], "histogram": histogram}}
    return [layer, layer | {"index": 2} if histogram is None else second]


SCALED = {"span": [-4.0, 4.0], "counts": [1, 2], "below": 0, "above": 1, "nan": 0}


@pytest.mark.parametrize("section", ["pre", "grad"])
@pytest.mark.parametrize("histogram", [None, SCALED, {**SCALED, "span": [0.0, 0.0]}])
def test_layers_are_read_with_and_without_histograms(store: Store, histogram: Any, section: str) -> None:
    """Runs of earlier versions have histograms of activations only."""
    written = snapshot(layers=layers_with(histogram, section))
    with store.claim("a", RECORD, CONFIG) as run:
        run.append_convergence(line())
        run.append_snapshot(written)
        run.finish({})
    assert store.read("a").snapshots == [written]


@pytest.mark.parametrize("section", ["pre", "grad"])
@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"span": None}, "layers[1].{}.histogram.span is not a list of numbers"),
        ({"span": [0.0]}, "layers[1].{}.histogram.span is not a lower and an upper end"),
        ({"span": [1.0, -1.0]}, "layers[1].{}.histogram.span is not a lower and an upper end"),
        ({"counts": ["x"]}, "layers[1].{}.histogram.counts is not a list of numbers"),
        ({"below": -1}, "layers[1].{}.histogram.below is not an integer ≥ 0"),
        ({"nan": 0.5}, "layers[1].{}.histogram.nan is not an integer ≥ 0"),
    ],
)
def test_an_invalid_histogram_of_a_layer_is_a_plain_error(
    store: Store, changes: dict[str, Any], problem: str, section: str
) -> None:
    with store.claim("a", RECORD, CONFIG) as run:
        run.append_convergence(line())
        run.append_snapshot(snapshot(layers=layers_with({**SCALED, **changes}, section)))
    with pytest.raises(StoreError, match=re.escape("line 1: " + problem.format(section))):
        store.read("a")


def test_the_histograms_of_a_snapshot_have_the_same_bins(store: Store) -> None:
    layers = layers_with(SCALED, "pre")
    layers[1]["grad"] = {"pre_q": 1.0, "histogram": {**SCALED, "counts": [1, 2, 3]}}
    with store.claim("a", RECORD, CONFIG) as run:
        run.append_convergence(line())
        run.append_snapshot(snapshot(layers=layers))
    with pytest.raises(StoreError, match="line 1: layers have histograms with different numbers of bins"):
        store.read("a")
