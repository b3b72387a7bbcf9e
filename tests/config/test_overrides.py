"""key=value arguments: how they are distinguished from files, parsed, and merged into a config."""

from __future__ import annotations

import pytest

from initbench.config.overrides import Override, apply_overrides, parse_override, split_arguments
from initbench.errors import ConfigError


def faults(text):
    with pytest.raises(ConfigError) as caught:
        parse_override(text)
    return [str(fault) for fault in caught.value.issues]


def test_arguments_are_files_or_overrides(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd=name.yaml").write_text("")
    args = [
        "a.yaml",
        "train.lr=1",
        "configs/a=b.yaml",
        "odd=name.yaml",
        "-",
        "model..depth=3",
        "=x",
        "n" * 5000 + "=1",
    ]
    files, overrides = split_arguments(args)
    assert files == ["a.yaml", "configs/a=b.yaml", "odd=name.yaml", "-", "=x"]
    assert overrides == ["train.lr=1", "model..depth=3", "n" * 5000 + "=1"]


VALUES = [
    ("5", 5),
    ("1e-3", 0.001),
    ("true", True),
    ("no", "no"),
    ("12:30", "12:30"),
    ("", None),
    ("null", None),
    ('""', ""),
    ("'5'", "5"),
    ("[1, 2]", [1, 2]),
    ("[]", []),
    ("{name: zeros}", {"name": "zeros"}),
    ("{a: [x, {b: 1e-3}]}", {"a": ["x", {"b": 0.001}]}),
    (" 5 ", 5),
    ("a=b", "a=b"),
    ("a: b # c", "a: b # c"),
    ("*x", "*x"),
    ("!!str 1", "!!str 1"),
    ("look at depth, then at width", "look at depth, then at width"),
    ('"a,b"', "a,b"),
    ("a]", "a]"),
]


@pytest.mark.parametrize(("written", "value"), VALUES)
def test_values_follow_the_rules_of_the_files(written, value):
    override = parse_override(f"a.b={written}")
    assert override == Override(("a", "b"), value, f"a.b={written}")
    assert type(override.value) is type(value)


FAULTS = [
    ("a=010", "override a=010: a: ambiguous: YAML 1.1 reads 8, YAML 1.2 reads 10; write 10 or '010'"),
    ("a..b=1", "override a..b=1: 'a..b' is not a key such as train.lr; write key=value"),
    ("a.0=1", "override a.0=1: 'a.0' is not a key such as train.lr; write key=value"),
    ("depth", "override depth: 'depth' is not a key such as train.lr; write key=value"),
    ("a=[1, 2", "override a=[1, 2: a: a ',' or ']' is missing in the list"),
    ("a={b: 1, b: 2}", "override a={b: 1, b: 2}: a: duplicate key; it was first given on line 1"),
    ("a={b: !x 1}", "override a={b: !x 1}: a: the tag '!x' is not accepted; write the plain value"),
    ('a="x"\nb: 1', 'override a="x"\nb: 1: a: holds more than one value'),
    (
        "init.scheme=xavier_normal,kaiming_normal",
        "override init.scheme=xavier_normal,kaiming_normal: init.scheme: "
        "one value belongs here; to run each, use "
        "`initbench sweep FILE init.scheme=xavier_normal,kaiming_normal`; "
        "a list is written init.scheme=[xavier_normal,kaiming_normal]",
    ),
]


@pytest.mark.parametrize(("text", "line"), FAULTS)
def test_each_fault_names_the_override(text, line):
    assert faults(text) == [line]


@pytest.mark.parametrize("written", ["1,2", "1, 2", "[1],[2]", "{a: 1},{a: 2}", "relu, tanh", "1e-3,1e-2,"])
def test_several_values_point_to_sweep(written):
    assert "initbench sweep" in faults(f"a={written}")[0]


def test_a_path_is_no_deeper_than_a_file_may_be():
    assert faults(".".join("a" * 33) + "=1")[0].endswith("is nested deeper than 32 levels, the limit")


def laid(data, *texts):
    return apply_overrides(data, [parse_override(text) for text in texts])


@pytest.mark.parametrize(
    ("data", "texts", "merged"),
    [
        ({"a": 1}, ["a=2"], {"a": 2}),
        ({"a": 1}, ["b.c.d=2"], {"a": 1, "b": {"c": {"d": 2}}}),
        ({"a": None}, ["a.b=2"], {"a": {"b": 2}}),
        ({"norm": "group"}, ["norm.num_groups=8"], {"norm": {"name": "group", "num_groups": 8}}),
        ({"norm": {"name": "group", "num_groups": 8}}, ["norm=batch"], {"norm": "batch"}),
        ({}, ["norm=group", "norm.num_groups=8"], {"norm": {"name": "group", "num_groups": 8}}),
        ({}, ["norm.num_groups=8", "norm=group"], {"norm": "group"}),
        ({"a": 1}, ["a=2", "a=3"], {"a": 3}),
        ({"a": [1, 2]}, ["a=[3]"], {"a": [3]}),
        ({"a": {"b": 1, "c": 2}}, ["a.b=3"], {"a": {"b": 3, "c": 2}}),
    ],
)
def test_overrides_are_laid_over_data(data, texts, merged):
    assert laid(data, *texts) == merged


def test_the_data_and_the_override_stay_as_they_were():
    data, override = {"a": {"b": 1}}, parse_override("c={d: 1}")
    merged = apply_overrides(data, [override, parse_override("c.d=2"), parse_override("a.b=2")])
    assert merged == {"a": {"b": 2}, "c": {"d": 2}}
    assert data == {"a": {"b": 1}}
    assert override.value == {"d": 1}


def test_the_way_cannot_lead_through_numbers_or_lists():
    with pytest.raises(ConfigError) as caught:
        laid({"lr": 0.1, "seeds": [1]}, "lr.x=1", "seeds.x=1", "ok=1")
    assert [str(fault) for fault in caught.value.issues] == [
        "override lr.x=1: lr.x: lr is the number 0.1 and has no keys; replace it whole",
        "override seeds.x=1: seeds.x: seeds is a list and has no keys; replace it whole",
    ]
