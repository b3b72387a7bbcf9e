"""Labels that distinguish rows of the same name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from stored_runs import stored

from initbench.analysis.baseline import find_row
from initbench.analysis.tables import build_tables


def test_variants_of_one_name_are_rows_named_by_what_differs() -> None:
    deep = {"model": {"depth": 8, "norm": "none"}}
    runs = [
        stored("a", 0, arm="p"),
        stored("a", 1, arm="p"),
        stored("a", 0, arm="q", config={**deep, "notes": "other notes"}),
        stored("b", 0, arm="r", config=deep),
    ]
    (table,) = build_tables(runs)
    keys = [row.key for row in table.rows]
    assert {"experiment": "a", "variant": {"model.depth": 4}} in keys
    assert {"experiment": "a", "variant": {"model.depth": 8}} in keys
    assert {"experiment": "b"} in keys
    assert [row.n for row in table.rows if row.key.get("variant") == {"model.depth": 4}] == [2]


def test_another_code_or_torch_is_a_variant_too() -> None:
    runs = [
        stored(arm="p", identity={"torch": "2.1", "code": "aa"}),
        stored(arm="q", identity={"torch": "2.2", "code": "aa"}),
    ]
    variants = [row.key["variant"] for row in build_tables(runs)[0].rows]
    assert sorted(variant["with.torch"] for variant in variants) == ["2.1", "2.2"]
    assert all(variant.keys() == {"with.torch"} for variant in variants)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (
            {"norm": "none"},
            {"norm": {"name": "group", "num_groups": 2}},
            [{"model.norm": "none"}, {"model.norm": "group", "model.norm.num_groups": 2}],
        ),
        (
            {"activation": "relu"},
            {"activation": {"name": "leaky_relu", "negative_slope": 0.1}},
            [
                {"model.activation": "relu"},
                {"model.activation": "leaky_relu", "model.activation.negative_slope": 0.1},
            ],
        ),
        (
            {"norm": {"name": "group", "num_groups": 2, "eps": 1e-5}},
            {"norm": {"name": "group", "num_groups": 4, "eps": 1e-5}},
            [{"model.norm.num_groups": 2}, {"model.norm.num_groups": 4}],
        ),
        ({"norm": "batch"}, {"norm": {"name": "batch"}, "width": None}, [{}, {}]),
        ({"gain": None}, {"gain": 2.0}, [{}, {"model.gain": 2.0}]),
    ],
)
def test_a_component_is_a_name_however_it_is_written(
    first: dict[str, Any], second: dict[str, Any], expected: list[dict[str, Any]]
) -> None:
    runs = [stored(arm="p", config={"model": first}), stored(arm="q", config={"model": second})]
    found = [row.key.get("variant", {}) for row in build_tables(runs)[0].rows]
    assert sorted(found, key=repr) == sorted(expected, key=repr)


def test_the_data_set_is_a_component_too() -> None:
    runs = [
        stored(arm="p", config={"data": {"name": "mnist", "fallback": "digits"}}),
        stored(arm="q", config={"data": {"name": "digits"}}),
    ]
    found = [row.key["variant"] for row in build_tables(runs)[0].rows]
    assert {"data": "mnist"} in found, "what would have stood in changes nothing that was computed"
    assert {"data": "digits"} in found


def test_a_stand_in_of_an_earlier_version_is_named_as_the_set_that_was_used() -> None:
    """The config was stored as requested; rows by data set would otherwise compare digits with digits."""
    fallen_back = {"data": {"name": "mnist", "fallback": "digits"}}
    runs = [
        stored(arm="p", config=fallen_back, dataset_requested="mnist"),
        stored(arm="p", config={"data": {"name": "digits"}}),
    ]
    (table,) = build_tables(runs, by=["data"])
    assert [row.key for row in table.rows] == [{"data": "digits"}]
    assert [row.group.repeats for row in table.rows] == [1], "one training, stored twice"


DAY, LATER = "2026-11-28T10:15:00+00:00", "2026-11-28T11:20:30+00:00"


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (
            [("0.1.0", "2026-11-28T10:15:00+00:00"), ("0.2.0", "2026-12-01T08:00:00+00:00")],
            ["initbench 0.1.0, runs of 2026-11-28", "initbench 0.2.0, runs of 2026-12-01"],
        ),
        (
            [("0.1.0", DAY), ("0.1.0", LATER)],
            [
                "initbench 0.1.0, runs of 2026-11-28 10:15",
                "initbench 0.1.0, runs of 2026-11-28 11:20",
            ],
        ),
        (
            [("0.1.0", DAY), ("0.1.0", DAY)],
            [
                "initbench 0.1.0, runs of 2026-11-28 10:15, code 0a0a0a",
                "initbench 0.1.0, runs of 2026-11-28 10:15, code 1a1a1a",
            ],
        ),
        ([("", DAY), ("", "2026-11-30T10:15:00+00:00")], ["runs of 2026-11-28", "runs of 2026-11-30"]),
        ([("0.1.0", ""), ("0.2.0", "")], ["initbench 0.1.0", "initbench 0.2.0"]),
    ],
)
def test_rows_of_two_versions_are_told_apart_by_version_and_date(
    states: list[tuple[str, str]], expected: list[str]
) -> None:
    runs = [
        replace(stored(arm=f"arm{i}", identity={"code": f"{i}a" * 5}), version=version, created=created)
        for i, (version, created) in enumerate(states)
    ]
    (table,) = build_tables(runs)
    assert sorted(row.label for row in table.rows) == [f"a ({words})" for words in expected]
    for i, words in enumerate(expected):
        by_hash = find_row(table, f"a with.code={f'{i}a' * 5}")
        assert by_hash is not None and by_hash is find_row(table, f"a ({words})")
        assert by_hash.key["variant"] == {"with.code": f"{i}a" * 5}, "documents keep the hash"


def test_days_of_several_runs_are_a_span_and_other_keys_stay() -> None:
    times = ["2026-11-28T10:00:00", "2026-11-30T10:00:00", "2026-12-02T10:00:00"]
    identities = [
        {"code": "old", "torch": "2.1"},
        {"code": "old", "torch": "2.1"},
        {"code": "new", "torch": "2"},
    ]
    runs = [
        replace(stored("a", i, arm=identity["code"], identity=identity), version="1.0", created=time)
        for i, (time, identity) in enumerate(zip(times, identities, strict=True))
    ]
    (table,) = build_tables(runs)
    assert sorted(row.label for row in table.rows) == [
        "a with.torch=2 (initbench 1.0, runs of 2026-12-02)",
        "a with.torch=2.1 (initbench 1.0, runs of 2026-11-28 to 2026-11-30)",
    ]
