"""Display of a sweep while it runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from initbench.render import sweep_progress
from initbench.render.sweep_progress import SweepDisplay
from initbench.render.sweep_tables import failure_lines
from initbench.render.text import format_duration
from initbench.train.events import Advanced, Diagnosed, Evaluated

Make = Callable[..., Any]


def play(display: SweepDisplay, make_config: Make) -> None:
    """Two of five missing runs end, one of them with a failure."""
    config = make_config(name="s.relu", seeds=3)
    cohort = tuple((config, seed) for seed in (0, 1, 2))
    with display.showing(8, 3):
        display.planned(config, 3, 0, 20)
        display.receive(cohort, Advanced(10, {0: 0.5, 1: 0.5, 2: 0.5}))
        display.receive(cohort, Evaluated(0, {"val_accuracy": 0.75}))
        display.receive(cohort, Diagnosed(0, {"status": "finished"}, b""))
        display.receive(cohort, Diagnosed(1, {"status": "diverged"}, b""))
        display.receive(cohort, Advanced(15, {2: 0.25}))


def test_a_line_for_each_run_where_nobody_watches(make_config: Make, capsys: pytest.CaptureFixture[str]):
    play(SweepDisplay("s", quiet=False), make_config)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("1/5 s.relu-s0 finished, val 75.0 %, about ")
    assert lines[1].startswith("2/5 s.relu-s1 diverged, about ")
    assert lines[2].startswith("s: 1 finished, 1 diverged in ") and len(lines) == 3


def test_one_view_on_a_terminal(
    make_config: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sweep_progress, "_REFRESH_SECONDS", 0.0)
    play(SweepDisplay("s", quiet=False), make_config)
    seen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    assert "s   3 of 8 done · 3 running · 2 waiting" in seen
    assert "s   5 of 8 done · 1 running · 2 waiting · 1 diverged · " in seen
    assert "━━━━━━━━━━──────────  step 10/20  loss 0.5  relu, 3 runs" in seen
    assert "━━━━━━━━━━━━━━━─────  step 15/20  loss 0.25  relu, 1 run" in seen


def test_runs_of_several_experiments_are_one_line(
    make_config: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sweep_progress, "_REFRESH_SECONDS", 0.0)
    first, second = make_config(name="s.relu", seeds=2), make_config(name="s.tanh", seeds=2)
    display = SweepDisplay("s", quiet=False)
    with display.showing(4, 0):
        for config in (first, second):
            display.planned(config, 2, 0, 20)
        cohort = ((first, 0), (first, 1), (second, 0), (second, 1))
        display.receive(cohort, Advanced(5, {0: 1.0, 1: 1.0, 2: 3.0}))
        again = cohort[2:]  # the first cohort came to nothing
        display.receive(again, Advanced(10, {0: 1.0, 1: 3.0}))
    seen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    assert "step 5/20  loss 1.67  relu and 1 other, 4 runs" in seen
    assert "s   0 of 4 done · 2 running · 2 waiting" in seen and "step 10/20  loss 2  tanh, 2 runs" in seen


def test_the_time_left_is_by_updates(
    make_config: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    fresh, resumed = make_config(name="s.a", seeds=2), make_config(name="s.b", seeds=2)
    display = SweepDisplay("s", quiet=False)
    with display.showing(10, 4):  # six runs, two of which nothing is heard of
        for config in (fresh, resumed):
            display.planned(config, 2, 0, 100)
        cohort, again = ((fresh, 0), (fresh, 1)), ((resumed, 0), (resumed, 1))
        display.receive(cohort, Advanced(1, {0: 1.0, 1: 1.0}))
        display.receive(again, Advanced(51, {0: 1.0, 1: 1.0}))
        clock[0] = 20.0
        display.receive(cohort, Advanced(50, {0: 1.0, 1: 1.0}))
        display.receive(again, Diagnosed(0, {"status": "finished"}, b""))
        display.receive(again, Diagnosed(1, {"status": "finished"}, b""))
    said = capsys.readouterr().err.splitlines()
    # Of two runs 0.5 was made, and 0.01 of the resumed ones; 0.5 and 0.49 are left of these, and two others.
    assert said[0] == f"0/6 4 running, a at step 50 of 100, about {format_duration(20 / 1.02 * 3.98)} left"
    # And 0.49 more of those that ended.
    assert said[2] == f"2/6 s.b-s1 finished, about {format_duration(20 / 2.0 * 3.0)} left"


def test_nothing_when_quiet(make_config: Make, capsys: pytest.CaptureFixture[str]):
    play(SweepDisplay("s", quiet=True), make_config)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "1 s"), (89.0, "89 s"), (120.0, "2 min"), (7200.0, "2.0 h")]
)
def test_times_are_short(seconds: float, said: str):
    assert format_duration(seconds) == said


def test_no_failures_no_lines():
    assert failure_lines([]) == []
