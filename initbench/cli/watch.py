"""`initbench watch`: show the runs in progress, live."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from initbench.cli.options import Json, RunPatterns, RunsDir, runs_root
from initbench.render.terminal import print_uncut, stdout_console, stdout_width
from initbench.store.store import Store

if TYPE_CHECKING:
    from rich.console import Console

    from initbench.analysis.runs_in_progress import Observation, RunObserver

QUIET_SECONDS = 5.0
"""Seconds after the last run until the view ends: a command may be about to start its next runs."""
_MIN_PAUSE = 10.0
"""Shortest pause, in multiples of the time of a reading, so that a large store does not slow the training."""


def watch(
    patterns: RunPatterns = None,
    runs_dir: RunsDir = None,
    interval: Annotated[
        float,
        typer.Option("--interval", min=0.1, max=3600.0, metavar="SECONDS", help="Time between two readings."),
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print the present state once and exit.")] = False,
    json_output: Json = False,
) -> None:
    """Show the runs in progress live: steps, learning curves and layers, until all have ended.

    Files are only read, so any number of views can watch a training. The last known step of a run is that of
    its last evaluation or checkpoint. The view ends 5 s after the last run in progress, with a table of the
    runs that ended meanwhile. If stdout is not a terminal, or with --once or --json, the present state is
    printed once. Exit 0, also if no run is in progress.
    """
    from initbench.analysis.runs_in_progress import RunObserver

    root = runs_root(runs_dir)
    observer = RunObserver(Store(root), patterns or [])
    console = stdout_console()
    observation = observer.observe()
    if json_output:
        from initbench.render.watch import observation_json

        typer.echo(observation_json(observation, str(root), time.time()))
    elif not observation.running:
        typer.echo(_idle_message(str(root), observer.matching if patterns else None), err=True)
    elif once or stdout_width() is None or console.is_dumb_terminal:
        from initbench.render.watch import WatchView

        print_uncut(
            console, WatchView(console.width, ascii_only=console.options.ascii_only).whole(observation)
        )
    else:
        _show_live(console, observer, observation, str(root), interval)


def _show_live(
    console: Console, observer: RunObserver, observation: Observation, where: str, interval: float
) -> None:
    """Refresh the view until no run has been in progress for QUIET_SECONDS, and print the ended runs."""
    from rich.console import Group
    from rich.live import Live

    from initbench.render.watch import WatchView, ended_table

    last_busy, reading = time.monotonic(), 0.0
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while observation.running or time.monotonic() - last_busy < QUIET_SECONDS:
                view = WatchView(console.width, ascii_only=console.options.ascii_only)
                live.update(Group(*view.screen(observation, console.height, where)), refresh=True)
                time.sleep(max(interval, _MIN_PAUSE * reading))
                start = time.monotonic()
                observation = observer.observe()
                reading = time.monotonic() - start
                last_busy = time.monotonic() if observation.running else last_busy
    finally:
        if observation.ended:
            print_uncut(console, ended_table(observation.ended))


def _idle_message(root: str, matching: int | None) -> str:
    if matching:
        return f"No matching run is in progress in {root}; `initbench ls` lists the stored runs."
    return f"No run is in progress in {root}. Start one: initbench run configs/relu_kaiming.yaml"
