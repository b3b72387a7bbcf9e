"""Watch runs in progress: what is shown of them, when the view ends, and that it changes no file."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pytest

from initbench.analysis.runs_in_progress import Observation, RunObserver, planned_steps
from initbench.render.watch import WatchView
from initbench.store.run_directory import LAYERS, METRICS, RUN
from initbench.store.store import Store
from initbench.store.writer import RunWriter
from tests.render.synthetic import snapshot
from tests.store.records import RECORD

COMMAND = [sys.executable, "-m", "initbench"]
CONFIG = {**RECORD["config"], "train": {"steps": 1000, "epochs": None, "batch_size": 8}}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture
def open_runs() -> Iterator[list[RunWriter]]:
    """Runs that this process holds until the end of the test."""
    writers: list[RunWriter] = []
    yield writers
    for writer in writers:
        writer._lock.release()


def begin(
    store: Store,
    open_runs: list[RunWriter],
    name: str = "relu",
    seed: int = 0,
    *,
    steps: tuple[int, ...] = (0, 100, 200),
    layers: int = 4,
) -> RunWriter:
    """Start a run that is evaluated at these steps and stays in progress."""
    record = {**RECORD, "experiment": name, "seed": seed, "config": CONFIG}
    writer = store.claim(f"{name}-s{seed}-0123456789", record, "")
    for step in steps:
        loss = 2.3 * 0.99**step
        writer.append_convergence(
            {
                "step": step,
                "epoch": 0.0,
                "train_loss": loss,
                "val_loss": loss,
                "val_accuracy": 1.0 - 0.9**step,
            }
        )
        writer.append_snapshot(snapshot("train", step, seed, layers, 1.0, False))
    open_runs.append(writer)
    return writer


def observe(store: Store, *patterns: str) -> Observation:
    return RunObserver(store, patterns).observe()


def screen(seen: Observation, width: int = 80, height: int = 24, *, ascii_only: bool = False) -> list[str]:
    lines = WatchView(width, ascii_only=ascii_only).screen(seen, height, "runs")
    assert len(lines) <= height
    assert all(len(line.plain) <= width for line in lines), lines
    return [line.plain for line in lines]


def files_of(root: Path) -> dict[str, tuple[bytes, int]]:
    """Return contents and modification time of every file below a directory."""
    paths = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def test_a_run_in_progress_is_shown_with_curves_and_layers(
    initbench: Any, store: Store, open_runs: list[RunWriter]
) -> None:
    begin(store, open_runs)
    before = files_of(store.root)
    said = initbench("watch", "--runs-dir", store.root)
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0].startswith("relu seed 0  ━━━──") and "step 200/1,000" in lines[0]
    assert "val % 100.0" in lines[1] and "train loss 0.308" in lines[1]
    assert sum("⠀" <= sign <= "⣿" for line in lines for sign in line) > 20, "curves are drawn"
    (std,) = [line for line in lines if line.split()[:1] == ["std"]]
    assert "0.48 → 0.25" in std
    (gradient,) = [line for line in lines if line.split()[:1] == ["E[δ²]"]]
    assert "█▆▃▁▇" not in gradient and re.search(r"█.*▁", gradient)
    assert any("dead %" in line for line in lines)
    assert files_of(store.root) == before, "no file has changed"


def test_half_written_lines_are_ignored(initbench: Any, store: Store, open_runs: list[RunWriter]) -> None:
    run = begin(store, open_runs)
    for name, text in ((METRICS, '{"step": 300, "train'), (LAYERS, '{"when": "train", "lay')):
        with (run.directory / name).open("a", encoding="utf-8") as file:
            file.write(text)
    said = initbench("watch", "--once", "--runs-dir", store.root)
    assert (said.code, said.err) == (0, "")
    assert "step 200/1,000" in said.out and "layers 1 to 5 at step 200" in said.out


def test_a_damaged_file_is_named_and_other_runs_are_shown(
    initbench: Any, store: Store, open_runs: list[RunWriter]
) -> None:
    damaged = begin(store, open_runs, "bad")
    (damaged.directory / METRICS).write_text("nonsense\n", encoding="utf-8")
    begin(store, open_runs, "good")
    said = initbench("watch", "--once", "--runs-dir", store.root)
    assert said.code == 0
    assert f"{damaged.directory / METRICS} is damaged" in said.out
    assert "good seed 0" in said.out


def test_a_run_with_a_damaged_record_is_shown(
    initbench: Any, store: Store, open_runs: list[RunWriter]
) -> None:
    run = begin(store, open_runs)
    record = json.loads((run.directory / RUN).read_text(encoding="utf-8"))
    (run.directory / RUN).write_text(json.dumps({**record, "config": "none", "samples": 3}), encoding="utf-8")
    said = initbench("watch", "--runs-dir", store.root)
    assert said.code == 0
    assert "relu seed 0" in said.out and "config is not a mapping" in said.out
    (shown,) = json.loads(initbench("watch", "--json", "--runs-dir", store.root).out)["running"]
    assert (shown["status"], shown["steps"]) == ("damaged", None)


def test_piped_output_is_plain_even_if_colour_is_forced(
    initbench: Any, store: Store, open_runs: list[RunWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(store, open_runs)
    monkeypatch.setenv("FORCE_COLOR", "1")
    said = initbench("watch", "--runs-dir", store.root)
    assert said.code == 0 and "relu seed 0" in said.out and "1049h" not in said.out


def test_runs_that_are_not_in_progress_are_left_out(
    initbench: Any, store: Store, open_runs: list[RunWriter]
) -> None:
    crashed = begin(store, open_runs, "crashed")
    crashed._lock.release()
    begin(store, open_runs, "stopped").stop("interrupted")
    (store.root / "damaged-s0-0123456789").mkdir()
    (store.root / "damaged-s0-0123456789" / RUN).write_text("{", encoding="utf-8")
    said = initbench("watch", "--once", "--runs-dir", store.root)
    assert (said.code, said.out) == (0, "")
    assert said.err == (
        f"No run is in progress in {store.root}. Start one: initbench run configs/relu_kaiming.yaml\n"
    )
    said = initbench("watch", "stopped", "--runs-dir", store.root)
    assert (said.code, said.out) == (0, "") and "No matching run is in progress" in said.err


def test_without_a_runs_directory_no_run_is_in_progress(initbench: Any, tmp_path: Path) -> None:
    said = initbench("watch", "--runs-dir", tmp_path / "none")
    assert (said.code, said.out) == (0, "") and "Start one: initbench run" in said.err
    assert not (tmp_path / "none").exists()


def test_patterns_select_runs(initbench: Any, store: Store, open_runs: list[RunWriter]) -> None:
    for name in ("relu", "tanh"):
        begin(store, open_runs, name)
    said = initbench("watch", "ta*", "--once", "--runs-dir", store.root)
    assert "tanh seed 0" in said.out and "relu" not in said.out
    said = initbench("watch", "tahn", "--runs-dir", store.root)
    assert (said.code, said.out) == (2, "") and "did you mean 'tanh'?" in said.err


def test_the_json_document(initbench: Any, store: Store, open_runs: list[RunWriter]) -> None:
    begin(store, open_runs, steps=(0, 100))
    said = initbench("watch", "--json", "--runs-dir", store.root)
    document = json.loads(said.out)
    assert document["schema"] == "initbench.watch/1" and document["runs_dir"] == str(store.root)
    (run,) = document["running"]
    assert (run["experiment"], run["seed"], run["status"]) == ("relu", 0, "running")
    assert (run["step"], run["steps"], run["pretraining_left"]) == (100, 1000, 0)
    assert [entry["step"] for entry in run["convergence"]] == [0, 100]
    assert run["snapshot"]["step"] == 100 and len(run["snapshot"]["layers"]) == 5
    assert run["error"] is None
    empty = json.loads(initbench("watch", "--json", "--runs-dir", store.root / "none").out)
    assert empty["running"] == []


def test_more_runs_are_drawn_in_less_detail(store: Store, open_runs: list[RunWriter]) -> None:
    begin(store, open_runs)
    one = screen(observe(store))
    assert any("└" in line for line in one), "a plot with axes"
    for seed in (1, 2, 3):
        begin(store, open_runs, seed=seed)
    four = screen(observe(store))
    assert not any("└" in line for line in four)
    assert [sum(word in line for line in four) for word in ("seed", "train loss", "std ")] == [4, 4, 4]


@pytest.mark.parametrize("width", [80, 120])
def test_runs_that_do_not_fit_are_counted_and_named(
    store: Store, open_runs: list[RunWriter], width: int
) -> None:
    for seed in range(100):
        begin(store, open_runs, "relu" if seed < 60 else "tanh", seed, steps=(0, 100))
    lines = screen(observe(store), width)
    assert lines[0].startswith("initbench watch   runs · 100 running")
    rows = [line for line in lines if " seed " in line]
    assert len(rows) == 22 and all("step 100/1,000" in row for row in rows)
    assert lines[-1] == "and 78 more runs in progress: relu (38 runs), tanh (40 runs)"
    tall = screen(observe(store), width, 103)
    assert len([line for line in tall if " seed " in line]) == 100 and "more" not in tall[-1]


def test_an_ascii_terminal_gets_ascii(store: Store, open_runs: list[RunWriter]) -> None:
    begin(store, open_runs)
    for seeds in (1, 4, 30):
        for seed in range(len(open_runs), seeds):
            begin(store, open_runs, seed=seed)
        lines = screen(observe(store), ascii_only=True)
        assert "".join(lines).isascii() and "?" not in "".join(lines)
        assert any("##..." in line.replace(" ", "") for line in lines), "progress is visible"


def test_the_first_layer_without_a_signal_is_marked(store: Store, open_runs: list[RunWriter]) -> None:
    run = begin(store, open_runs, steps=())
    layers = snapshot("train", 5, 0, 6, 1.0, False)
    for layer in layers["layers"][2:6]:
        layer["pre"].update(q=1e-9, signal=1e-9)
    for i, layer in enumerate(layers["layers"][:6]):
        layer["grad"]["pre_q"] = 10.0 ** (3 * i)
    run.append_snapshot(layers)
    said = "\n".join(screen(observe(store), 120)) + "\n"
    assert f"\n{'':12}  ^ layer 3: signal < 0.0001 × first\n" in said, "below the third bar"
    assert f"\n{'':12}   ^ layer 4: E[δ²] < 0.0001 × last\n" in said
    layers["step"] = 6
    layers["layers"][1]["pre"]["q"] = float("nan")
    run.append_snapshot(layers)
    assert "layer 2: not finite" in "\n".join(screen(observe(store), 120))


def test_the_rate_follows_from_the_times_of_the_files(store: Store, open_runs: list[RunWriter]) -> None:
    run = begin(store, open_runs, steps=())
    observer = RunObserver(store, ())
    start = (run.directory / RUN).stat().st_mtime
    for step, seconds, rate in ((0, 2.0, None), (100, 4.0, 50.0), (300, 9.0, 40.0)):
        begin_line = {"step": step, "train_loss": 1.0, "val_loss": 1.0, "val_accuracy": 0.5}
        run.append_convergence(begin_line)
        os.utime(run.directory / METRICS, (start + seconds, start + seconds))
        (seen,) = observer.observe().running
        assert seen.rate == (None if rate is None else pytest.approx(rate, rel=1e-3))
    assert seen.seconds_left(start + 10.0) == pytest.approx(700 / 40 - 1.0, abs=1e-2)


@pytest.mark.parametrize(
    ("train", "samples", "steps"),
    [
        ({"steps": 7, "epochs": None, "batch_size": 8}, {"train": 100}, 7),
        ({"steps": None, "epochs": 2.5, "batch_size": 8}, {"train": 100}, 30),
        ({"steps": None, "epochs": 0.01, "batch_size": 8}, {"train": 100}, 1),
        ({"steps": None, "epochs": 2.5, "batch_size": 8}, None, None),
        (None, None, None),
    ],
)
def test_the_budget_is_that_of_the_training(train: Any, samples: Any, steps: int | None) -> None:
    assert planned_steps({"config": {"train": train}, "samples": samples}) == steps


def test_runs_that_end_and_begin_are_noticed(store: Store, open_runs: list[RunWriter]) -> None:
    first, other = begin(store, open_runs), begin(store, open_runs, "killed")
    observer = RunObserver(store, ())
    assert len(observer.observe().running) == 2
    first.finish({"final": {"val_accuracy": 0.5, "test_accuracy": 0.6}, "steps": 1000})
    other._lock.release()
    begin(store, open_runs, "quick").stop("interrupted")
    begin(store, open_runs, "next")
    seen = observer.observe()
    assert [run.experiment for run in seen.running] == ["next"]
    assert {run.experiment: run.status for run in seen.ended} == {
        "relu": "finished",
        "killed": "crashed",
        "quick": "interrupted",
    }
    lines = screen(seen)
    assert "relu seed 0 finished, val 100.0 %" in lines
    resumed = store.claim("quick-s0-0123456789", {**RECORD, "experiment": "quick", "config": CONFIG}, "")
    open_runs.append(resumed)
    seen = observer.observe()
    assert {run.experiment for run in seen.running} == {"next", "quick"}
    assert "quick" not in {run.experiment for run in seen.ended}


def test_the_next_attempt_of_a_finished_run_is_shown(store: Store, open_runs: list[RunWriter]) -> None:
    begin(store, open_runs).finish({"final": {"val_accuracy": 0.5, "test_accuracy": 0.6}, "steps": 1000})
    record = {**RECORD, "config": CONFIG}
    again = store.claim("relu-s0-0123456789", record, "", rerun=True)
    open_runs.append(again)
    again.append_convergence({"step": 0, "train_loss": 1.0, "val_loss": 1.0, "val_accuracy": 0.25})
    (seen,) = observe(store).running
    assert seen.status == "running" and [entry["val_accuracy"] for entry in seen.evaluations] == [0.25]


class Terminal:
    """A command in a pseudo-terminal of a given size."""

    def __init__(self, command: list[str], rows: int, columns: int, **more: Any) -> None:
        self._leader, follower = pty.openpty()
        ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, **more)
        os.close(follower)
        self.text = ""

    def read(self, until: str = "", seconds: float = 60.0) -> str:
        """Read until a text is printed or the command ends, and return all that was printed."""
        deadline = time.monotonic() + seconds
        while (not until or until not in self.text) and time.monotonic() < deadline:
            if select.select([self._leader], [], [], 0.1)[0]:
                try:
                    self.text += os.read(self._leader, 65536).decode("utf-8", "replace")
                except OSError:  # the command has ended
                    break
        return self.text

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._leader)


TRAINING = """\
kind: experiment
name: watched
data: {name: digits}
model: {family: mlp, depth: 4, width: 16}
train: {steps: 10000000, batch_size: 32, lr: 0.01, eval_every: 200}
"""


@pytest.fixture
def training(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A command that trains one run until it is stopped."""
    (tmp_path / "watched.yaml").write_text(TRAINING, encoding="utf-8")
    command = [*COMMAND, "run", "watched.yaml", "-q"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list(tmp_path.glob(f"runs/*/{LAYERS}")):
        time.sleep(0.05)
    yield process
    process.kill()
    process.wait()


@pytest.mark.slow
def test_a_training_is_watched_until_it_ends(tmp_path: Path, training: subprocess.Popen[bytes]) -> None:
    environment = {**os.environ, "TERM": "xterm-256color"}
    terminal = Terminal([*COMMAND, "watch", "--interval", "0.2"], 30, 100, cwd=tmp_path, env=environment)
    try:
        shown = terminal.read("E[δ²]")
        assert "watched seed 0" in shown and "1 running" in shown
        training.send_signal(signal.SIGINT)
        training.wait(timeout=60)
        stopped = files_of(tmp_path / "runs")
        assert re.search(r"watched-s0-\w+ +interrupted", terminal.read()), "a table is printed at the end"
        assert terminal.process.wait(timeout=60) == 0
        assert files_of(tmp_path / "runs") == stopped
    finally:
        terminal.close()


@pytest.mark.slow
def test_ctrl_c_ends_the_view_and_not_the_training(tmp_path: Path, training: subprocess.Popen[bytes]) -> None:
    environment = {**os.environ, "TERM": "xterm-256color"}
    terminal = Terminal([*COMMAND, "watch"], 24, 80, cwd=tmp_path, env=environment)
    try:
        assert "watched seed 0" in terminal.read("watched seed 0")
        terminal.process.send_signal(signal.SIGINT)
        assert "initbench: interrupted" in terminal.read() and "Traceback" not in terminal.text
        assert terminal.process.wait(timeout=60) == 130
        assert "\x1b[?1049l" in terminal.text, "the terminal is restored"
        assert training.poll() is None
    finally:
        terminal.close()
