"""Rows and statistics against values computed by hand."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stored_runs import only, stored

from initbench.analysis.metrics import METRICS
from initbench.analysis.run_summary import RunSummary
from initbench.analysis.stats.summary import summarise, summarise_geometric
from initbench.analysis.tables import build_tables


def test_no_runs_no_tables() -> None:
    assert build_tables([]) == []


def test_mean_and_standard_deviation_over_seeds() -> None:
    row = only(
        build_tables(
            [
                stored(seed=0, accuracies=(0.1, 0.9, 0.8), test=0.70, std=(1.0, 0.5, 0.2)),
                stored(seed=1, accuracies=(0.1, 0.6, 0.7), test=0.80, std=(2.0, 0.7, 0.4)),
                stored(seed=2, accuracies=(0.1, 0.2, 0.6), test=0.60, std=(3.0, 0.9, 0.9)),
            ]
        )
    )
    assert (row.n, row.diverged, row.unfinished) == (3, 0, 0)
    assert row.key == {"experiment": "a"}
    assert list(row.metrics) == list(METRICS)
    expected = {
        "act_std_init_first": [1.0, 2.0, 3.0],
        "act_std_init_middle": [0.5, 0.7, 0.9],
        "act_std_init_last": [0.2, 0.4, 0.9],
        "best_val_accuracy": [0.9, 0.7, 0.6],
        "final_val_accuracy": [0.8, 0.7, 0.6],
        "test_accuracy": [0.7, 0.8, 0.6],
    }
    for name, values in expected.items():
        assert row.metrics[name].mean == pytest.approx(statistics.mean(values)), name
        assert row.metrics[name].std == pytest.approx(statistics.stdev(values)), name
        assert row.metrics[name].n == 3


def test_one_seed_has_no_spread() -> None:
    row = only(build_tables([stored()]))
    assert all(summary.std is None for summary in row.metrics.values())
    assert row.metrics["test_accuracy"].mean == 0.7
    assert row.metrics["steps_to_target"].mean == 20


@pytest.mark.parametrize(("hidden", "middle"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (19, 10)])
def test_the_middle_layer_is_half_of_the_hidden_ones_rounded_up(hidden: int, middle: int) -> None:
    std = tuple(float(i) for i in range(1, hidden + 1))
    metrics = only(build_tables([stored(std=std, gradients=std)])).metrics
    found = [metrics[f"act_std_init_{where}"].mean for where in ("first", "middle", "last")]
    assert found == [1, middle, hidden]


def test_the_gradient_ratio_is_first_over_last_and_its_mean_geometric() -> None:
    runs = [stored(seed=0, gradients=(8.0, 5.0, 2.0)), stored(seed=1, gradients=(1.0, 5.0, 100.0))]
    ratio = only(build_tables(runs)).metrics["grad_ratio_init"]
    assert ratio.mean == pytest.approx(math.sqrt(4.0 * 0.01))
    assert ratio.std == pytest.approx(statistics.stdev([math.log(4.0), math.log(0.01)]))


@pytest.mark.parametrize("last", [0.0, None])
def test_a_gradient_that_is_not_there_has_no_ratio(last: float | None) -> None:
    assert only(build_tables([stored(gradients=(1.0, 1.0, last))])).metrics["grad_ratio_init"].mean is None


def test_a_gradient_of_zero_has_no_geometric_mean() -> None:
    runs = [stored(seed=0, gradients=(0.0, 1.0, 1.0)), stored(seed=1)]
    assert only(build_tables(runs)).metrics["grad_ratio_init"].mean is None


def test_a_net_without_hidden_layers_or_probe_has_no_statistics() -> None:
    for run in (stored(std=(), gradients=()), stored(when="train")):
        metrics = only(build_tables([run])).metrics
        assert metrics["act_std_init_first"].mean is None
        assert metrics["grad_ratio_init"].mean is None
        assert metrics["test_accuracy"].mean == 0.7


def test_numbers_that_are_not_finite_are_read_as_such() -> None:
    row = only(build_tables([stored(std=("Infinity", "NaN", 1.0), gradients=("NaN", 1.0, 1.0))]))
    assert row.metrics["act_std_init_first"].mean == math.inf
    assert math.isnan(row.metrics["act_std_init_middle"].mean or 0.0)
    assert row.metrics["grad_ratio_init"].mean is None


def test_steps_to_the_target() -> None:
    runs = [stored(seed=0, accuracies=(0.1, 0.5, 0.8)), stored(seed=1, accuracies=(0.1, 0.3, 0.6, 0.9))]
    row = only(build_tables(runs, target=0.5))
    steps = row.metrics["steps_to_target"]
    assert (steps.mean, steps.std, row.reached) == (15, pytest.approx(statistics.stdev([10, 20])), 2)
    assert only(build_tables(runs, target=0.1)).metrics["steps_to_target"].mean == 0
    assert only(build_tables([runs[0]], target=0.8)).metrics["steps_to_target"].mean == 20, (
        "at least, not above"
    )


def test_a_target_that_some_runs_miss_has_no_mean() -> None:
    runs = [stored(seed=0, accuracies=(0.1, 0.5, 0.8)), stored(seed=1, accuracies=(0.1, 0.3, 0.6))]
    some = only(build_tables(runs, target=0.7))
    assert (some.metrics["steps_to_target"].mean, some.metrics["steps_to_target"].std) == (None, None)
    assert (some.reached, some.n) == (1, 2)
    none = only(build_tables(runs, target=0.95))
    assert (none.metrics["steps_to_target"].mean, none.reached) == (None, 0)


def test_the_default_target_is_nine_tenths_of_the_best_mean() -> None:
    runs = [
        stored("a", 0, accuracies=(0.1, 0.5, 0.8)),
        stored("a", 1, accuracies=(0.1, 0.5, 0.9)),
        stored("b", 0, accuracies=(0.1, 0.95, 0.2)),
        stored("b", 1, accuracies=(0.1, 0.2, 0.3)),
    ]
    (table,) = build_tables(runs)
    assert table.target == pytest.approx(0.9 * 0.85)
    assert [row.key["experiment"] for row in table.rows] == ["a", "b"], "the best first"
    assert build_tables(runs, target=0.3)[0].target == 0.3
    assert build_tables(runs, target=0.0)[0].target == 0.0, "zero is a target too"


def test_diverged_runs_are_counted_and_unfinished_ones_set_aside() -> None:
    runs = [
        stored(seed=0, accuracies=(0.1, 0.5, 0.8), std=(1.0, 1.0, 1.0)),
        stored(seed=1, accuracies=(0.1, 0.99), status="diverged", std=(3.0, 1.0, 1.0)),
        stored(seed=2, status="interrupted", std=(100.0, 1.0, 1.0)),
        stored(seed=3, status="failed"),
        stored(seed=4, status="running"),
        stored(seed=5, status="crashed"),
    ]
    row = only(build_tables(runs))
    assert (row.n, row.diverged, row.unfinished) == (2, 1, 4)
    assert row.metrics["act_std_init_first"].mean == 2.0, "the init of a diverged run counts"
    for name in ("best_val_accuracy", "final_val_accuracy", "test_accuracy"):
        assert row.metrics[name].n == 1
    assert row.metrics["best_val_accuracy"].mean == 0.8, "what a diverged run had reached does not"


def test_all_diverged() -> None:
    (table,) = build_tables([stored(status="diverged", seed=seed) for seed in (0, 1)])
    row = only([table])
    assert table.target is None
    assert (row.n, row.diverged, row.reached) == (2, 2, 0)
    assert row.metrics["test_accuracy"].mean is None
    assert row.metrics["steps_to_target"].mean is None


def test_only_unfinished_runs() -> None:
    row = only(build_tables([stored(status="running")]))
    assert (row.n, row.unfinished) == (0, 1)
    assert all(summary.mean is None for summary in row.metrics.values())


def test_data_of_one_name_and_other_contents_never_share_a_table() -> None:
    def on(fingerprint: str | None, accuracy: float, seed: int) -> RunSummary:
        identity = {"data": {"name": "npz", "fingerprint": fingerprint}} if fingerprint else None
        arm = f"arm-{fingerprint}"
        return stored(
            seed=seed, dataset="npz", arm=arm, accuracies=(0.1, accuracy), test=accuracy, identity=identity
        )

    found = build_tables([on("aaaa", 0.9, 0), on("bbbb", 0.5, 0), on("aaaa", 0.7, 1), on(None, 0.3, 0)])
    assert [(table.dataset, table.fingerprint) for table in found] == [
        ("npz", None),
        ("npz", "aaaa"),
        ("npz", "bbbb"),
    ]
    assert [only([table]).metrics["test_accuracy"].mean for table in found] == pytest.approx([0.3, 0.8, 0.5])
    assert [table.target for table in found] == pytest.approx([0.27, 0.72, 0.45])
    assert [only([table]).key for table in found] == [{"experiment": "a"}] * 3, "the table says the rest"


def test_data_sets_never_share_a_table_or_a_target() -> None:
    runs = [
        stored("a", dataset="mnist", accuracies=(0.1, 0.9)),
        stored("a", dataset="digits", accuracies=(0.1, 0.5), arm="other"),
    ]
    found = build_tables(runs)
    assert [(table.dataset, table.target) for table in found] == [
        ("digits", pytest.approx(0.45)),
        ("mnist", pytest.approx(0.81)),
    ]
    assert [only([table]).key for table in found] == [{"experiment": "a"}] * 2


def test_a_net_that_is_nothing_does_not_hide_the_rest() -> None:
    """A row without any number is last."""
    runs = [stored("aaa", status="diverged"), stored("zzz", accuracies=(0.1, 0.2))]
    assert [row.key["experiment"] for row in build_tables(runs)[0].rows] == ["zzz", "aaa"]


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20))
def test_summaries_are_those_of_the_standard_library(values: list[float]) -> None:
    summary = summarise([None, *values, None])
    assert summary.n == len(values)
    assert summary.mean == pytest.approx(statistics.mean(values), abs=1e-6)
    assert summary.std == pytest.approx(statistics.stdev(values), abs=1e-5)


@given(st.lists(st.floats(1e-12, 1e12), min_size=1, max_size=20))
def test_the_geometric_mean_is_that_of_the_standard_library(values: list[float]) -> None:
    assert summarise_geometric(values).mean == pytest.approx(statistics.geometric_mean(values))


def test_summaries_of_little() -> None:
    assert summarise([]) == summarise([None]) == summarise_geometric([])
    assert (summarise([]).mean, summarise([]).std, summarise([]).n) == (None, None, 0)
    assert (summarise([3.0]).mean, summarise([3.0]).std) == (3.0, None)
    assert summarise([math.inf, 1.0]).mean == math.inf
    for bad in (0.0, -1.0, math.nan, math.inf):
        assert (summarise_geometric([1.0, bad]).mean, summarise_geometric([1.0, bad]).std) == (None, None)


def test_one_training_under_two_names_counts_once() -> None:
    """Runs with equal arm and seed have the same numbers; a row of both would count each seed twice."""
    runs = [stored(name, seed, arm="same", test=0.5 + 0.1 * seed) for name in ("a", "b") for seed in range(3)]
    (row,) = build_tables(runs, by=["model.norm"])[0].rows
    assert (row.n, row.group.repeats) == (3, 3)
    assert row.metrics["test_accuracy"] == summarise([0.5, 0.6, 0.7])


def test_runs_of_one_seed_under_two_versions_of_the_code_all_have_their_value() -> None:
    runs = [stored("a", seed, arm=arm, test=0.5 + 0.1 * seed) for arm in ("old", "new") for seed in range(3)]
    (row,) = build_tables(runs, by=["model.norm"])[0].rows
    assert row.n == len(row.values["test_accuracy"]) == len(row.divergences) == 6
    assert sorted(row.values["test_accuracy"].values()) == pytest.approx([0.5, 0.5, 0.6, 0.6, 0.7, 0.7])
