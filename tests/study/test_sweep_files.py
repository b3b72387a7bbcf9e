"""The files of sweeps: the points they span, what these are called, and everything wrong at its place."""

from __future__ import annotations

import itertools
import json
import random
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from initbench.config import grid
from initbench.config.grid import (
    axes_of,
    count_points,
    equal_values,
    expand_axes,
    point_label,
    point_matches,
    point_name,
)
from initbench.config.json_schema import json_schema
from initbench.config.study import Sweep
from initbench.errors import ConfigError
from initbench.study.load import load_sweep

GOOD = """\
kind: sweep
name: tiny
base:
  seeds: 2
  data: {name: digits}
  model: {family: mlp, depth: 4, width: 16}
  train: {steps: 10, lr: 0.05}
grid:
  init.scheme: [xavier_normal, kaiming_normal]
  model.depth: [3, 4, 5]
zip:
  train.lr: [0.1, 0.01]
  train.batch_size: [64, 32]
exclude:
  - {init.scheme: xavier_normal, model.depth: 5}
include:
  - {init.scheme: {name: sparse, connections: 8}}
gates:
  - kaiming_normal_depth3_lr0.1_batch_size64 is no gate
"""
GATE = "kaiming_normal_depth3_lr0.1_batch_size64 is no gate"
NAMED = "'\"kaiming_normal_depth3_lr0.1_batch_size64\".final_val_accuracy < 0.5'"

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write the file with some lines replaced; gives its path."""

    def made(*changes: tuple[str, str], text: str = GOOD) -> str:
        for old, new in ((GATE, NAMED), *changes):
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        path = tmp_path / "tiny.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return made


def faults(path: str, *overrides: str, **options: bool) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_sweep(path, overrides, **options)
    return [str(fault).replace(f"{path}:", "") for fault in caught.value.issues]


def labels(sweep: Sweep) -> list[str]:
    return [point.label for point in sweep.variants]


def test_points_are_the_product_less_what_is_excluded_and_what_is_included(write: Write):
    sweep = load_sweep(write())
    assert len(sweep.variants) == 2 * 3 * 2 - 2 + 1 and sweep.excluded == 2
    first, last = sweep.variants[0], sweep.variants[-1]
    assert first.config.name == "tiny.xavier_normal_depth3_lr0.1_batch_size64"
    assert (first.config.train.lr, first.config.train.batch_size, first.config.model.depth) == (0.1, 64, 3)
    assert labels(sweep)[1] == "xavier_normal_depth3_lr0.01_batch_size32", "zip changes fastest"
    assert last.config.init.scheme.connections == 8 and last.label == "sparse_connections8"
    assert (last.config.model.depth, last.config.train.lr) == (4, 0.05), "laid over the base alone"
    assert all(point.config.seed_list == (0, 1) for point in sweep.variants)
    assert not [label for label in labels(sweep) if label.startswith("xavier_normal_depth5")]


def test_seeds_of_the_sweep_hold_at_every_point(write: Write):
    assert load_sweep(write(("zip:", "seeds: [4, 7]\nzip:"))).variants[3].config.seed_list == (4, 7)
    assert load_sweep(write(), ["seeds=3"]).variants[-1].config.seed_list == (0, 1, 2)
    assert load_sweep(write(), ["seeds=3,9"]).variants[-1].config.seed_list == (3, 9)


def test_the_command_line_makes_replaces_and_pins_axes(write: Write):
    sweep = load_sweep(write(), ["model.depth=7,8", "model.activation=tanh,relu", "train.steps=3"])
    assert len(sweep.variants) == 2 * 2 * 2 * 2 + 1
    assert {point.config.model.depth for point in sweep.variants[:-1]} == {7, 8}
    assert {point.config.train.steps for point in sweep.variants} == {3}
    pinned = load_sweep(write(), ["model.depth=4", "init.scheme=xavier_normal"])
    assert labels(pinned) == [
        "xavier_normal_depth4_lr0.1_batch_size64",
        "xavier_normal_depth4_lr0.01_batch_size32",
        "xavier_normal",
    ], "a pinned axis keeps its part of the names"
    assert set(labels(pinned)[:2]) < set(labels(load_sweep(write())))
    assert len(load_sweep(write(), ["train.lr=0.5"]).variants) == 2 * 3 * 2 - 2 + 1
    assert faults(write(), "train.lr=1,2,3") == [
        "override train.lr=1,2,3: zip: needs equally many values for each key: "
        "train.lr has 3, train.batch_size has 2"
    ]


def test_an_experiment_is_a_sweep_with_the_axes_of_the_command_line(repository: Path):
    path = str(repository / "configs" / "relu_kaiming.yaml")
    sweep = load_sweep(path, ["init.scheme={name: sparse},lsuv", "model.depth=10,20", "seeds=2"])
    assert [point.config.name for point in sweep.variants] == [
        f"relu_kaiming.{scheme}_depth{depth}" for scheme in ("sparse", "lsuv") for depth in (10, 20)
    ]
    alone = load_sweep(path)
    assert [point.config.name for point in alone.variants] == ["relu_kaiming"]


def test_a_sweep_is_renamed_with_all_its_points(write: Write, repository: Path):
    sweep = load_sweep(write(), ["name=other"])
    assert sweep.name == "other" and all(p.config.name.startswith("other.") for p in sweep.variants)
    sweep = load_sweep(str(repository / "configs" / "relu_kaiming.yaml"), ["name=other", "model.depth=2,3"])
    assert [p.config.name for p in sweep.variants] == ["other.depth2", "other.depth3"]
    (found,) = faults(write(), "name=a b")
    assert found.startswith("override name=a b: name: a sweep needs a name")


def test_the_base_may_be_a_file_beside(tmp_path: Path):
    (tmp_path / "base.yaml").write_text(
        "name: base\nnotes: n\nseeds: 3\ndata: {name: digits}\nmodel: {family: mlp}\n"
    )
    folder = tmp_path / "sweeps"
    folder.mkdir()
    path = folder / "s.yaml"
    path.write_text("kind: sweep\nname: s\nbase: ../base.yaml\ngrid: {model.depth: [2, 3]}\n")
    sweep = load_sweep(str(path))
    assert [point.config.name for point in sweep.variants] == ["s.depth2", "s.depth3"]
    assert sweep.variants[0].config.seed_list == (0, 1, 2) and sweep.variants[0].config.data.name == "digits"
    (tmp_path / "base.yaml").write_text("name: base\nmodel: {family: mlp}\ntrain:\n  lr: fast\n")
    assert faults(str(path)) == [
        f"{folder}/../base.yaml:4:7: train.lr: must be a number, not the text 'fast'"
    ]
    path.write_text("kind: sweep\nname: s\nbase: ../bas.yaml\n")
    (found,) = faults(str(path))
    assert found.startswith("3:7: base: ") and "did you mean" in found


def test_equal_points_run_once(write: Write):
    twice = (
        "  - {init.scheme: {name: sparse, connections: 8}}",
        "  - {model.depth: 4}\n  - {train.lr: 0.05}",
    )
    sweep = load_sweep(write(twice))
    assert sweep.same == {"lr0.05": "depth4"} and len(sweep.variants) == 11
    again = load_sweep(write(("[0.1, 0.01]", "[1, 1.0]"), ("[64, 32]", "[64, 64]")), ["model.depth=3"])
    assert [len(again.variants), len(again.same)] == [3, 2], "1 and 1.0 are one learning rate"


def test_every_fault_is_named_at_its_place(write: Write):
    path = write(
        ("name: tiny", "name: ti ny"),
        ("  seeds: 2\n", "  seeds: 2\n  notes: no\n"),
        ("[0.1, 0.01]", "[0.1, 0.01, 3]"),
        (NAMED, "'final_val_acuracy < 0.5'"),
    )
    assert [found.split(": ")[0] + " " + found.split(": ")[1] for found in faults(path)] == [
        "2:7 name",
        "5:3 base.notes",
        "13:3 zip",
    ]
    path = write(
        ("init.scheme: [xavier", "seeds: [1, 2]\n  init.scheme: [xavier"),
        ("{init.scheme: xavier_normal, model.depth: 5}", "{init.schem: xavier_normal, model.depth: 6}"),
        ("train.lr: [0.1", "model.depth: [0.1"),
    )
    assert faults(path) == [
        "9:3: grid.seeds: cannot be an axis: each point takes it from the sweep; set seeds at the top level",
        "13:3: zip.model.depth: is also a key of grid",
        "16:6: exclude.0.init.schem: is a key of neither grid nor zip",
        "16:46: exclude.0.model.depth: is none of the values that the key takes",
    ]


def test_gates_are_read_with_the_file(write: Write):
    assert load_sweep(write()).config.gates[0].startswith('"kaiming')
    (found,) = faults(write((NAMED, "final_val_acuracy < 0.5")))
    assert found.startswith("19:5: gates.0: column 1: ") and "final_val_accuracy" in found
    (found,) = faults(write(("depth3_lr0.1", "depth9_lr0.1")))
    assert "unknown row" in found and "did you mean 'kaiming_normal_depth" in found
    assert load_sweep(write(), ["model.depth=8,9"]).config.gates, "it is skipped at the end, with a message"


def test_a_point_that_cannot_be_built_is_named_with_its_key(write: Write):
    path = write(
        ("[3, 4, 5]", "[3, -4, 5]"), ("[xavier_normal, kaiming_normal]", "[xavier_normal, lsuv, foo]")
    )
    found = faults(path.replace("tiny.yaml", "tiny.yaml"))
    depth = next(one for one in found if "model.depth" in one)
    assert depth.startswith("10:20: model.depth: must be at least 1")
    assert "(in points xavier_normal_depth-4_lr0.1_batch_size64, " in depth and "and 3 more)" in depth
    assert any(one.startswith("9:38: init.scheme: unknown init scheme 'foo'") for one in found)


def test_skip_invalid_leaves_out_what_cannot_be_built_and_says_what(write: Write):
    path = write((NAMED, "final_val_accuracy < 0.5"), ("kaiming_normal]", "foo]"))
    sweep = load_sweep(path, skip_invalid=True)
    assert len(sweep.variants) == 5 and len(sweep.skipped) == 6
    assert {one.label.split("_")[0] for one in sweep.skipped} == {"foo"}
    assert sweep.skipped[0].faults[0].key == "init.scheme"
    assert faults(path, "model.width=0", skip_invalid=True)[-1].startswith(
        "override model.width=0: model.width"
    )


def test_points_of_a_tuned_sweep_have_candidates_on_fresh_seeds(write: Write):
    tune = "tune:\n  train.weight_decay: {log: [0.001, 0.1], points: 3}\n  seeds: 3\ngates:"
    sweep = load_sweep(write(("gates:", tune)))
    for point in sweep.variants:
        assert [c.train.weight_decay for c in point.candidates] == [0.001, 0.01, 0.1]
        assert {c.name for c in point.candidates} == {f"{point.config.name}.tune"}
        assert all(c.seed_list == (2, 3, 4) and c.probe.when == [] for c in point.candidates)
    assert load_sweep(write(("gates:", tune)), ["train.weight_decay=0.1"]).tune is None
    assert faults(write(("gates:", tune.replace("weight_decay", "lr")))) == [
        "12:3: zip.train.lr: is tuned for each point, under tune; leave it out here"
    ]


def test_too_many_points_are_refused_before_they_are_made(write: Write):
    many = ",".join(map(str, range(200)))
    assert faults(write(), f"model.width={many}", f"train.warmup_steps={many}") == [
        "9:3: grid: spans 480,000 points; the limit is 20,000"
    ]


@pytest.mark.parametrize("seed", range(30))
def test_grids_have_the_size_of_their_product_and_every_combination_once(seed: int):
    draw = random.Random(seed)
    grid = {f"k{i}": list(range(draw.randint(1, 4))) for i in range(draw.randint(0, 3))}
    length = draw.randint(1, 4)
    together = {f"z{i}": draw.sample(range(9), length) for i in range(draw.randint(0, 3))}
    axes = axes_of(grid, together)
    found = list(expand_axes(axes))
    expected = [
        dict(zip([*grid, *together], [*values, *step], strict=True))
        for values in itertools.product(*grid.values())
        for step in (zip(*together.values(), strict=True) if together else [()])
    ]
    assert found == expected and len(found) == count_points(axes)
    wanted = {key: draw.choice(values) for key, values in grid.items() if draw.random() < 0.5}
    left = [point for point in found if not point_matches(point, wanted)]
    share = len(found)
    for key in wanted:
        share //= len(grid[key])
    assert len(found) - len(left) == share


def test_values_mean_the_same_by_what_they_are():
    assert equal_values(1, 1.0) and equal_values({"a": [1]}, {"a": [1.0]}) and equal_values(None, None)
    assert (
        not equal_values(1, True)
        and not equal_values("1", 1)
        and not equal_values({"a": 1}, {"a": 1, "b": 2})
    )


@pytest.mark.parametrize(
    ("keys", "label"),
    [
        ({"init.scheme": "xavier_normal", "model.depth": 10}, "xavier_normal_depth10"),
        ({"train.lr": 1e-05, "model.bias": False}, "lr1e-05_bias_false"),
        ({"model.norm": "none", "init.gain": None}, "norm_none_gain_null"),
        ({"init.scheme": {"name": "sparse", "connections": 8}}, "sparse_connections8"),
        ({"data.classes": [0, 1]}, "classes0-1"),
        ({}, ""),
    ],
)
def test_labels_say_what_a_point_is(keys: dict[str, Any], label: str):
    assert point_label(keys) == label


def test_what_cannot_be_spelled_is_told_apart_by_a_hash():
    one, other = point_label({"data.path": "a/b"}), point_label({"data.path": "a b"})
    assert one != other and one.startswith("a-b-")


@pytest.mark.parametrize("seed", range(20))
def test_names_are_legal_short_and_different(seed: int):
    draw = random.Random(seed)
    letters = string.ascii_letters + string.digits + "._-/ äß"
    names = set()
    for i in range(50):
        text = "".join(draw.choices(letters, k=draw.choice([1, 5, 200]))) + str(i)
        names.add(point_name("sweep" * 12, point_label({"model.thing": text})))
    assert len(names) == 50
    for name in names:
        assert len(name) <= grid.LONGEST and name.isascii()
        assert set(name) <= set(string.ascii_letters + string.digits + "._-")


def test_the_schema_takes_what_is_taken(write: Write, repository: Path):
    schema = json.loads(json_schema())
    paths = [write(), *map(str, sorted((repository / "configs" / "sweeps").glob("*.yaml")))]
    for path in paths:
        jsonschema.validate(yaml.safe_load(Path(path).read_text()), schema)
    wrong = yaml.safe_load(Path(paths[0]).read_text()) | {"gird": {}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema)


def test_shipped_sweeps_are_valid(repository: Path):
    shipped = sorted((repository / "configs" / "sweeps").glob("*.yaml"))
    assert shipped
    for path in shipped:
        assert load_sweep(str(path)).variants, path


def test_other_commands_say_which_one_takes_it(write: Write, initbench: Callable[..., Any]):
    assert initbench("validate", write()).out == "tiny: ok\n"
    said = initbench("run", write())
    assert said.code == 2 and "is no experiment but a sweep; use: initbench sweep" in said.err
    said = initbench("lesson", write())
    assert said.code == 2 and "is no lesson but a sweep; use: initbench sweep" in said.err
