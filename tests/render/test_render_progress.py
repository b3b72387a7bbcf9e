"""Progress lines on stderr while an experiment runs, when piped."""

from __future__ import annotations

from typing import Any

import pytest

from initbench.render.progress import LiveProgress


def test_runs_that_go_on_say_from_where_and_count_what_they_made(
    make_config: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    config = make_config(seeds=3, train={"steps": 1000, "batch_size": 10})
    display = LiveProgress(quiet=False)
    with display.showing():
        display.planned(config, 3, 0, 1000)
        display.advanced(((config, (0, 2)),), 401, [[1.0] * 2])
        display.advanced(((config, (1,)),), 1, [[1.0] * 1])
        display.advanced(((config, (0, 2)),), 900, [[1.0] * 2])  # workers report now and then
        for seed in (0, 1, 2):
            display.ended(config, seed, "finished")
        clock[0] = 110.0
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == ["tiny: training 3 runs, 1,000 steps each", "tiny: resuming 2 runs at step 400"]
    # Two runs made 600 steps and one 1,000, of 10 samples, in 10 s.
    assert said[2:] == ["trained in 10.0 s, 2,200 samples/s"]


def test_a_run_that_begins_says_nothing_of_it(make_config: Any, capsys: pytest.CaptureFixture[str]) -> None:
    display = LiveProgress(quiet=False)
    config = make_config()
    display.planned(config, 1, 0, 20)
    display.advanced(((config, (0,)),), 1, [[1.0] * 1])
    assert "resuming" not in capsys.readouterr().err
