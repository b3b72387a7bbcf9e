"""Progress lines on stderr while an experiment runs, when piped."""

from __future__ import annotations

from typing import Any

import pytest

from initbench.render.progress import LiveProgress
from initbench.train.events import Advanced, Diagnosed


def test_runs_that_go_on_say_from_where_and_count_what_they_made(
    make_config: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    config = make_config(seeds=3, train={"steps": 1000, "batch_size": 10})
    display = LiveProgress(quiet=False)
    with display.showing():
        display.planned(config, 3, 0, 1000)
        two, one = ((config, 0), (config, 2)), ((config, 1),)
        display.receive(two, Advanced(401, {0: 1.0, 1: 1.0}))
        display.receive(one, Advanced(1, {0: 1.0}))
        display.receive(two, Advanced(900, {0: 1.0, 1: 1.0}))  # workers report now and then
        for cohort, run in ((two, 0), (one, 0), (two, 1)):
            display.receive(cohort, Diagnosed(run, {"status": "finished"}, b""))
        clock[0] = 110.0
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == ["tiny: training 3 runs, 1,000 steps each", "tiny: resuming 2 runs at step 400"]
    # Two runs made 600 steps and one 1,000, of 10 samples, in 10 s.
    assert said[2:] == ["trained in 10.0 s, 2,200 samples/s"]


def test_a_run_that_begins_says_nothing_of_it(make_config: Any, capsys: pytest.CaptureFixture[str]) -> None:
    display = LiveProgress(quiet=False)
    config = make_config()
    display.planned(config, 1, 0, 20)
    display.receive(((config, 0),), Advanced(1, {0: 1.0}))
    assert "resuming" not in capsys.readouterr().err
