"""Arbitrary contents of a store's files are either read or reported as damaged, without other failures."""

from __future__ import annotations

from pathlib import Path

import pytest
import store_fuzz

FILES = (
    "run.json",
    "metrics.jsonl",
    "layers.jsonl",
    "shift.jsonl",
    "manifest.json",
    ".sweeps/NAME.json",
    "summary.jsonl",
    "compare --json, for --against",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store_fuzz.small_store(tmp_path_factory.mktemp("fuzz"))


def attack(root: Path, name: str, cases: int, seed: int) -> None:
    tally = store_fuzz.attacks(root)[name](cases, seed)
    assert tally.cases == cases
    assert tally.failures == []


@pytest.mark.parametrize("name", FILES)
def test_nothing_fails_past_the_place_where_a_file_is_read(root: Path, name: str) -> None:
    attack(root, name, 12, 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 14))
@pytest.mark.parametrize("name", FILES)
def test_nothing_fails_in_a_hundred_thousand_cases(root: Path, name: str, seed: int) -> None:
    attack(root, name, 1000, seed)
