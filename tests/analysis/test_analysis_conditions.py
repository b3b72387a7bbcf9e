"""Runs under different data conditions are never averaged, and their rows say so."""

from __future__ import annotations

import pytest

from initbench.analysis.grouping import DEFAULT_CONDITIONS, data_conditions
from initbench.analysis.run_summary import flatten_keys
from initbench.analysis.tables import Table, build_tables
from initbench.data.dataset import DataOptions, ShiftOptions
from initbench.render.compare.display_options import View
from initbench.render.compare.layout import build_comparison_tables
from tests.analysis.stored_runs import stored

SHIFTED = {"brightness": 0.3, "translate": [2, 0], "noise": 0.0}
OTHERS = [
    {"whiten": "zca"},
    {"order": "sorted"},
    {"labelled": 100},
    {"label_noise": 0.2},
    {"shift": SHIFTED},
]


def run(experiment: str = "a", seed: int = 0, **data: object):
    options = DataOptions(name="digits", **data).model_dump(mode="json")
    return stored(experiment, seed, arm=repr(data), config={"data": options})


def labels(found: list[Table]) -> set[str]:
    (table,) = found
    return {row.label for row in table.rows}


def test_plain_values_are_the_defaults_of_the_config():
    shift = flatten_keys(ShiftOptions().model_dump(mode="json"), "data.shift")
    defaults = flatten_keys(DataOptions().model_dump(mode="json"), "data") | shift
    assert {key: defaults.get(key) for key in DEFAULT_CONDITIONS} == {
        **DEFAULT_CONDITIONS,
        "data.whiten_eps": 0.01,
    }
    assert data_conditions(run()) == DEFAULT_CONDITIONS


@pytest.mark.parametrize("data", OTHERS)
def test_rows_by_another_key_are_split_by_what_was_done_to_the_data(data):
    found = build_tables([run(), run(seed=1), run("b", **data)], by=["model.depth"])
    (table,) = found
    assert [row.n for row in sorted(table.rows, key=lambda row: row.n)] == [1, 2]
    key = next(iter(data))
    plain, special = sorted(labels(found), key=len)
    assert plain == "model.depth=4"
    assert special.startswith(f"model.depth=4 data.{key}")


def test_rows_by_another_key_say_nothing_where_all_data_are_alike():
    found = build_tables([run(whiten="zca"), run("b", 1, whiten="zca")], by=["model.depth"])
    assert labels(found) == {"model.depth=4"}
    assert found[0].by == ("model.depth",)


def test_a_run_from_before_there_were_conditions_is_a_plain_one():
    old = stored("a", 1, config={"data": {"name": "digits"}})
    assert labels(build_tables([run(), old], by=["model.depth"])) == {"model.depth=4"}
    split = build_tables([run(whiten="pca"), old], by=["model.depth"])
    assert labels(split) == {"model.depth=4", "model.depth=4 data.whiten=pca"}


def test_eps_of_whitening_sets_whitened_runs_apart():
    found = build_tables(
        [run(), run(seed=1, whiten="pca"), run(seed=2, whiten="pca", whiten_eps=0.1)], by=["model.depth"]
    )
    white = "model.depth=4 data.whiten=pca data.whiten_eps"
    assert labels(found) == {"model.depth=4", f"{white}=0.01", f"{white}=0.1"}


def test_eps_without_whitening_sets_nothing_apart():
    assert len(labels(build_tables([run(), run(seed=1, whiten_eps=0.5)], by=["model.depth"]))) == 1


def test_a_condition_that_was_asked_for_comes_once():
    found = build_tables([run(), run(seed=1, order="sorted")], by=["data.order"])
    assert labels(found) == {"data.order=shuffled", "data.order=sorted"}


def test_experiments_evaluated_on_other_data_share_a_table_and_their_rows_say_so():
    found = build_tables([run("plain"), run("moved", shift=SHIFTED), run("white", whiten="zca")])
    assert labels(found) == {
        "plain",
        "white",
        "moved data.shift.brightness=0.3 data.shift.translate=[2, 0]",
    }


def test_experiments_evaluated_on_the_same_data_are_called_by_their_names():
    assert labels(build_tables([run("plain"), run("white", whiten="zca")])) == {"plain", "white"}
    assert labels(build_tables([run("a", shift=SHIFTED), run("b", shift=SHIFTED)])) == {"a", "b"}
    assert labels(build_tables([run("a"), run("b", shift={})])) == {"a", "b"}


def test_two_keys_are_no_pivot_where_conditions_make_more_rows():
    by = ["model.depth", "model.norm"]
    for others, pivoted in (([], True), ([run("b", order="sorted")], False)):
        (block,) = build_comparison_tables(build_tables([run(), *others], by=by), View())
        assert ("↓" in block.headings[0]) == pivoted
