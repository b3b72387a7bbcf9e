"""The files of lessons: what they make, and everything wrong with one at its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError

from initbench.config.study import Lesson, Range
from initbench.errors import ConfigError, UnknownNameError
from initbench.study.load import bundled_lessons, load_lessons
from initbench.study.validate import hidden_layers

GOOD = """\
kind: lesson
name: tiny
question: Which learns?
base:
  seeds: 3
  data: {name: digits}
  model: {family: mlp, depth: 4, width: 16, norm: group}
  train: {steps: 10, lr: 0.05}
arms:
  xavier: {init.scheme: xavier_normal, model.norm.num_groups: 4}
  kaiming:
    init.scheme: kaiming_normal
    model.depth: 6
  plain:
claims:
  - says: Xavier halves it
    holds_if: xavier.slope(q@init) ≈ -0.693 within 0.1
show:
  - layers: [xavier, kaiming]
  - axes: [batch, group]
"""

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a lesson's file with some lines replaced; gives its path."""

    def made(*changes: tuple[str, str], name: str = "tiny", text: str = GOOD) -> str:
        for old, new in changes:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        path = tmp_path / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return made


def one(path: str, *overrides: str) -> Lesson:
    (found,) = load_lessons([path], overrides)
    return found


def faults(path: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_lessons([path], overrides)
    return [str(fault).replace(f"{path}:", "") for fault in caught.value.issues]


def test_arms_are_the_base_with_their_keys_laid_over_it(write: Write):
    xavier, kaiming, plain = (arm.config for arm in one(write()).variants)
    assert [config.name for config in (xavier, kaiming, plain)] == [
        "tiny.xavier",
        "tiny.kaiming",
        "tiny.plain",
    ]
    assert (xavier.init.scheme.name, xavier.model.norm.num_groups) == ("xavier_normal", 4)
    assert (kaiming.init.scheme.name, kaiming.model.depth, xavier.model.depth) == ("kaiming_normal", 6, 4)
    assert plain.model.norm.name == "group" and plain.seed_list == (0, 1, 2)


def test_overrides_hold_for_all_arms(write: Write):
    found = one(write(), "model.depth=5", "seeds=2")
    assert {(arm.config.model.depth, arm.config.seed_list) for arm in found.variants} == {(5, (0, 1))}


def test_seeds_from_another_one_on(write: Write):
    tune = ("claims:", "tune:\n  train.lr: [0.1, 0.2]\n  seeds: 2\nclaims:")
    found = one(write(tune))
    assert [c.seed_list for c in found.variants[0].candidates] == [(3, 4)] * 2
    shifted = found.from_seed(10).variants[0]
    assert shifted.config.seed_list == (10, 11, 12)
    assert [c.seed_list for c in shifted.candidates] == [(13, 14)] * 2
    assert found.from_seed(0).variants[1].config.seed_list == (0, 1, 2)


def test_a_candidate_is_the_arm_under_one_value_and_is_not_probed(write: Write):
    tune = ("claims:", "tune:\n  train.lr: {log: [0.001, 1.0], points: 4}\n  seeds: 1\nclaims:")
    found = one(write(tune))
    assert [c.train.lr for c in found.variants[1].candidates] == [0.001, 0.01, 0.1, 1.0]
    assert {(c.name, c.model.depth, tuple(c.probe.when)) for c in found.variants[1].candidates} == {
        ("tiny.kaiming.tune", 6, ())
    }
    assert one(write(tune), "train.lr=0.3").tune is None
    assert [arm.config.train.lr for arm in one(write(tune), "train.lr=0.3").variants] == [0.3] * 3


def test_whole_numbers_are_tuned_as_such(write: Write):
    tune = ("claims:", "tune:\n  model.width: [16, 32]\nclaims:")
    assert [c.model.width for c in one(write(tune)).variants[0].candidates] == [16, 32]


def test_ranges():
    assert Range(log=[0.01, 1.0], points=3).numbers() == [0.01, 0.1, 1.0]
    assert Range(linear=[0.0, 1.0], points=5).numbers() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert Range.model_validate([3.0, 1.0]).numbers() == [1.0, 3.0]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("name: tiny", "name: other", "2:7: name: must be that of the file, 'tiny'"),
        ("lr: 0.05", "lr: -1", "8:26: base.train.lr: must be at least 0, is -1"),
        ("depth: 4", "depht: 4", "7:24: base.model.depht: unknown key; did you mean 'depth'?"),
        ("xavier_normal,", "xavier_norml,", "10:25: arms.xavier.init.scheme: unknown init scheme"),
        ("num_groups: 4", "num_groups: 3", "10:63: arms.xavier.model.norm.num_groups: "),
        (
            "    model.depth: 6",
            "    model.depth: six",
            "13:18: arms.kaiming.model.depth: must be a whole number",
        ),
        (
            "    model.depth: 6",
            "    train.steps.x: 6",
            "13:5: arms.kaiming.train.steps.x: train.steps is the number",
        ),
        ("    model.depth: 6", "    name: six", "13:5: arms.kaiming.name: belongs to the lesson"),
        (
            "    model.depth: 6",
            "    'model depth': 6",
            "13:5: arms.kaiming.model depth: 'model depth' is not a key",
        ),
        ("  plain:", "  2nd: {}", "14:3: arms.2nd: a name of an arm begins with a letter"),
        ("  plain:", "  before: {}", "14:3: arms.before: 'before' is taken"),
        ("  seeds: 3", "  notes: x", "5:3: base.notes: belongs to the lesson"),
        (
            "xavier.slope",
            "xaver.slope",
            "17:15: claims.0.holds_if: column 1: unknown arm 'xaver'; did you mean",
        ),
        ("slope(q@", "slope(qq@", "17:15: claims.0.holds_if: column 14: unknown statistic of a layer 'qq'"),
        (" within 0.1", "", "17:15: claims.0.holds_if: column 30: expected"),
        (
            "xavier.slope(q@init)",
            "layer[9].q@init",
            "17:15: claims.0.holds_if: column 1: there is no layer 9",
        ),
        (
            "xavier.slope(q@init)",
            "xavier.layer[4].q@init",
            "column 1: there is no layer 4: the deepest net has 3",
        ),
        ("xavier.slope(q@init)", "before.xavier.test_accuracy", "before. has no meaning here"),
        ("  - says: Xavier halves it\n", "  - says: ''\n", "16:11: claims.0.says: must have at least 1"),
        (
            "[xavier, kaiming]",
            "[xavier, plane]",
            "19:22: show.0.layers.1: unknown arm 'plane'; did you mean 'plain'",
        ),
        ("[batch, group]", "[bach]", "20:12: show.1.axes.0: unknown norm 'bach'"),
        ("  - axes", "  - curves: [xavier]\n    axes", "20:5: show.1: give one of layers, curves and axes"),
        (
            "claims:",
            "tune: {train.lr: [0.1, 0.2], train.momentum: [0.1, 0.2]}\nclaims:",
            "15:7: tune: takes one key",
        ),
        ("claims:", "tune: {train.lrr: [0.1, 0.2]}\nclaims:", "15:8: tune.train.lrr: unknown key"),
        (
            "claims:",
            "tune: {train.lr: {log: [0, 1], points: 3}}\nclaims:",
            "tune.train.lr.log: needs 0 < low < high",
        ),
        ("claims:", "tune: {train.lr: {log: [0.1, 1]}}\nclaims:", "log and linear need points"),
        (
            "claims:",
            "tune: {train.lr: [0.1, 0.2], select: grad_ratio_init}\nclaims:",
            "15:38: tune.select: grad_ratio_init cannot be tuned for; choose from",
        ),
        (
            "claims:",
            "tune: {model.depth: [2, 3]}\nclaims:",
            "13:5: arms.kaiming.model.depth: is tuned for each arm",
        ),
    ],
)
def test_what_is_wrong_is_told_at_its_place(write: Write, old: str, new: str, fault: str):
    found = faults(write((old, new)))
    assert any(fault in one for one in found), found
    assert len(found) == 1, found


def test_all_faults_at_once_in_the_order_of_the_file(write: Write):
    path = write(("lr: 0.05", "lr: -1"), ("  plain:", "  plain: {train.lr: 1}"), ("q@init", "q@start"))
    found = faults(path, "model.width=0")
    assert [one.partition(": ")[0] for one in found] == ["8:26", "17:15", "override model.width=0"]
    assert found[0].endswith("(in arms xavier, kaiming)"), "the last arm has a value of its own"


def test_names_and_paths(write: Write):
    assert one(write(name="07_tiny")).name == "tiny", "a number in front orders the files"
    with pytest.raises(UnknownNameError, match="unknown lesson 'tinny'"):
        load_lessons(["tinny"])


def test_experiments_and_lessons_are_told_apart(initbench: Any, write: Write, repository: Path):
    experiment = repository / "configs" / "relu_kaiming.yaml"
    said = initbench("validate", write(), experiment)
    assert (said.code, said.out) == (0, "tiny: ok\nrelu_kaiming: ok\n")
    said = initbench("run", write())
    assert said.code == 2 and "is no experiment but a lesson; use: initbench lesson" in said.err
    said = initbench("lesson", experiment)
    assert said.code == 2 and "is no lesson but an experiment; use: initbench run" in said.err


def test_the_json_schema_takes_lessons(write: Write):
    from initbench.config.json_schema import json_schema

    validator = Draft202012Validator(json.loads(json_schema()))
    good = yaml.safe_load(GOOD)
    validator.validate({**good, "arms": {"a": {}}, "tune": {"train.lr": [0.1, 0.2]}})
    for wrong in ({"claims": []}, {"base": {"name": "x"}}, {"tune": {"train.lr": 3}}, {"questions": "x"}):
        with pytest.raises(ValidationError):
            validator.validate({**good, "arms": {"a": {}}, **wrong})


def test_hidden_layers_are_counted_without_drawing_a_net(make_config: Any):
    assert hidden_layers(make_config(model={"depth": 7})) == 6


def test_the_shipped_lessons_have_sources_and_notes():
    found = bundled_lessons()
    assert len(found) > 15
    for path in found.values():
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert data["source"] and data["notes"], path
