"""A sweep while it runs, on stderr: one live view on a terminal, a line for each finished run elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from initbench.config.schema import ExperimentConfig
from initbench.pretrain.greedy import Stride
from initbench.report import text
from initbench.report.sweep_tables import duration

_REFRESH_SECONDS = 0.25
_BAR = 20
_MOST_LINES = 12
"""Cohorts that are shown; the rest are counted."""
_STYLES = {"finished": None, "diverged": "yellow", "failed": "red"}


@dataclass
class _Cohort:
    name: str
    runs: int
    steps: int
    step: int = 0
    loss: float | None = None
    layer: str = ""
    """What is being pre-trained."""


class SweepDisplay:
    """An Observer of many experiments."""

    def __init__(self, name: str, *, quiet: bool) -> None:
        self._console = Console(stderr=True, markup=False, emoji=False, highlight=False)
        self._name, self._quiet = name, quiet
        self._is_live = self._console.is_terminal and not quiet
        self._live: Live | None = None
        self._begin = self._last = time.monotonic()
        self._total = self._stored = 0
        self._counts: Counter[str] = Counter()
        self._steps: dict[int, int] = {}  # by the identity of a config: names may be shared
        self._cohorts: dict[tuple[int, tuple[int, ...]], _Cohort] = {}
        self._accuracy: dict[tuple[int, int], float] = {}

    def say(self, message: str) -> None:
        """One line, unless quiet."""
        if not self._quiet:
            self._console.print(message, soft_wrap=True)

    @contextmanager
    def showing(self, total: int, stored: int) -> Iterator[None]:
        """Show what is happening; `total` runs, of which some are stored already."""
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
            self._say_sum()

    def planned(self, config: ExperimentConfig, to_train: int, stored: int, steps: int | None) -> None:
        """An experiment is begun."""
        del to_train, stored
        self._steps[id(config)] = steps or 0

    def pretraining(self, config: ExperimentConfig, seeds: tuple[int, ...], stride: Stride) -> None:
        """A cohort pre-trains."""
        cohort = self._cohort(config, seeds)
        cohort.layer, cohort.loss = f"pre-training layer {stride.layer} of {stride.layers}", stride.loss
        self._refresh()

    def advanced(
        self, config: ExperimentConfig, seeds: tuple[int, ...], step: int, losses: Sequence[float]
    ) -> None:
        """A cohort made an update."""
        cohort = self._cohort(config, seeds)
        cohort.step, cohort.layer = step, ""
        if time.monotonic() - self._last >= _REFRESH_SECONDS:
            cohort.loss = float(sum(losses) / len(losses))
            self._refresh()

    def evaluated(self, config: ExperimentConfig, seed: int, entry: dict[str, Any]) -> None:
        """Keep the accuracy for the line of the run."""
        self._accuracy[id(config), seed] = entry["val_accuracy"]

    def ended(self, config: ExperimentConfig, seed: int, status: str) -> None:
        """Count a run, and tell of it."""
        self._counts[status] += 1
        accuracy = self._accuracy.pop((id(config), seed), None)
        done = sum(self._counts.values())
        for key, cohort in list(self._cohorts.items()):
            if key[0] == id(config) and seed in key[1]:
                cohort.runs -= 1
                if not cohort.runs:
                    del self._cohorts[key]
        if self._live is None:
            last = f", val {text.percent(accuracy, 1)} %" if accuracy is not None else ""
            of = self._total - self._stored
            self.say(f"{done}/{of} {config.name}-s{seed} {status}{last}{self._time_left(', ')}")
        self._refresh()

    def _cohort(self, config: ExperimentConfig, seeds: tuple[int, ...]) -> _Cohort:
        key = (id(config), seeds)
        if key not in self._cohorts:
            self._cohorts[key] = _Cohort(config.name, len(seeds), self._steps[id(config)])
        return self._cohorts[key]

    def _time_left(self, before: str) -> str:
        done = sum(self._counts.values())
        left = self._total - self._stored - done
        if not done or not left:
            return ""
        return f"{before}about {duration((time.monotonic() - self._begin) / done * left)} left"

    def _refresh(self) -> None:
        if self._live is not None and time.monotonic() - self._last >= _REFRESH_SECONDS:
            self._last = time.monotonic()
            self._live.update(Group(self._head(), *self._lines()), refresh=True)

    def _head(self) -> Text:
        done = sum(self._counts.values())
        running = sum(cohort.runs for cohort in self._cohorts.values())
        left = max(0, self._total - self._stored - done - running)
        rate = done / max(1e-9, time.monotonic() - self._begin)
        head = Text.assemble((self._name, "bold"), f"   {self._stored + done:,} of {self._total:,} done")
        head.append(f" · {running} running · {left:,} left")
        for status in ("diverged", "failed"):
            if self._counts[status]:
                head.append(f" · {self._counts[status]:,} {status}", _STYLES[status])
        head.append(f" · {rate:.2f} runs/s{self._time_left(' · ')}")
        return head

    def _lines(self) -> Iterator[Text]:
        for cohort in list(self._cohorts.values())[:_MOST_LINES]:
            share = cohort.step / cohort.steps if cohort.steps else 0.0
            full = round(_BAR * share)
            where = cohort.layer or f"step {cohort.step:,}/{cohort.steps:,}"
            loss = "" if cohort.loss is None else f"  loss {cohort.loss:.3g}"
            bar = "━" * full + "─" * (_BAR - full)
            line = f"  {bar}  {cohort.name} × {cohort.runs}  {where}{loss}"
            yield Text(line, no_wrap=True, overflow="ellipsis")
        more = len(self._cohorts) - _MOST_LINES
        if more > 0:
            yield Text(f"  and {text.plural(more, 'cohort')} more", style="dim")

    def _say_sum(self) -> None:
        done = sum(self._counts.values())
        if done:
            seconds = time.monotonic() - self._begin
            counted = ", ".join(f"{n:,} {status}" for status, n in self._counts.items())
            self.say(f"{self._name}: {counted} in {duration(seconds)}, {done / seconds:.2f} runs/s")
