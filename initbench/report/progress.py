"""Live progress on stderr: a bar on a terminal, a line at start and end when piped, or nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from initbench.config.schema import ExperimentConfig
from initbench.pretrain.greedy import Stride
from initbench.report import text

_REFRESH_SECONDS = 0.2
_LINE_SECONDS = 5.0
"""Between lines about pre-training, where there is no bar."""


class ProgressDisplay:
    """An Observer that shows step, loss, accuracy, samples per second and the time left."""

    def __init__(self, *, quiet: bool) -> None:
        self._console = Console(stderr=True, markup=False, emoji=False, highlight=False)
        self._quiet = quiet
        self._live = self._console.is_terminal and not quiet
        self._bar: Progress | None = None
        self._task: Any = None
        self._accuracy: dict[int, float] = {}
        self._batch = 1
        self._start = self._last = 0.0
        self._made = self._finished = 0
        self._name = ""
        self._runs = 1
        self._total = 0
        self._steps: dict[tuple[int, ...], int] = {}
        self._pretrained: dict[tuple[int, ...], int] = {}
        self._pretraining_batch = 1
        self._shown = 0

    def say(self, message: str) -> None:
        """One line, unless quiet."""
        if not self._quiet:
            self._console.print(message)

    def planned(self, config: ExperimentConfig, to_train: int, stored: int, steps: int | None) -> None:
        """Say what is going to be trained, and begin the bar."""
        if stored:
            hint = "" if to_train else "; --rerun trains them again"
            self.say(f"{config.name}: {text.plural(stored, 'run')} stored already{hint}")
        if steps is None:
            return
        if not self._live:
            self.say(
                f"{config.name}: training {text.plural(to_train, 'run')}, {text.plural(steps, 'step')} each"
            )
        self._batch = config.train.batch_size
        self._accuracy = {}
        self._start = self._last = time.monotonic()
        self._made = self._finished = self._shown = 0
        self._pretrained = {}
        self._pretraining_batch = getattr(config.init.scheme, "batch_size", None) or self._batch
        self._name, self._runs, self._steps, self._total = config.name, to_train, {}, steps
        if self._live:
            self._begin_bar(config.name, steps)

    def pretraining(self, seeds: tuple[int, ...], stride: Stride) -> None:
        """Say which layer is being trained: on the bar, or in a line every few seconds."""
        made, now = (stride.layer - 1) * stride.steps + stride.step, time.monotonic()
        self._shown += len(seeds) * (made - self._pretrained.get(seeds, made - 1)) * self._pretraining_batch
        self._pretrained[seeds] = made
        if now - self._last < (_REFRESH_SECONDS if self._live else _LINE_SECONDS):
            return
        self._last = now
        where = f"pre-training layer {stride.layer} of {stride.layers}, step {stride.step:,}"
        if self._bar is not None:
            self._bar.update(self._task, note=f"{where}  loss {stride.loss:.3g}")
        else:
            self.say(f"{self._name}: {where}, loss {stride.loss:.3g}")

    def advanced(self, seeds: tuple[int, ...], step: int, losses: Tensor) -> None:
        """Move the bar, a few times a second; it shows the mean over the runs."""
        before = self._steps.get(seeds)
        if before is None:
            before = step - 1
            if before:
                self.say(f"{self._name}: {text.plural(len(seeds), 'run')} taken up after step {before:,}")
        self._made += len(losses) * (step - before)
        self._steps[seeds] = step
        now = time.monotonic()
        if self._bar is None or now - self._last < _REFRESH_SECONDS:
            return
        self._last = now
        rate = self._samples / (now - self._start)
        completed = sum(len(seeds) * step for seeds, step in self._steps.items()) // self._runs
        self._bar.update(self._task, completed=completed, note=self._note(float(losses.mean()), rate))

    def evaluated(self, seed: int, entry: dict[str, Any]) -> None:
        """Keep the accuracy for the bar."""
        self._accuracy[seed] = entry["val_accuracy"]

    def ended(self, seed: int, status: str) -> None:
        """Count the run; how it ended is seen from the tables."""
        self._accuracy.pop(seed, None)
        if status == "finished":
            self._finished += 1
            reported = next((step for seeds, step in self._steps.items() if seed in seeds), self._total)
            self._made += self._total - reported  # workers report a few times a second

    @contextmanager
    def experiment(self) -> Iterator[None]:
        """Take the bar down at the end, whatever happens."""
        try:
            yield
        finally:
            if self._bar is not None:
                self._bar.stop()
                self._bar = None
            elif self._finished and sys.exc_info()[0] is None:
                seconds = time.monotonic() - self._start
                self.say(f"trained in {seconds:.1f} s, {self._samples / seconds:,.0f} samples/s")

    @property
    def _samples(self) -> int:
        """Shown to nets until now, in pre-training as well."""
        return self._made * self._batch + self._shown

    def _begin_bar(self, name: str, steps: int) -> None:
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:,}/{task.total:,}", markup=False),
            TextColumn("{task.fields[note]}", markup=False),
            TimeRemainingColumn(compact=True),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task(name, total=steps, note="")
        self._bar.start()

    def _note(self, loss: float, rate: float) -> str:
        known = list(self._accuracy.values())
        accuracy = f"val {100 * sum(known) / len(known):.1f} %  " if known else ""
        return f"loss {loss:.3f}  {accuracy}{rate / 1000:,.1f}k samples/s"
