"""Multiple comparisons: adjusted p-values, and the letters of a compact letter display."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from itertools import combinations
from string import ascii_letters
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust p-values so that the probability of any false positive in the family stays below the level.

    In ascending order, the i-th of m p-values becomes max over j ≤ i of min(1, (m − j + 1) · p_j). A
    comparison without a test is None; it stays None and does not count in m. The correction is valid for any
    dependence between the tests.
    Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    tested = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    worst = 0.0
    for rank, (p, i) in enumerate(tested):
        assert 0.0 <= p <= 1.0
        worst = max(worst, min(1.0, (len(tested) - rank) * p))
        adjusted[i] = worst
    return adjusted


def assign_letters(ordered: Sequence[Key], different: Collection[tuple[Key, Key]]) -> dict[Key, str]:
    """Return the compact letter display: two arms share a letter if and only if they are not `different`.

    Sharing is not transitive: if a and b share a letter, and b and c do, a and c may still differ. No letter
    is redundant.

    The insert-and-absorb algorithm starts with one letter for all arms. Each pair that differs splits every
    letter that contains both arms into one letter without the first and one without the second. A letter
    whose arms are a subset of another letter's is dropped.
    Source: Piepho 2004, An algorithm for a letter-based representation of all-pairwise comparisons.

    Args:
        ordered: The arms from best to worst; the best arm gets "a".
        different: The pairs that differ significantly, in either order. A pair without a test is not among
            them, so it shares a letter.
    """
    index_of = {key: i for i, key in enumerate(ordered)}
    assert len(index_of) == len(ordered)
    different_indices = {(min(index_of[x], index_of[y]), max(index_of[x], index_of[y])) for x, y in different}
    assert all(i != j for i, j in different_indices)
    columns = _remove_redundant(
        _insert_and_absorb(len(ordered), sorted(different_indices)), len(ordered), different_indices
    )
    members = sorted([i for i in range(len(ordered)) if column >> i & 1] for column in columns)
    letters = dict.fromkeys(ordered, "")
    for number, column in enumerate(members):
        for i in column:
            letters[ordered[i]] += _letter_name(number)
    return letters


def _insert_and_absorb(count: int, apart: Sequence[tuple[int, int]]) -> list[int]:
    """Return one bit mask of arms per letter; some letters may still be redundant."""
    columns = [(1 << count) - 1] if count else []
    for i, j in apart:
        both = 1 << i | 1 << j
        whole = [column for column in columns if column & both != both]
        halves = [c & ~(1 << k) for c in columns if c & both == both for k in (i, j)]
        columns = whole
        for half in sorted(set(halves), key=int.bit_count, reverse=True):
            if all(half & ~column for column in columns):
                columns.append(half)
    return columns


def _remove_redundant(columns: Sequence[int], count: int, apart: Collection[tuple[int, int]]) -> list[int]:
    """Drop the letters that are redundant: each of their arms and pairs of arms has another letter, too."""
    needed = [1 << i for i in range(count)]
    needed += [1 << i | 1 << j for i, j in combinations(range(count), 2) if (i, j) not in apart]
    holders = {pair: sum(column & pair == pair for column in columns) for pair in needed}
    needed_columns = []
    for column in sorted(columns, key=int.bit_count):
        own_pairs = [pair for pair in needed if column & pair == pair]
        if all(holders[pair] > 1 for pair in own_pairs):
            for pair in own_pairs:
                holders[pair] -= 1
        else:
            needed_columns.append(column)
    return needed_columns


def _letter_name(number: int) -> str:
    """Return the name of a letter by its index: a to z, A to Z, then a1, b1 and so on."""
    suffix, index = divmod(number, len(ascii_letters))
    return ascii_letters[index] + (str(suffix) if suffix else "")
