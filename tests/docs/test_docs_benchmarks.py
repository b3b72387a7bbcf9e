"""The stored measurements of speed: their table in benchmarks/README.md, and when one counts as slower."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks import measurements
from benchmarks.measurements import BEGIN, END, Measurement, with_tables

HERE = {
    "processor": "P",
    "cores": 2,
    "torch": "2.14.1",
    "python": "3.11",
    "load": "0.1",
    "date": "2026-01-01",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the measurements be stored in an empty folder."""
    monkeypatch.setattr(measurements, "STORED", tmp_path / "measured.json")
    monkeypatch.setattr(measurements, "README", tmp_path / "README.md")
    (tmp_path / "README.md").write_text(f"# Title\n\n{BEGIN}\n{END}\n\ntext\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def bench(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the command line with one suite that returns these measurements, on a processor P."""
    monkeypatch.setattr(command, "machine", lambda: HERE)

    def run(measured: list[Measurement], *arguments: str) -> int:
        monkeypatch.setattr(command, "SUITES", {"suite": (lambda _repeats: measured, 3)})
        monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
        return command.main()

    return run


def test_the_table_of_the_readme_is_that_of_the_stored_measurements() -> None:
    text = measurements.README.read_text(encoding="utf-8")
    assert text == with_tables(text), "run `python -m benchmarks`, or render the table again"


@pytest.mark.parametrize(
    ("values", "stored", "is_cost", "expected"),
    [
        ((1.0, 1.1), (1.2, 1.5), False, True),
        ((1.0, 1.15), (1.2, 1.5), False, False),  # within 5 % of the worst
        ((1.0, 1.3), (1.2, 1.5), False, False),  # the ranges overlap
        ((1.0,), (1.0,), False, False),
        ((2.0, 2.2), (1.0, 1.5), True, True),
        ((1.2, 2.2), (1.0, 1.5), True, False),
        ((0.5,), (1.0, 1.5), True, False),
    ],
)
def test_when_a_measurement_is_slower(values: Any, stored: Any, is_cost: bool, expected: bool) -> None:
    now, before = (Measurement("m", each, is_cost=is_cost) for each in (values, stored))
    assert now.is_slower_than(before) is expected


def test_targets_hold_for_medians() -> None:
    assert Measurement("m", (1.0, 2.0, 3.0), target=2.0).target_words == "≥ 2: reached"
    assert Measurement("m", (1.0, 2.0, 3.0), target=2.1).target_words == "≥ 2.1: missed"
    assert (
        Measurement("m", (1.0, 2.0, 3.0), unit="s", target=1.9, is_cost=True).target_words
        == "≤ 1.9 s: missed"
    )
    assert Measurement("m", (1.0,)).target_words == ""
    assert Measurement("m", (1.0, 2.0, 4.0), unit="s").words == "2 s (1 to 4), n = 3"


def test_measured_stored_and_checked(bench: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fast, slow = Measurement("a / b", (2.0, 2.2), target=1.7), Measurement("a / b", (1.0, 1.1), target=1.7)
    assert bench([fast], "--check") == 1
    assert (
        "no measurements of this processor (P) are stored; run `make bench` first" in capsys.readouterr().err
    )
    assert not (folder / "measured.json").exists()
    assert bench([fast]) == 0
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert "| a / b | 2.1 (2 to 2.2), n = 2 | ≥ 1.7: reached |" in readme
    assert readme.endswith("text\n")
    assert bench([fast], "--check") == 0
    capsys.readouterr()
    assert bench([slow], "--check") == 1
    out = capsys.readouterr().out
    assert "slower: a / b: 1.05 (1 to 1.1), n = 2; stored: 2.1 (2 to 2.2), n = 2" in out
    assert (folder / "README.md").read_text(encoding="utf-8") == readme, "a check writes nothing"


def test_a_suite_that_is_not_there_is_named(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        bench([], "suit")
    assert end.value.code == 2
    assert "there is no suite 'suit'; the suites are suite" in capsys.readouterr().err
