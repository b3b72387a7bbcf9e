"""Letters, verdicts and footnotes use one family and one test each, and never contradict each other."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from initbench.analysis.baseline import compare_to_baseline, find_row, letter_display
from initbench.analysis.stats.mean_difference import Method
from initbench.analysis.tables import Table, build_tables
from initbench.render.compare.display_options import View
from initbench.render.compare.output import render_comparison
from tests.analysis.stored_runs import stored

METRIC = "test_accuracy"


def table_of(rows: dict[str, list[float]], apart: frozenset[str] = frozenset()) -> Table:
    """Return a table of test accuracies; the rows in `apart` share no seeds with the others."""
    runs = [
        stored(name, seed + (100 if name in apart else 0), test=value, arm=name)
        for name, values in rows.items()
        for seed, value in enumerate(values)
    ]
    (table,) = build_tables(runs)
    return table


@pytest.mark.parametrize("seed", range(60))
def test_the_same_numbers_have_the_same_letters(seed: int) -> None:
    """A row with the same values gets the same letters, with shared or other seeds, in any order."""
    rng = random.Random(seed)
    n = rng.randint(2, 8)
    rows = {
        f"r{i}": [rng.choice([0.5, 0.52, 0.9]) + rng.choice([0, 0.01]) * rng.gauss(0, 1) for _ in range(n)]
        for i in range(rng.randint(2, 5))
    }
    rows["twin"] = list(rows["r0"])
    rng.shuffle(rows["twin"])
    table = table_of(rows, frozenset(["twin"] if seed % 2 else []))
    letters = letter_display(table, METRIC)
    assert letters["twin"] == letters["r0"]
    for other in (name for name in rows if name not in ("r0", "twin")):
        alone = letter_display(table_of({name: rows[name] for name in ("r0", other)}), METRIC)
        if alone["r0"] == alone[other]:
            assert set(letters["r0"]) & set(letters[other]), "a family of more pairs tells no more apart"


def test_rows_without_spread_share_letters_whatever_their_n() -> None:
    table = table_of({"many": [0.6] * 5, "few": [0.6] * 3, "far": [0.8, 0.81, 0.82, 0.83, 0.84]})
    letters = letter_display(table, METRIC)
    assert letters["many"] == letters["few"]


def test_a_column_is_of_one_test() -> None:
    rows = {name: [0.5 + i / 10 + s / 100 for s in range(4)] for i, name in enumerate("abc")}
    together, mixed = table_of(rows), table_of(rows, frozenset("c"))
    for table, methods in ((together, {Method.PAIRED, Method.SIGN}), (mixed, {Method.TOO_FEW_SHARED})):
        baseline = find_row(table, "a")
        assert baseline is not None
        found = {one.difference.method for one in compare_to_baseline(table, baseline, METRIC).values()}
        assert found <= methods | {Method.WELCH, Method.PERMUTATION} and len(found) == 1


@pytest.mark.parametrize("view", [View(), View(metrics=(METRIC,)), View(format="markdown")])
def test_no_letters_stand_beside_a_verdict(view: View) -> None:
    rows = {name: [0.5 + i / 50 + s / 100 for s in range(4)] for i, name in enumerate("abcd")}
    found = [table_of(rows)]
    assert "share a letter" in render_comparison(found, view)
    held = render_comparison(found, replace(view, baseline="a"))
    assert "share a letter" not in held and "letters" not in held.lower().replace("no letters", "")


def test_a_pivot_says_over_which_cells_its_letters_run() -> None:
    runs = [
        stored(f"{depth}{lr}", seed, test=0.5 + lr + seed / 100, arm=f"{depth}{lr}", config=config)
        for depth, lr in ((4, 0.1), (4, 0.2), (8, 0.1))
        for seed in range(3)
        for config in [{"model": {"depth": depth, "norm": "none"}, "train": {"lr": lr}}]
    ]
    view = View(metrics=(METRIC,))
    text = " ".join(render_comparison(build_tables(runs, by=("model.depth", "train.lr")), view).split())
    assert "Cells that share a letter, anywhere in the table, do not differ significantly (α = 0.05)." in text
    assert "all pairs of the 3 cells with at least two runs (3 pairs)" in text


def test_baseline_in_other_table_is_named() -> None:
    def runs(name: str, steps: int) -> list:  # type: ignore[type-arg]
        config = {"train": {"lr": 0.1, "steps": steps}}
        return [stored(name, seed, test=0.5 + seed / 100, arm=name, config=config) for seed in range(3)]

    found, plain = build_tables([*runs("a", 20), *runs("b", 40)]), View(baseline="b")
    for view in (plain, replace(plain, metrics=(METRIC,)), replace(plain, format="latex")):
        text = render_comparison(found, view)
        assert "b is the only row of its table (40 steps): there is nothing to compare it with." in text
        assert "a is not compared with b: it is in a different table (20 steps)." in text
    more = render_comparison(
        build_tables([*runs("a", 20), *runs("c", 20), *runs("b", 40), *runs("d", 40)]), plain
    )
    assert (
        "2 rows are not compared with b: they are in a different table (20 steps)." in more
        and "only row" not in more
    )
    assert "not compared with" not in render_comparison(build_tables([*runs("a", 40), *runs("b", 40)]), plain)
