"""Progress of a sweep on stderr: a live view on a terminal, else a line for each run that ends."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from initbench.config.schema import ExperimentConfig
from initbench.render import text
from initbench.runner.recorder import Cohort
from initbench.store.scores import main_score
from initbench.train.events import Advanced, Diagnosed, Evaluated, Pretrained, Released, RunEvent, RunFailed

_REFRESH_SECONDS = 0.25
_BAR = 20
_LINE_SECONDS = 15.0
"""Seconds between progress lines if stderr is not a terminal."""
_MAX_LINES = 12
"""Maximum number of cohorts in the live view; the rest are counted."""
_STYLES = {"finished": None, "diverged": "yellow", "failed": "red"}


@dataclass
class _Line:
    cohort: Cohort  # a reference keeps it alive, as its id() is the key
    name: str
    steps: int
    unfinished: set[tuple[int, int]]
    """Runs that have not ended, as pairs of the id() of their config and their seed."""
    step: int
    loss: float | None = None
    layer: str = ""
    """Text about the layer that is being pre-trained."""

    @property
    def fraction_done(self) -> float:
        """Share of each run's steps that is done."""
        return self.step / self.steps if self.steps else 0.0


class SweepDisplay:
    """Progress display of many experiments."""

    def __init__(self, name: str, *, quiet: bool) -> None:
        self._console = Console(stderr=True, markup=False, emoji=False, highlight=False)
        self._name, self._quiet = name, quiet
        self._is_live = self._console.is_terminal and not quiet
        self._live: Live | None = None
        self._begin = self._last = time.monotonic()
        self._said = self._begin
        self._total = self._stored = 0
        self._made = 0.0
        """Work done by this command, in whole runs."""
        self._counts: Counter[str] = Counter()
        self._steps: dict[int, int] = {}  # by id() of the config: several may share a name
        self._lines: dict[int, _Line] = {}  # by id() of the cohort
        self._scores: dict[tuple[int, int], str] = {}

    def say(self, message: str) -> None:
        """Print one line, unless quiet."""
        if not self._quiet:
            self._console.print(message, soft_wrap=True)

    @contextmanager
    def showing(self, total: int, stored: int) -> Iterator[None]:
        """Return a context that shows the progress of `total` runs, of which `stored` are done already."""
        self._total, self._stored, self._begin = total, stored, time.monotonic()
        if self._is_live:
            self._live = Live(console=self._console, transient=True, auto_refresh=False)
            self._live.start()
        try:
            yield
        finally:
            if self._live is not None:
                self._live.stop()
                self._live = None
            self._print_summary()

    def expect(self, total: int, stored: int) -> None:
        """Add further runs to those that are shown, of which `stored` are done already."""
        self._total += total
        self._stored += stored

    def planned(self, config: ExperimentConfig, to_train: int, stored: int, steps: int | None) -> None:
        """Record the number of steps of an experiment that starts."""
        del to_train, stored
        self._steps[id(config)] = steps or 0

    def receive(self, cohort: Cohort, event: RunEvent) -> None:
        """Show an event of a cohort."""
        match event:
            case Pretrained():
                line = self._line(cohort)
                line.layer, line.loss = f"pre-training layer {event.layer} of {event.layers}", event.loss
                self._refresh()
            case Advanced(step, losses):
                self._advance(cohort, step, losses)
            case Evaluated(run, entry):
                config, seed = cohort[run]
                score = main_score(entry)
                if score is not None:
                    self._scores[id(config), seed] = text.score_words(score, entry[f"val_{score.name}"])
            case Released(runs):
                left = {(id(cohort[run][0]), cohort[run][1]) for run in runs}
                self._line(cohort).unfinished -= left
            case Diagnosed(run, result):
                self._end(*cohort[run], str(result["status"]))
            case RunFailed(run):
                self._end(*cohort[run], "failed")
            case _:
                pass

    def _advance(self, cohort: Cohort, step: int, losses: Mapping[int, float]) -> None:
        line = self._line(cohort, step - 1)
        self._made -= line.fraction_done * len(line.unfinished)
        line.step, line.layer = step, ""
        self._made += line.fraction_done * len(line.unfinished)
        if time.monotonic() - self._last >= _REFRESH_SECONDS:
            line.loss = statistics.mean(losses.values())
            self._refresh()
        if self._live is None and time.monotonic() - self._said >= _LINE_SECONDS:
            self._say(f"{self._running} running, {line.name} at step {step:,} of {line.steps:,}")

    def _end(self, config: ExperimentConfig, seed: int, status: str) -> None:
        """Count a run that ended, and report it."""
        self._counts[status] += 1
        score = self._scores.pop((id(config), seed), None)
        run, fraction_done = (id(config), seed), 0.0
        for key, line in list(self._lines.items()):
            if run in line.unfinished:
                fraction_done = line.fraction_done
                line.unfinished.remove(run)
            if not line.unfinished:
                del self._lines[key]
        self._made += 1.0 - fraction_done
        if self._live is None:
            last = f", {score}" if score is not None else ""
            self._say(f"{config.name}-s{seed} {status}{last}")
        self._refresh()

    @property
    def done(self) -> int:
        """Number of runs that have ended since the start."""
        return sum(self._counts.values())

    @property
    def _running(self) -> int:
        return sum(len(line.unfinished) for line in self._lines.values())

    def _say(self, what: str) -> None:
        self._said = time.monotonic()
        self.say(f"{self.done}/{self._total - self._stored} {what}{self._time_left(', ')}")

    def _line(self, cohort: Cohort, step: int = 0) -> _Line:
        """Return the line of a cohort; a new line starts at `step`."""
        if id(cohort) not in self._lines:
            config, _ = cohort[0]
            unfinished = {(id(config), seed) for config, seed in cohort}
            experiments = len({key for key, _ in unfinished})
            others = f" and {text.plural(experiments - 1, 'other')}" if experiments > 1 else ""
            # Its runs may have been in a cohort that was given up; the lines of such cohorts are removed.
            self._lines = {key: line for key, line in self._lines.items() if not line.unfinished & unfinished}
            name = config.name.removeprefix(f"{self._name}.") + others
            self._lines[id(cohort)] = _Line(cohort, name, self._steps[id(config)], unfinished, step)
        return self._lines[id(cohort)]

    def _time_left(self, prefix: str) -> str:
        """Return the estimated time left, from the work done so far; empty if nothing is done or left."""
        begun = sum(line.fraction_done * len(line.unfinished) for line in self._lines.values())
        remaining = self._total - self._stored - self.done - begun
        if self._made <= 0.0 or remaining <= 0.0:
            return ""
        seconds = (time.monotonic() - self._begin) / self._made * remaining
        return f"{prefix}about {text.format_duration(seconds)} left"

    def _refresh(self) -> None:
        if self._live is not None and time.monotonic() - self._last >= _REFRESH_SECONDS:
            self._last = time.monotonic()
            self._live.update(Group(self._head(), *self._body()), refresh=True)

    def _head(self) -> Text:
        done, running = self.done, self._running
        waiting = max(0, self._total - self._stored - done - running)
        rate = done / max(1e-9, time.monotonic() - self._begin)
        head = Text(no_wrap=True, overflow="ellipsis")
        head.append(self._name, "bold").append(f"   {self._stored + done:,} of {self._total:,} done")
        head.append(f" · {running} running · {waiting:,} waiting")
        for status in ("diverged", "failed"):
            if self._counts[status]:
                head.append(f" · {self._counts[status]:,} {status}", _STYLES[status])
        head.append(self._time_left(" · "))
        if done:
            head.append(f" · {rate:.2f} runs/s")
        return head

    def _body(self) -> Iterator[Text]:
        for line in list(self._lines.values())[:_MAX_LINES]:
            full = round(_BAR * line.fraction_done)
            where = line.layer or f"step {line.step:,}/{line.steps:,}"
            loss = "" if line.loss is None else f"  loss {line.loss:.3g}"
            bar = "━" * full + "─" * (_BAR - full)
            words = f"  {bar}  {where}{loss}  {line.name}, {text.plural(len(line.unfinished), 'run')}"
            row = Text(words)
            # Leave room for the ^C that a terminal appends: if it wrapped, the view could not be cleared.
            row.truncate(self._console.width - 3, overflow="ellipsis")
            yield row
        more = len(self._lines) - _MAX_LINES
        if more > 0:
            yield Text(f"  and {text.plural(more, 'more cohort')}", style="dim")

    def _print_summary(self) -> None:
        done = self.done
        if done:
            seconds = time.monotonic() - self._begin
            counted = ", ".join(f"{n:,} {status}" for status, n in self._counts.items())
            self.say(
                f"{self._name}: {counted} in {text.format_duration(seconds)}, {done / seconds:.2f} runs/s"
            )
