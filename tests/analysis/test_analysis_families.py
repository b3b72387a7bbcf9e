"""Families of comparisons: Holm's adjustment and the compact letter display, against their definitions."""

from __future__ import annotations

import random
import re
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from initbench.analysis.stats.multiple_comparisons import assign_letters, holm

p_values = st.lists(st.floats(0.0, 1.0), max_size=12)
Pairs = set[tuple[int, int]]
graphs = st.integers(0, 7).flatmap(
    lambda n: st.tuples(
        st.just(n),
        st.sets(st.sampled_from(list(combinations(range(n), 2)))) if n > 1 else st.just(set()),
    )
)


def step_down(values: list[float], level: float) -> list[bool]:
    """Apply Holm's original procedure: reject in ascending order until a p-value is too large."""
    rejected = [False] * len(values)
    for rank, i in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        if values[i] > level / (len(values) - rank):
            break
        rejected[i] = True
    return rejected


@settings(deadline=None)
@given(p_values, st.floats(0.001, 0.5))
def test_adjusted_p_values_reject_what_the_procedure_rejects(values: list[float], level: float) -> None:
    adjusted = holm(values)
    for own, rejected in zip(adjusted, step_down(values, level), strict=True):
        assert own is not None
        # The procedure divides where the adjustment multiplies: at the very level they may round apart.
        assert (own <= level) == rejected or own == pytest.approx(level, rel=1e-12)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2] and holm([]) == []


@settings(deadline=None)
@given(p_values, st.randoms(use_true_random=False))
def test_holm_minds_neither_order_nor_comparisons_without_a_test(
    values: list[float], stream: random.Random
) -> None:
    mixed = [*values, None, None]
    stream.shuffle(mixed)
    adjusted = holm(mixed)
    assert [own is None for own in adjusted] == [p is None for p in mixed]
    of = dict(zip(values, holm(values), strict=True))
    assert all(own == of[p] for own, p in zip(adjusted, mixed, strict=True) if p is not None)
    assert all(own >= p for own, p in zip(adjusted, mixed, strict=True) if p is not None and own is not None)


def letter_sets(found: dict[int, str]) -> dict[int, set[str]]:
    sets = {key: re.findall(r"[A-Za-z]\d*", text) for key, text in found.items()}
    assert all("".join(sets[key]) == text for key, text in found.items())
    return {key: set(own) for key, own in sets.items()}


@settings(deadline=None)
@given(graphs)
def test_two_share_a_letter_if_and_only_if_they_were_not_told_apart(graph: tuple[int, Pairs]) -> None:
    count, different = graph
    found = letter_sets(assign_letters(range(count), different))
    assert all(found[i] for i in range(count))
    for i, j in combinations(range(count), 2):
        assert bool(found[i] & found[j]) == ((i, j) not in different)


@settings(deadline=None)
@given(graphs)
def test_no_letter_could_be_left_out_and_none_given_to_another(graph: tuple[int, Pairs]) -> None:
    count, different = graph
    found = letter_sets(assign_letters(range(count), different))
    alike = [(i, j) for i in range(count) for j in range(i, count) if (i, j) not in different]
    for letter in set().union(*found.values()):
        rest = {i: own - {letter} for i, own in found.items()}
        assert not all(rest[i] & rest[j] for i, j in alike)
        holders = [i for i, own in found.items() if letter in own]
        for other in set(range(count)) - set(holders):
            assert any((min(i, other), max(i, other)) in different for i in holders)


@settings(deadline=None)
@given(graphs)
def test_letters_come_in_the_order_of_the_arms(graph: tuple[int, Pairs]) -> None:
    count, different = graph
    found = assign_letters(range(count), different)
    seen = [letter for i in range(count) for letter in found[i]]
    assert list(dict.fromkeys(seen)) == sorted(set(seen))
    assert count == 0 or found[0][0] == "a"
    assert found == assign_letters(range(count), {(j, i) for i, j in different})


def test_letters_by_hand() -> None:
    # Piepho 2004 splits and absorbs like this: neighbours alike, the ends apart.
    assert assign_letters("pqr", []) == {"p": "a", "q": "a", "r": "a"}
    assert assign_letters("pqr", [("p", "r")]) == {"p": "a", "q": "ab", "r": "b"}
    assert assign_letters("pqr", [("p", "q"), ("r", "p"), ("q", "r")]) == {"p": "a", "q": "b", "r": "c"}
    assert assign_letters("pqrs", [("p", "r"), ("p", "s"), ("q", "s")]) == {
        "p": "a",
        "q": "ab",
        "r": "bc",
        "s": "c",
    }
    assert assign_letters([], []) == {} and assign_letters(["alone"], []) == {"alone": "a"}


def test_a_sweep_takes_out_a_letter_that_the_others_make_superfluous() -> None:
    # A square with both diagonals' ends alike along the sides, and a triangle inside that says nothing new.
    alike = {(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (1, 4), (2, 4), (0, 5), (2, 5)}
    different = set(combinations(range(6), 2)) - alike
    assert len(set("".join(assign_letters(range(6), different).values()))) == 3


def test_more_arms_than_letters() -> None:
    count = 60
    found = assign_letters(range(count), set(combinations(range(count), 2)))
    assert (found[0], found[25], found[26], found[51], found[52], found[59]) == (
        "a",
        "z",
        "A",
        "Z",
        "a1",
        "h1",
    )


def test_a_hundred_arms_in_a_row() -> None:
    count = 100
    different = {(i, j) for i, j in combinations(range(count), 2) if j - i > 10}
    assert len(set().union(*letter_sets(assign_letters(range(count), different)).values())) == count - 10
