"""Many comparisons at once: p-values adjusted for their number, and letters for what cannot be told apart."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from itertools import combinations
from string import ascii_letters
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values adjusted so that the chance of any false positive in the family stays below the level.

    In ascending order, the i-th of m becomes max over j ≤ i of min(1, (m − j + 1) · p_j). Comparisons
    without a test are None, stay None and do not count in m. It holds whatever the dependence between tests.
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
    """The compact letter display: two of `ordered` share a letter if and only if they are not `different`.

    `ordered` holds the arms from best to worst, so that "a" goes to the best; `different` the pairs that
    were told apart, either way round. A pair that was not tested cannot be told apart, and shares a letter.
    Sharing is not passed on: a with b and b with c says nothing of a with c. No letter could be left out.

    Insert and absorb: one letter for all; each pair that differs splits every letter that holds both into one
    without the first and one without the second; a letter within another one goes. Source: Piepho 2004, An
    algorithm for a letter-based representation of all-pairwise comparisons.
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
    """The letters as sets of bits, before superfluous ones are taken out."""
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
    """The letters without those whose every pair (or lone arm) has another letter as well."""
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
    """a to z, A to Z, then a1, b1 and so on."""
    suffix, index = divmod(number, len(ascii_letters))
    return ascii_letters[index] + (str(suffix) if suffix else "")
