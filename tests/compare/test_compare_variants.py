"""What sets rows of one name apart."""

from __future__ import annotations

from typing import Any

import pytest
from stored_runs import stored

from initbench.compare.rows import tables


def test_variants_of_one_name_are_rows_named_by_what_differs() -> None:
    deep = {"model": {"depth": 8, "norm": "none"}}
    runs = [
        stored("a", 0, arm="p"),
        stored("a", 1, arm="p"),
        stored("a", 0, arm="q", config={**deep, "notes": "other notes"}),
        stored("b", 0, arm="r", config=deep),
    ]
    (table,) = tables(runs)
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
    variants = [row.key["variant"] for row in tables(runs)[0].rows]
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
    found = [row.key.get("variant", {}) for row in tables(runs)[0].rows]
    assert sorted(found, key=repr) == sorted(expected, key=repr)


def test_the_data_set_is_a_component_too() -> None:
    runs = [
        stored(arm="p", config={"data": {"name": "mnist", "fallback": "digits"}}),
        stored(arm="q", config={"data": {"name": "digits"}}),
    ]
    found = [row.key["variant"] for row in tables(runs)[0].rows]
    assert {"data": "mnist"} in found, "what would have stood in changes nothing that was computed"
    assert {"data": "digits"} in found


def test_a_stand_in_of_an_earlier_version_is_named_as_the_set_that_was_used() -> None:
    """Its config was stored as it was asked for; rows by data set would hold digits against digits."""
    fallen_back = {"data": {"name": "mnist", "fallback": "digits"}}
    runs = [
        stored(arm="p", config=fallen_back, dataset_requested="mnist"),
        stored(arm="p", config={"data": {"name": "digits"}}),
    ]
    (table,) = tables(runs, by=["data"])
    assert [row.key for row in table.rows] == [{"data": "digits"}]
    assert [row.group.repeats for row in table.rows] == [1], "one training, told of twice"
