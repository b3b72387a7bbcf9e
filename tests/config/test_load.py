"""From files and overrides to a config, or to one error that tells everything that is wrong."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from initbench.config.loading import load_all, load_config, to_yaml
from initbench.errors import ConfigError

GOOD = "name: a\nmodel: {family: mlp, depth: 3}\n"


def test_faults_of_several_files_come_in_one_error(tmp_path, monkeypatch, config_model):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "relu_kaiming.yaml").write_text(GOOD)
    (tmp_path / "z.yaml").write_text("nam: a\nmodel: {family: mlp, depth: -1}\nmodel: 1\n")
    (tmp_path / "b.yaml").write_text("a: [\n")
    (tmp_path / "c.yaml").write_bytes(b"\xff")
    paths = [
        "z.yaml",
        "configs/relu_kaimin.yaml",
        "b.yaml",
        "configs",
        "nowhere/x.yaml",
        "c.yaml",
        "a\0b",
        "qqqqqqqq",
        "nope.yaml",
    ]
    with pytest.raises(ConfigError) as caught:
        load_all([*paths, "z.yaml"], ["notes=1", "oops"], config_model)
    assert str(caught.value).splitlines() == [
        "z.yaml:1:1: name: this key is required",
        "z.yaml:1:1: nam: unknown key; did you mean 'name'?",
        "z.yaml:2:29: model.depth: must be greater than 0, is -1",
        "z.yaml:3:1: model: duplicate key; it was first given on line 2",
        "configs/relu_kaimin.yaml: no such file; did you mean configs/relu_kaiming.yaml?",
        "b.yaml:2:1: the text ends where a value belongs",
        "configs: is a directory; name a config file",
        "nowhere/x.yaml: no such file: there is no folder nowhere",
        "c.yaml:1:1: is not UTF-8 text: byte 0xff",
        "a\0b: cannot be read: embedded null byte",
        "qqqqqqqq: no such file",
        "nope.yaml: no such file",
        "override notes=1: notes: must be text, not the number 1; write '1'",
        "override oops: 'oops' is not a key such as train.lr; write key=value",
    ]


def test_an_unreadable_file_says_why(tmp_path, monkeypatch, config_model):
    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(ConfigError, match=r"^secret.yaml: cannot be read: permission denied$"):
        load_config("secret.yaml", [], config_model)


def test_standard_input_is_a_file(monkeypatch, config_model):
    def feed(text):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text)))

    feed(GOOD.encode())
    assert load_config("-", ["notes=x"], config_model).notes == "x"
    feed(b"\xef\xbb\xbf" + GOOD.encode() + b"zz: 1\n")
    with pytest.raises(ConfigError, match=r"^<stdin>:3:1: zz: unknown key"):
        load_config("-", [], config_model)


def test_an_endless_file_is_read_to_the_limit(config_model):
    with pytest.raises(ConfigError, match="is larger than 1,048,576 bytes"):
        load_config("/dev/zero", [], config_model)


def test_files_and_overrides_make_a_config(tmp_path, config_model):
    (tmp_path / "a.yaml").write_text("name: a\nmodel: {family: mlp, depth: 3, norm: group}\n")
    (tmp_path / "b.yaml").write_text(GOOD.replace("name: a", "name: b"))
    one, two = load_all(
        [tmp_path / "a.yaml", tmp_path / "b.yaml"],
        ["model.depth=5", "train.lr=1e-3", "train.betas=[0.5, 0.6]", "head={name: group, sizes: [1, 2]}"],
        config_model,
    )
    assert (one.name, two.name) == ("a", "b")
    assert (one.model.norm.num_groups, one.model.depth, two.model.depth) == (8, 5, 5)
    assert (one.train.lr, one.train.betas, one.head.sizes) == (0.001, (0.5, 0.6), (1, 2))


def test_the_resolved_config_is_laid_out_for_reading(tmp_path, config_model):
    (tmp_path / "a.yaml").write_text(
        GOOD + "notes: |\n  Look at φ′:\n    twice\n\n  # 1\ntrain: {lr: 1e-5, gain: auto}\n"
    )
    config = load_config(tmp_path / "a.yaml", ["seeds=[1, 2]", "head=batch"], config_model)
    assert to_yaml(config) == (
        "name: a\n"
        "notes: |\n  Look at φ′:\n    twice\n\n  # 1\n"
        "seeds: [1, 2]\n"
        "model:\n  family: mlp\n  depth: 3\n  norm: batch\n  activation: relu\n"
        "head: batch\n"
        "train:\n  lr: 1.0e-05\n  steps: null\n  epochs: null\n  nesterov: false\n  gain: auto\n"
        "  betas: [0.9, 0.999]\n  by_layer: {}\n"
    )


class Anything(BaseModel):
    text: str
    number: float
    inside: dict[str, list[str | float | bool | None]]


TEXT = st.one_of(
    st.text(max_size=30),
    st.text(st.sampled_from("ab \n\t#:-'\"|>&*!%@`{}[],?\u2028\x85é"), max_size=20),
    st.from_regex(r"[-+]?[0-9_.:]*[eE]?[-+]?[0-9]+", fullmatch=True),
    st.sampled_from(
        [
            "y",
            "n",
            "no",
            "on",
            "null",
            "~",
            "010",
            "0o17",
            "1e5",
            "1e-5",
            "12:30",
            "2020-01-01",
            "<<",
            "=",
            ".inf",
            "|",
        ]
    ),
)


@given(
    TEXT,
    st.floats(allow_nan=False),
    st.dictionaries(TEXT, st.lists(TEXT | st.floats(allow_nan=False) | st.none())),
)
@example("\n", 1e-5, {})
@example(" a\n b", 1e22, {"": [""]})
@example("a\n", 5e-324, {"a\nb": ["c\nd"]})
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_reads_back_here_and_in_yaml_1_1(tmp_path, text, number, inside):
    config = Anything(text=text, number=number, inside=inside)
    file = tmp_path / "a.yaml"
    file.write_bytes(to_yaml(config).encode())
    assert load_config(file, [], Anything) == config
    assert Anything.model_validate(yaml.safe_load(file.read_bytes()), strict=True) == config
