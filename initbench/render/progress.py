"""Live progress of trained runs and of work in stages, on stderr.

A terminal shows bars; a pipe receives single lines.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from initbench.config.schema import ExperimentConfig
from initbench.render import text
from initbench.runner.recorder import Cohort
from initbench.train.events import Advanced, Diagnosed, Evaluated, Pretrained, RunEvent, RunFailed

_REFRESH_SECONDS = 0.2
_LINE_SECONDS = 5.0
"""Seconds between lines about pre-training if there is no bar."""


@dataclass
class _Part:
    """Progress of one experiment."""

    config: ExperimentConfig
    runs: int
    steps: int
    """Steps of each run."""
    start: float
    last: float
    """Time of the last output about the experiment."""
    ended: int = 0
    finished: int = 0
    updates: int = 0
    """Number of updates, summed over all runs."""
    pretraining_samples: int = 0
    """Number of samples in pre-training."""
    accuracy: dict[int, float] = field(default_factory=dict)
    at: dict[int, int] = field(default_factory=dict)
    """Last update of each run, by its seed."""
    pretrained: dict[tuple[int, ...], int] = field(default_factory=dict)
    """Last update of each cohort in pre-training, by its seeds."""
    bar: TaskID | None = None

    @property
    def samples(self) -> int:
        """Number of samples shown to nets so far, including pre-training."""
        return self.updates * self.config.train.batch_size + self.pretraining_samples

    @property
    def pretraining_batch(self) -> int:
        """Number of samples per update in pre-training."""
        return getattr(self.config.init.scheme, "batch_size", None) or self.config.train.batch_size

    def note(self, loss: float, now: float) -> str:
        """Return the text to the right of the bar."""
        accuracies = list(self.accuracy.values())
        accuracy = f"val {100 * sum(accuracies) / len(accuracies):.1f} %  " if accuracies else ""
        return f"loss {loss:.3f}  {accuracy}{self.samples / (now - self.start) / 1000:,.1f}k samples/s"


class LiveProgress:
    """Progress display with step, loss, accuracy, samples per second and the time left."""

    def __init__(self, *, quiet: bool) -> None:
        self._console = Console(stderr=True, markup=False, emoji=False, highlight=False)
        self._quiet = quiet
        self._live = self._console.is_terminal and not quiet
        self._bars: Progress | None = None
        self._parts: dict[int, _Part] = {}  # by id() of the config: several may share a name
        self._start: float | None = None

    def say(self, message: str) -> None:
        """Print one line, unless quiet."""
        if not self._quiet:
            self._console.print(message)

    def planned(self, config: ExperimentConfig, to_train: int, stored: int, steps: int | None) -> None:
        """Announce what will be trained, and start its bar."""
        if stored:
            hint = "" if to_train else f"; --rerun retrains {'it' if stored == 1 else 'them'}"
            self.say(f"{config.name}: {text.plural(stored, 'run')} already stored{hint}")
        if steps is None:
            return
        if not self._live:
            self.say(
                f"{config.name}: training {text.plural(to_train, 'run')}, {text.plural(steps, 'step')} each"
            )
        now = time.monotonic()
        self._start = self._start or now
        part = self._parts[id(config)] = _Part(config, to_train, steps, now, now)
        if self._live:
            part.bar = self._begin_bar(config.name, steps)

    def receive(self, cohort: Cohort, event: RunEvent) -> None:
        """Show an event of a cohort."""
        match event:
            case Pretrained():
                for part, runs in self._by_experiment(cohort):
                    self._show_pretraining(part, tuple(cohort[run][1] for run in runs), event)
            case Advanced(step, losses):
                for part, runs in self._by_experiment(cohort):
                    if some := {cohort[run][1]: losses[run] for run in runs if run in losses}:
                        self._advance(part, step, some)
            case Evaluated(run, entry):
                config, seed = cohort[run]
                self._parts[id(config)].accuracy[seed] = entry["val_accuracy"]
            case Diagnosed(run, result):
                self._end(*cohort[run], is_finished=result["status"] == "finished")
            case RunFailed(run):
                self._end(*cohort[run], is_finished=False)
            case _:
                pass

    def _by_experiment(self, cohort: Cohort) -> Iterator[tuple[_Part, list[int]]]:
        """Yield each experiment of a cohort with the indices of its runs."""
        runs: dict[int, list[int]] = {}
        for run, (config, _) in enumerate(cohort):
            runs.setdefault(id(config), []).append(run)
        return ((self._parts[key], indices) for key, indices in runs.items())

    def _show_pretraining(self, part: _Part, seeds: tuple[int, ...], event: Pretrained) -> None:
        """Show which layer is being trained: on the bar, or in a line every few seconds."""
        updates, now = (event.layer - 1) * event.steps + event.step, time.monotonic()
        previous = part.pretrained.get(seeds, updates - 1)
        part.pretraining_samples += len(seeds) * (updates - previous) * part.pretraining_batch
        part.pretrained[seeds] = updates
        if now - part.last < (_REFRESH_SECONDS if self._live else _LINE_SECONDS):
            return
        part.last = now
        where = f"pre-training layer {event.layer} of {event.layers}, step {event.step:,}"
        if self._bars is not None and part.bar is not None:
            self._bars.update(part.bar, note=f"{where}  loss {event.loss:.3g}")
        else:
            self.say(f"{part.config.name}: {where}, loss {event.loss:.3g}")

    def _advance(self, part: _Part, step: int, losses: Mapping[int, float]) -> None:
        """Update the bar of an experiment a few times a second, with the mean loss of its runs by seed."""
        new = [seed for seed in losses if seed not in part.at]
        if new and step > 1:
            count = text.plural(len(new), "run")
            self.say(f"{part.config.name}: resuming {count} at step {step - 1:,}")
        part.at |= dict.fromkeys(new, step - 1)
        part.updates += sum(step - part.at[seed] for seed in losses)
        part.at |= dict.fromkeys(losses, step)
        now = time.monotonic()
        if self._bars is None or part.bar is None or now - part.last < _REFRESH_SECONDS:
            return
        part.last = now
        completed = sum(part.at.values()) // part.runs
        loss = sum(losses.values()) / len(losses)
        self._bars.update(part.bar, completed=completed, note=part.note(loss, now))

    def _end(self, config: ExperimentConfig, seed: int, *, is_finished: bool) -> None:
        """Count a run that ended, and remove the bar with the last one."""
        part = self._parts[id(config)]
        part.accuracy.pop(seed, None)
        part.ended += 1
        if is_finished:
            part.finished += 1
            # Workers report only a few times a second.
            part.updates += part.steps - part.at.get(seed, part.steps)
        if part.ended == part.runs and self._bars is not None and part.bar is not None:
            self._bars.remove_task(part.bar)
            part.bar = None

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Return a context that stops the bars at its end, or without bars prints a summary."""
        try:
            yield
        finally:
            if self._bars is not None:
                self._bars.stop()
            elif self._start is not None and sys.exc_info()[0] is None:
                self._print_summary(time.monotonic() - self._start)
            self._bars, self._start, self._parts = None, None, {}

    def _print_summary(self, seconds: float) -> None:
        if any(part.finished for part in self._parts.values()):
            samples = sum(part.samples for part in self._parts.values())
            self.say(f"trained in {seconds:.1f} s, {samples / seconds:,.0f} samples/s")

    def _begin_bar(self, name: str, steps: int) -> TaskID:
        if self._bars is None:
            self._bars = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                TextColumn("{task.completed:,}/{task.total:,}", markup=False),
                TextColumn("{task.fields[note]}", markup=False),
                TimeRemainingColumn(compact=True),
                console=self._console,
                transient=True,
            )
            self._bars.start()
        return self._bars.add_task(name, total=steps, note="")


class StageDisplay:
    """Context manager that shows the progress of one stage at a time."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._console = Console(stderr=True, markup=False, emoji=False, highlight=False)
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._start = time.monotonic()

    def __enter__(self) -> StageDisplay:
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                TaskProgressColumn(),
                TimeRemainingColumn(compact=True),
                console=self._console,
                transient=True,
            )
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif kind is None:
            self._console.print(f"{self._name}: done in {time.monotonic() - self._start:.1f} s")

    def begun(self, what: str, total: int) -> None:
        """Start a stage of `total` units."""
        if self._bar is None:
            self._console.print(f"{self._name}: {what}")
            return
        self._bar.remove_task(self._task) if self._bar.task_ids else None
        self._task = self._bar.add_task(f"{self._name}: {what}", total=total)

    def advanced(self, units: int) -> None:
        """Record that `units` more units are done."""
        if self._bar is not None:
            self._bar.update(self._task, advance=units)
