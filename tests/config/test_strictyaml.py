"""The strict YAML reader: scalars, positions, refusals, limits."""

from __future__ import annotations

import json
import math
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from initbench.config.yaml_reader import MAX_BYTES, REFUSED, parse_yaml

SCALARS = [
    ("null", None),
    ("~", None),
    ("", None),
    ("true", True),
    ("TRUE", True),
    ("False", False),
    ("0", 0),
    ("-0", 0),
    ("+12", 12),
    ("-7", -7),
    ("0x1F", 31),
    ("0o17", 15),
    ("1e-3", 0.001),
    ("1E5", 100000.0),
    (".5", 0.5),
    ("1.", 1.0),
    ("-1.5e+3", -1500.0),
    ("01.5", 1.5),
    (".inf", math.inf),
    ("-.INF", -math.inf),
    ("no", "no"),
    ("off", "off"),
    ("yes", "yes"),
    ("y", "y"),
    ("tRue", "tRue"),
    ("12:30", "12:30"),
    ("1_000", "1_000"),
    ("2020-01-02", "2020-01-02"),
    ("0b11", "0b11"),
    ("0X1F", "0X1F"),
    ("-0x1F", "-0x1F"),
    ("inf", "inf"),
    ("nan", "nan"),
    ("1e", "1e"),
    (".", "."),
    ("=", "="),
    ("'1'", "1"),
    ('"true"', "true"),
    ("''", ""),
    ("'010'", "010"),
    ("'<<'", "<<"),
]


@pytest.mark.parametrize(("written", "value"), SCALARS)
def test_scalars_follow_yaml_1_2(written, value):
    document = parse_yaml(f"a: {written}\n", "f.yaml")
    assert document.faults == []
    read = document.data["a"]
    assert (read, type(read)) == (value, type(value))


def test_nan_is_a_float():
    assert math.isnan(parse_yaml("a: .nan", "f.yaml").data["a"])


FAULTS = [
    ("a: 010", "f.yaml:1:4: a: ambiguous: YAML 1.1 reads 8, YAML 1.2 reads 10; write 10 or '010'"),
    (
        "a: -08",
        "f.yaml:1:4: a: ambiguous: YAML 1.1 reads the text '-08', YAML 1.2 reads -8; write -8 or '-08'",
    ),
    ("a: " + "9" * 101, "f.yaml:1:4: a: a whole number has at most 100 digits, this one has 101"),
    ("a: 1\nb: 2\na: 3", "f.yaml:3:1: a: duplicate key; it was first given on line 1"),
    ("a:\n  b: 1\n  b: 2", "f.yaml:3:3: a.b: duplicate key; it was first given on line 2"),
    ("a:\n  1: x", "f.yaml:2:3: a: a key must be text, not the number 1; put it in quotes"),
    ("true: x", "f.yaml:1:1: a key must be text, not true; put it in quotes"),
    ("? [1]\n: 2", "f.yaml:1:3: a key must be text, not a list"),
    ("? \n: 2", "f.yaml:1:2: a key must be text, not empty (null)"),
    ("a: &x {b: 1}\nc:\n  <<: *x", "f.yaml:3:3: c: the merge key '<<' is not accepted; write the keys out"),
    ("a: !!str 1", "f.yaml:1:4: a: the tag '!!str' is not accepted; write the plain value"),
    (
        "a: !!python/object/apply:os.system [ls]",
        "f.yaml:1:4: a: the tag '!!python/object/apply:os.system' is not accepted; write the plain value",
    ),
    ("a: 1\n---\nb: 1", "f.yaml:2:1: a second document starts here; a config file holds one"),
    ("a: 1\n...\nb: 1", "f.yaml:3:1: the document has ended above; a config file holds one"),
    ("", "f.yaml:1:1: is empty; a config is a mapping such as `kind: experiment`"),
    ("# only\n", "f.yaml:1:1: is empty; a config is a mapping such as `kind: experiment`"),
    ("--- ~", "f.yaml:1:5: is empty; a config is a mapping such as `kind: experiment`"),
    ("- 1", "f.yaml:1:1: must be a mapping, not a list; a config is a mapping such as `kind: experiment`"),
    ("a: [1, &x [*x]]", "f.yaml:1:12: a.1.0: the alias *x stands inside its own anchor"),
    ("a: *x", "f.yaml:1:4: a: the alias *x names no anchor before it"),
    ('a: "\\ud800"', "f.yaml:1:4: a: is not valid Unicode: it holds half of a surrogate pair"),
    ("a: " + "[" * 40 + "]" * 40, "f.yaml:1:36: is nested deeper than 32 levels, the limit"),
    ("x: &x 1\na: [" + "*x," * 101 + "]", "f.yaml:2:305: has more than 100 aliases, the limit"),
    ("a: 1\nb: '\x07'", "f.yaml:2:5: the character U+0007 is not allowed"),
    (b"a: 1\nb: \xff", "f.yaml:2:4: is not UTF-8 text: byte 0xff"),
    ("a: \ud800", "f.yaml:1:4: is not UTF-8 text: byte 0xed"),
    ("a:\n\tb: 1", "f.yaml:2:1: a tab stands here; YAML is indented with spaces"),
    ("a: b: c", "f.yaml:1:5: a ':' is not allowed here; check the indentation, or quote the text"),
    ("a: @x", "f.yaml:1:4: '@' cannot begin a value; put the text in quotes"),
    ("a: [1,\n  2\nb: 3", "f.yaml:3:2: a ',' or ']' is missing in the list (it begins on line 1)"),
    ("a: {b: 1", "f.yaml:1:9: a ',' or '}' is missing in the mapping"),
    ("a: 'x\n", "f.yaml:2:1: a quoted text is never closed (it begins on line 1)"),
    ('a: "\\UFFFFFFFF"', "f.yaml:1:7: an escape or number that cannot be read"),
    ("a: " + "x" * MAX_BYTES, "f.yaml:1:1: is larger than 1,048,576 bytes, the limit for a config"),
]


@pytest.mark.parametrize(("text", "line"), FAULTS, ids=range(len(FAULTS)))
def test_each_fault_has_its_place_and_words(text, line):
    assert [str(fault) for fault in parse_yaml(text, "f.yaml").faults] == [line]


def test_all_faults_are_gathered_and_the_rest_is_read():
    document = parse_yaml("a: 010\nb: {c: 1, c: 2, d: 3}\n1: x\ne: !!int 4\n", "f.yaml")
    assert [fault.where for fault in document.faults] == [
        "f.yaml:1:4", "f.yaml:2:11", "f.yaml:3:1", "f.yaml:4:4",
    ]  # fmt: skip
    assert document.readable
    assert document.data == {"a": REFUSED, "b": {"c": 1, "d": 3}, "e": REFUSED}


def test_positions_of_keys_values_and_items():
    positions = parse_yaml("a: 1\nb:\n  c:   x\n  d: [1,\n      22]\ne:\n", "f.yaml").positions
    assert (positions.key(("a",)), positions.value(("a",))) == ((1, 1), (1, 4))
    assert (positions.key(("b", "c")), positions.value(("b", "c"))) == ((3, 3), (3, 8))
    assert positions.value(("b",)) == (3, 3)
    assert positions.value(("b", "d", 1)) == (5, 7)
    assert positions.value(("e",)) == (6, 3)
    assert positions.key(("b", "x")) is None
    assert positions.key(("a", 0)) is None


def test_an_alias_stands_where_it_is_written_and_shares_nothing():
    document = parse_yaml("a: &x {k: [1]}\nb: *x\n", "f.yaml")
    document.data["b"]["k"].append(2)
    assert document.data["a"] == {"k": [1]}
    assert document.positions.value(("b",)) == (2, 4)
    assert document.positions.value(("b", "k")) == (1, 11)


def test_an_anchor_may_be_named_anew():
    assert parse_yaml("a: &x 1\nb: &x 2\nc: *x\n", "f.yaml").data["c"] == 2


def test_billion_laughs_are_refused_within_a_second():
    names = "abcdefghij"
    lines = ["a: &a [x,x,x,x,x,x,x,x,x]"]
    lines += [f"{c}: &{c} [{','.join([f'*{b}'] * 9)}]" for b, c in pairwise(names)]
    start = time.process_time()
    document = parse_yaml("\n".join(lines), "f.yaml")
    assert time.process_time() - start < 1.0
    assert [fault.problem for fault in document.faults] == [
        "aliases expand it beyond 1,048,576 characters, the limit"
    ]


def test_long_text_repeated_by_aliases_is_refused():
    text = "a: &a " + "x" * 200_000 + "\nb: [*a, *a, *a, *a, *a, *a]\n"
    assert "aliases expand it" in parse_yaml(text, "f.yaml").faults[0].problem


def test_aliases_cannot_nest_deeper_than_the_limit():
    text = "a: &a " + "[" * 20 + "]" * 20 + "\nb: " + "[" * 20 + "*a" + "]" * 20
    assert parse_yaml(text, "f.yaml").faults[0].problem == "is nested deeper than 32 levels, the limit"


YAML_LIKE = st.text(st.sampled_from("ab01 -:#,[]{}&*!|>'\"%@`\n\t\\.~<?=xuU_\ufeff\x85\u2028é"), max_size=60)


@given(st.one_of(YAML_LIKE, st.text(max_size=40), st.binary(max_size=40)))
@settings(max_examples=600, deadline=None)
def test_any_text_gives_data_or_faults(text):
    document = parse_yaml(text, "f.yaml")
    assert isinstance(document.data, dict)
    assert document.readable or document.faults
    assert all(fault.where.startswith("f.yaml:") and fault.problem for fault in document.faults)


# JSON escapes what lies beyond as two surrogates, which YAML does not know.
TEXT = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), max_size=9)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | FLOATS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(TEXT, PLAIN, min_size=1, max_size=3))
@settings(max_examples=150, deadline=None)
def test_what_json_writes_is_read_alike(data):
    """JSON is a part of YAML 1.2, so it is an independent writer for this reader."""
    document = parse_yaml(json.dumps(data), "f.yaml")
    assert document.faults == []
    assert document.data == data
