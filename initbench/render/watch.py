"""Output of `initbench watch`: runs in progress with their learning curves and layers, and ended runs.

Runs are drawn in full, in a few lines each, or in one line each, whichever is the most that fits the screen.
Runs that still do not fit are counted and named.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from rich.cells import cell_len
from rich.console import Group
from rich.text import Text

from initbench.analysis.runs_in_progress import Observation, RunProgress
from initbench.render import text
from initbench.render.ascii_text import ascii_text
from initbench.render.braille_plot import plot_curves
from initbench.render.layer_profile import (
    LossOfSignal,
    ProfileRow,
    evenly_spaced_layers,
    losses_of_signal,
    profile_rows,
)
from initbench.render.text_table import TextTable
from initbench.store import strict_json
from initbench.store.scores import SCORES, RecordedScore, main_score
from initbench.store.strict_json import parse_number_or_none

SCHEMA = "initbench.watch/1"
MAX_WIDTH = 120
"""Columns that are used at most."""
_PLOT_HEIGHT = 6
_MIN_PLOT = 30
_LABEL = 11
"""Width of the names of the statistics of layers."""
_MAX_FULL = 4
"""Number of runs up to which output without a screen is drawn in full."""
_MAX_ENDED = 3
"""Ended runs that a screen lists; the others are counted."""
_STYLES = {"finished": "green", "diverged": "yellow", "interrupted": "dim"}

Draw = Callable[[RunProgress], list[Text]]


class WatchView:
    """Draws observations for one width and character set.

    Args:
        width: Columns of the terminal, at least 40.
        ascii_only: Whether the output encoding is ASCII.
        now: Time in seconds since the epoch; by default of the call.
    """

    def __init__(self, width: int, *, ascii_only: bool, now: float | None = None) -> None:
        self._width, self._ascii = min(width, MAX_WIDTH), ascii_only
        self._now = time.time() if now is None else now

    def screen(self, observation: Observation, height: int, where: str) -> list[Text]:
        """Return the lines of a screen of `height` lines, none longer than the width.

        `where`: the observed runs, for the first line.
        """
        ended = self._ended_lines(observation.ended)
        body = [Text(""), Text("No run is in progress; the view ends in a few seconds.", "dim")]
        if observation.running:
            body = self._fitting(observation.running, max(1, height - 1 - len(ended)))
        lines = [self._head(observation, where), *body, *ended]
        return [self._fitted(line) for line in lines[:height]]

    def whole(self, observation: Observation) -> Group:
        """Return all runs in progress without a limit of height or width."""
        draw = self._full if len(observation.running) <= _MAX_FULL else self._compact
        blocks = [line for run in observation.running for line in [*draw(run), Text("")]]
        return Group(*blocks[:-1])

    def _fitting(self, runs: Sequence[RunProgress], room: int) -> list[Text]:
        """Return the runs in the most detail that fits `room` lines; name those that do not fit."""
        for draw in (self._full, self._compact):
            lines = [line for run in runs for line in [Text(""), *draw(run)]]
            if len(lines) <= room:
                return lines
        if len(runs) <= room:
            return [self._row(run) for run in runs]
        listed = runs[: room - 1]
        return [*(self._row(run) for run in listed), self._omitted(runs[len(listed) :])]

    def _omitted(self, runs: Sequence[RunProgress]) -> Text:
        names = Counter(text.one_line(run.experiment) for run in runs)
        listing = ", ".join(f"{name} ({text.plural(count, 'run')})" for name, count in names.items())
        return Text(f"and {text.plural(len(runs), 'more run')} in progress: {listing}", style="dim")

    def _head(self, observation: Observation, where: str) -> Text:
        statuses = Counter(run.status for run in (*observation.running, *observation.ended))
        counts = [f"{count:,} {status}" for status, count in statuses.items()]
        return Text("initbench watch", style="bold").append(f"   {' · '.join([where, *counts])}", "not bold")

    def _ended_lines(self, ended: Sequence[RunProgress]) -> list[Text]:
        """Return a blank line and the runs that ended last; empty without any."""
        lines = [self._ended_line(run) for run in ended[-_MAX_ENDED:]]
        more = len(ended) - len(lines)
        if more:
            lines.insert(0, Text(f"and {text.plural(more, 'run')} that ended before", style="dim"))
        return [Text(""), *lines] if lines else []

    def _ended_line(self, run: RunProgress) -> Text:
        words = [f"{_name(run)} {run.status}", _score_words(run), *filter(None, [_diagnosis(run)])]
        return Text(", ".join(words), _STYLES.get(run.status, "red"))

    def _full(self, run: RunProgress) -> list[Text]:
        return [self._status_line(run), *self._problem(run), *self._plots(run), *self._profile(run)]

    def _compact(self, run: RunProgress) -> list[Text]:
        cells = max(8, (self._width - 44) // 2)
        lines = [self._status_line(run), *self._problem(run)]
        if run.evaluations:
            curve = " · ".join(self._small_curve(run, *item, cells) for item in _curves(run))
            lines.append(Text(f"  {curve}"))
        if run.snapshot is not None:
            lines += self._bar_lines(profile_rows(run.snapshot)[:2], self._profile_cells(run.snapshot))
            lines += [Text(f"  {loss.words}", "yellow") for loss in losses_of_signal(run.snapshot)[:1]]
        return lines

    def _row(self, run: RunProgress) -> Text:
        loss = _last(run, "train_loss")
        words = f"{self._bar(run, 12)} {_steps(run)}  {_name(run)}"
        if run.evaluations:
            words += f"  {_score_words(run)}  loss {text.format_share(loss)}"
        row = Text(words)
        if run.error is not None:
            row.append(f"  {text.one_line(run.error)}", "red")
        elif run.snapshot is not None:
            row.append("".join(f"  {loss.words}" for loss in losses_of_signal(run.snapshot)[:1]), "yellow")
        return row

    def _status_line(self, run: RunProgress) -> Text:
        line = Text(_name(run), style="bold")
        line.append(f"  {self._bar(run, self._width // 8)} {_steps(run)}", "not bold cyan")
        for part in self._pace(run):
            if line.cell_len + cell_len(part) + 3 <= self._width:
                line.append(f" · {part}", "not bold")
        return line

    def _bar(self, run: RunProgress, cells: int) -> str:
        filled, unfilled = ("#", ".") if self._ascii else ("━", "─")
        full = round(cells * min(1.0, run.step / run.budget)) if run.budget else 0
        return filled * full + unfilled * (cells - full)

    def _pace(self, run: RunProgress) -> list[str]:
        """Return the rate, the time left, and the age of the last known step."""
        if run.pretraining_left:
            return [f"pre-training, {text.plural(run.pretraining_left, 'update')} left"]
        parts = []
        if run.rate is not None:
            parts.append(f"{run.rate:,.0f} steps/s" if run.rate >= 10.0 else f"{run.rate:.2g} steps/s")
        if (seconds := run.seconds_left(self._now)) is not None:
            parts.append("ends soon" if seconds < 1.0 else f"{text.format_duration(seconds)} left")
        if run.known_since is not None and self._now - run.known_since >= 1.0:
            parts.append(f"reported {text.format_duration(self._now - run.known_since)} ago")
        return parts

    def _problem(self, run: RunProgress) -> list[Text]:
        return [] if run.error is None else [Text(f"  {text.one_line(run.error)}", "red")]

    def _plots(self, run: RunProgress) -> list[Text]:
        """Return the plots of accuracy and loss side by side, or one if there is no room for two."""
        if not run.evaluations:
            return [Text("  not evaluated yet", "dim")]
        width = (self._width - 2) // 2
        curves = _curves(run)[: None if width >= _MIN_PLOT else 1]
        width = width if len(curves) > 1 else self._width
        plots = [self._plot(run, key, f"{title} {_formatted(run, key)}", width) for key, title in curves]
        height = max(map(len, plots))
        padded = [[line + " " * (width - cell_len(line)) for line in plot] for plot in plots]
        filled = [plot + [" " * width] * (height - len(plot)) for plot in padded]
        return [Text("  ".join(lines).rstrip()) for lines in zip(*filled, strict=True)]

    def _plot(self, run: RunProgress, key: str, title: str, width: int) -> list[str]:
        points = _points(run, key)
        if not points:
            return [f"{title}: no finite value to draw"]
        return plot_curves(
            [points],
            title,
            width=width,
            height=_PLOT_HEIGHT,
            right=float(run.budget or 1),
            may_be_log=key == "train_loss",
            log_note=" (log)",
            ascii_only=self._ascii,
        )

    def _profile(self, run: RunProgress) -> list[Text]:
        """Return a line of bars for each statistic of the layers, and where the signal is lost."""
        if run.snapshot is None:
            return [Text("  layers not probed yet", "dim")]
        step, count = run.snapshot.get("step"), len(run.snapshot["layers"])
        cells = self._profile_cells(run.snapshot)
        part = "" if count <= cells else f", {cells} of them drawn"
        at = "" if step is None else f" at step {step:,}"
        lines = [Text(f"  layers 1 to {count}{at}, input to head{part}", "dim")]
        lines += self._bar_lines(profile_rows(run.snapshot), cells)
        indices = [layer["index"] for layer in run.snapshot["layers"]]
        drawn = [indices[position] for position in evenly_spaced_layers(count, cells)]
        return [*lines, *(self._mark(loss, drawn) for loss in losses_of_signal(run.snapshot))]

    def _profile_cells(self, snapshot: dict[str, Any]) -> int:
        """Return the number of layers that a line of bars has room for."""
        ends = max((cell_len(row.ends) for row in profile_rows(snapshot)), default=0)
        return max(8, self._width - _LABEL - ends - 4)

    def _bar_lines(self, rows: Sequence[ProfileRow], cells: int) -> list[Text]:
        lines = []
        for row in rows:
            label = ascii_text(row.label) if self._ascii else row.label
            lines.append(Text(f"{label:>{_LABEL}} {row.bars(cells, ascii_only=self._ascii)}  {row.ends}"))
        return lines

    def _mark(self, loss: LossOfSignal, drawn: Sequence[int]) -> Text:
        """Return a line below the bars that points at the layer of a loss, or at the nearest drawn one."""
        cell = min(range(len(drawn)), key=lambda i: abs(drawn[i] - loss.layer))
        indent = " " * (_LABEL + 1 + cell)
        if len(indent) + cell_len(loss.words) + 2 <= self._width:
            return Text(f"{indent}^ {loss.words}", "yellow")
        return Text(f"{loss.words} ^".rjust(len(indent) + 1), "yellow")

    def _small_curve(self, run: RunProgress, key: str, title: str, cells: int) -> str:
        values = [value for _, value in _points(run, key)]
        drawn = text.evenly_spaced(range(len(values)), cells)
        bars = text.value_bars([values[i] for i in drawn], ascii_only=self._ascii)
        return f"{title} {bars} {_formatted(run, key)}"

    def _fitted(self, line: Text) -> Text:
        """Return a line of the screen in its character set, cut to the width."""
        if self._ascii:
            line = Text(ascii_text(line.plain), line.style)
        line.no_wrap = True
        line.truncate(self._width, overflow="crop" if self._ascii else "ellipsis")
        return line


def _curves(run: RunProgress) -> list[tuple[str, str]]:
    """Return the keys of the quantities that are drawn, with their titles."""
    score = _score(run)
    title = "val %" if score.name == "accuracy" else f"val {score.title}"
    return [(f"val_{score.name}", title), ("train_loss", "train loss")]


def _score(run: RunProgress) -> RecordedScore:
    """Return the main score of a run; the accuracy before the first evaluation."""
    return main_score(run.evaluations[-1] if run.evaluations else {}) or SCORES[0]


def _score_words(run: RunProgress) -> str:
    score = _score(run)
    return text.score_words(score, _last(run, f"val_{score.name}"))


def _name(run: RunProgress) -> str:
    seed = "" if run.seed is None else f" seed {run.seed}"
    return text.one_line(run.experiment) + seed


def _steps(run: RunProgress) -> str:
    return f"step {run.step:,}" + ("" if run.budget is None else f"/{run.budget:,}")


def _last(run: RunProgress, key: str) -> float | None:
    return parse_number_or_none(run.evaluations[-1].get(key)) if run.evaluations else None


def _formatted(run: RunProgress, key: str) -> str:
    value = _last(run, key)
    return text.format_percent(value, 1) if key == "val_accuracy" else text.format_share(value)


def _points(run: RunProgress, key: str) -> list[tuple[float, float]]:
    """Return the finite values of a learning curve; accuracies in percent."""
    scale = 100.0 if key == "val_accuracy" else 1.0
    values = [(entry["step"], parse_number_or_none(entry.get(key))) for entry in run.evaluations]
    finite = [(step, value) for step, value in values if value is not None and math.isfinite(value)]
    return [(step, scale * value) for step, value in finite if step >= 0]


def _diagnosis(run: RunProgress) -> str:
    """Return the codes of the stored diagnosis, each with its first layer; empty without a finding."""
    findings = run.record.get("diagnosis") or []
    return ", ".join(
        str(finding["code"]) + ("" if finding.get("layer") is None else f" (layer {finding['layer']})")
        for finding in findings
    )


def ended_table(ended: Sequence[RunProgress]) -> Group:
    """Return the table of the runs that ended while they were watched, printed last."""
    grid = TextTable(
        ("ended", "status", "val %", "test %", "steps", "diagnosis"), ("ended", "status", "diagnosis")
    )
    for run in ended:
        final = run.record.get("final") or {}
        accuracies = (_last(run, "val_accuracy"), parse_number_or_none(final.get("test_accuracy")))
        steps = run.record.get("steps") if run.status == "finished" else run.step
        cells = [run.run_id, run.status, *(text.format_percent(value, 1) for value in accuracies)]
        words = _diagnosis(run) or ("healthy" if run.record.get("diagnosis") == [] else text.DASH)
        grid.add([*cells, text.format_count(steps), words], _STYLES.get(run.status, "red"))
    return grid.text()


def observation_json(observation: Observation, runs_dir: str, now: float) -> str:
    """Return an observation as one strict JSON document."""
    return strict_json.dumps(
        {
            "schema": SCHEMA,
            "runs_dir": runs_dir,
            "running": [_run_document(run, now) for run in observation.running],
        }
    )


def _run_document(run: RunProgress, now: float) -> dict[str, Any]:
    copied = ("dataset", "dataset_requested", "device", "created")
    return {
        "run_id": run.run_id,
        "experiment": run.experiment,
        "seed": run.seed,
        "status": run.status,
        **{key: run.record.get(key) for key in copied},
        "step": run.step,
        "steps": run.budget,
        "steps_per_second": run.rate,
        "seconds_left": run.seconds_left(now),
        "pretraining_left": run.pretraining_left,
        "convergence": run.evaluations,
        "snapshot": run.snapshot,
        "losses_of_signal": [asdict(loss) for loss in losses_of_signal(run.snapshot)] if run.snapshot else [],
        "error": run.error,
    }
