"""Whatever operation of a command fails, the same command then ends as an uninterrupted one does."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_harness import FATES, SCENARIOS, again, conditions, count_of, prepared, state, struck


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: some ten thousand files are made here."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else tmp_path) as directory:
        yield Path(directory)


def strike(name: str, fate: str, memory: Path, cases: int | None) -> int:
    """Strike `cases` evenly spaced operations, or all if None, and return their number."""
    scenario, made = SCENARIOS[name], 0
    with conditions():
        template = prepared(scenario, memory / "template")
        operations = count_of(scenario, template, memory / "whole")
        expected = state(memory / "whole" / "runs")
        assert operations > 10
        chosen = range(1, operations + 1)
        for at in chosen if cases is None else chosen[operations // cases // 2 :: operations // cases]:
            place = memory / str(at)
            struck(scenario, template, place, fate, at)
            assert again(scenario, place) == expected, f"{fate} at operation {at} of {operations}"
            shutil.rmtree(place)
            made += 1
    return made


@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize("name", ["resume", "merge", "rm"])
def test_the_same_command_ends_as_an_uninterrupted_one(name: str, fate: str, memory: Path) -> None:
    assert strike(name, fate, memory, 3) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize("name", SCENARIOS)
def test_the_same_command_ends_as_an_uninterrupted_one_wherever_it_is_struck(
    name: str, fate: str, memory: Path
) -> None:
    assert strike(name, fate, memory, None) > 10
