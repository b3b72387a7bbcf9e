"""Runs that are in no mean: counted by status, and damaged ones without a row named."""

from __future__ import annotations

from dataclasses import replace

import pytest
from compared import FACTS

from initbench.analysis.tables import build_tables
from initbench.errors import UsageError
from initbench.render.compare.display_options import View, check_together
from initbench.render.compare.output import render_comparison
from initbench.render.compare.run_counts import unattributed_runs


def test_each_status_is_counted_apart() -> None:
    states = ["damaged", "failed", "crashed", "interrupted", "running", "failed"]
    runs = [replace(FACTS[0], run_id=f"x{i}", seed=10 + i, status=status) for i, status in enumerate(states)]
    text = render_comparison(build_tables([*FACTS[:5], *runs]), View())
    said = "6 unfinished runs are not counted: 1 running, 1 interrupted, 1 crashed, 2 failed, 1 damaged."
    assert said in text


def test_damaged_runs_without_a_row_are_named_in_every_view() -> None:
    gone = replace(FACTS[0], run_id="a\nb", status="damaged", config={})
    (said,) = unattributed_runs([*FACTS, gone])
    assert said == "1 damaged run cannot be assigned to a row: a\\nb."
    assert unattributed_runs(FACTS) == []
    for view in (
        View(aside=[said]),
        View(aside=[said], only_changed=True),
        View(aside=[said], format="markdown"),
    ):
        assert "1 damaged run cannot be assigned to a row" in render_comparison(build_tables(FACTS), view)
    many = unattributed_runs([replace(gone, run_id=f"r{i}") for i in range(9)])
    assert many == ["9 damaged runs cannot be assigned to a row: r0, r1, r2, r3, r4, r5 and 3 more."]


@pytest.mark.parametrize(
    ("view", "said"),
    [
        (
            View(layers=True, only_changed=True),
            "--layers cannot be combined with --only-changed",
        ),
        (View(columns=("n",), metrics=("test_accuracy",)), "--columns cannot be combined with --metric"),
        (View(plot=True, layers=True), "--layers cannot be combined with --plot"),
        (View(view="activation", columns=("n",)), "--view cannot be combined with --columns"),
        (View(layers=True, metrics=("test_accuracy",)), "--metric cannot be combined with --layers"),
        (View(plot=True, baseline="kaiming"), "--baseline cannot be combined with --plot"),
    ],
)
def test_an_option_that_would_be_passed_over_is_refused(view: View, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_together(view)


def test_options_that_go_together() -> None:
    check_together(View(plot=True, metrics=("final_val_loss",)))
    check_together(View(columns=("n",), baseline="kaiming"))
    check_together(View(layers=True, baseline="kaiming", format="json"))
