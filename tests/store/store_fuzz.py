"""Changes to the files of a store, and everything that reads them, called as the commands call it."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import random
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

from rich.console import Console

from initbench.analysis.damaged_runs import damage_messages
from initbench.analysis.gates.evaluate import evaluate_gates, read_gates
from initbench.analysis.load_runs import load_run_summaries
from initbench.analysis.regression.changes import compare_states
from initbench.analysis.regression.reference_document import read_document
from initbench.analysis.tables import build_tables
from initbench.analysis.tuning_warnings import edge_of_range_warnings
from initbench.cli.ls import run_table
from initbench.cli.main import run_command
from initbench.errors import InitbenchError
from initbench.render.compare.display_options import View
from initbench.render.compare.output import render_comparison
from initbench.render.regression import against_document, change_lines
from initbench.render.run_documents import compare_document, runs_document
from initbench.render.run_tables import failure_tracebacks, render_experiment
from initbench.store import strict_json, sweep_index
from initbench.store.store import Store, StoredRun

MISSING = object()
DEEP: Any = None
for _ in range(200):
    DEEP = [DEEP]
VALUES: tuple[Any, ...] = (
    MISSING,
    None,
    "NaN",
    "Infinity",
    "-Infinity",
    1e308,
    -1e308,
    5e-324,
    -1,
    0,
    0.5,
    3,
    2**63,
    10**400,
    True,
    "x",
    "",
    "1",
    "::error::x",
    "\x1b[31mred\x07\r",
    "=1+1",
    "\ud800",
    "x" * 5000,
    [],
    {},
    [None],
    [1, "x", None],
    [[1.0]],
    {"name": None},
    {"name": "x", "a": [1]},
    {"a": {"b": {}}},
    DEEP,
)
"""What a value is replaced by: wrong types, nothing, numbers beyond all bounds, text that means something."""


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to each value of a document, its first two items standing for a list."""
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*path, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value[:2]):
            yield from places(inner, (*path, i))


def changed(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The document with another value at that place, or without it."""
    if not path:
        return None if value is MISSING else value
    document = copy.deepcopy(document)
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    if value is not MISSING:
        parent[path[-1]] = value
    elif isinstance(parent, dict):
        del parent[path[-1]]
    else:
        parent.pop(path[-1])
    return document


@dataclass
class Tally:
    """Counts of the outcomes of the cases."""

    cases: int = 0
    refused: int = 0
    """Files that are reported as damaged."""
    read: int = 0
    """Files that are read as they are, by everything that reads them."""
    failures: list[str] = field(default_factory=list)

    def __iadd__(self, other: Tally) -> Tally:
        self.cases += other.cases
        self.refused += other.refused
        self.read += other.read
        self.failures += other.failures
        return self


def mutants(content: bytes, rng: random.Random) -> Iterator[bytes]:
    """Contents of a file of JSON, or of lines of JSON, with one thing changed; without end."""
    lines = content.splitlines(keepends=True)
    whole = [json.loads(line) for line in lines]
    everywhere = [[*places(document)] for document in whole]
    every = [(i, path) for i, paths in enumerate(everywhere) for path in paths]
    while True:
        if rng.random() < 0.05:
            yield _torn(content, rng)
            continue
        i, path = rng.choice(every)
        document = changed(whole[i], path, rng.choice(VALUES))
        if rng.random() < 0.2:  # two things at once
            with suppress(LookupError, TypeError, AttributeError):  # the place may be gone
                document = changed(document, rng.choice(everywhere[i]), rng.choice(VALUES))
        text = json.dumps(document).encode() + b"\n"
        yield b"".join([*lines[:i], text, *lines[i + 1 :]])


def _torn(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content))
    kinds: list[Callable[[], bytes]] = [
        lambda: content[:at],
        lambda: content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :],
        lambda: content[:at] + bytes(8) + content[at + 8 :],
        lambda: content + content,
        lambda: content[:at] + content[rng.randrange(len(content)) :],
        lambda: b"[" * 5000,
    ]
    return rng.choice(kinds)()


def tally_of(mutant: bytes) -> int:
    """A number that says which mutants are taken."""
    return zlib.crc32(mutant)


class Fuzz:
    """A store of a few runs, one file of which is changed again and again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = Store(root)
        self.expected = len(self.store.records())

    def attack(self, path: Path, cases: int, seed: int) -> Tally:
        """Change a file of a run `cases` times, and run every reader on the store each time."""
        content, tally = path.read_bytes(), Tally()
        manifest = path.parent / "manifest.json"
        document = json.loads(manifest.read_text()) if manifest.exists() else None
        for mutant in _first(mutants(content, random.Random(seed)), cases):
            path.write_bytes(mutant)
            if document is not None and path.name in document["files"]:
                document["files"][path.name]["bytes"] = len(mutant)
                manifest.write_text(json.dumps(document))
            tally += self._case(path, mutant)
        path.write_bytes(content)
        return tally

    def _case(self, path: Path, mutant: bytes) -> Tally:
        try:
            gleaned = self.store.read_or_mark_damaged(path.parent.name)
            is_refused = gleaned is None or gleaned.record["status"] == "damaged"
            if not is_refused or tally_of(mutant) % 8 == 0:  # what is damaged looks alike to the others
                self.readers(path.parent.name)
            return Tally(1, int(is_refused), int(not is_refused))
        except InitbenchError as error:
            return Tally(1, failures=[f"{path.name}: {error!r} for {mutant[:3000]!r}"])
        except Exception as error:
            import traceback

            where = traceback.extract_tb(error.__traceback__)[-1]
            at = f"{where.filename.rpartition('initbench/')[2]}:{where.lineno}"
            return Tally(1, failures=[f"{path.name}: {at}: {error!r}"])

    def readers(self, run_id: str) -> None:
        """Read the store as `ls`, `compare` and `show` do."""
        runs = load_run_summaries(self.store, [])
        assert len(runs) >= self.expected - 1, "the others are there"
        inert("\n".join(damage_messages(runs, self.root)), lines=False)
        comparisons([run for run in runs if run.is_placed])
        console = quiet()
        console.print(run_table(self.store.records(), datetime.now(UTC)))
        inert(printed(console))
        shown = [run for run in map(self.store.read_or_mark_damaged, self.peers(run_id)) if run is not None]
        whole = [run for run in shown if run.record["status"] != "damaged"]
        if whole:
            show(whole)

    def peers(self, run_id: str) -> list[str]:
        """The runs of the same experiment."""
        experiment_name = run_id.rpartition("-s")[0]
        return [path.name for path in self.root.iterdir() if path.name.startswith(f"{experiment_name}-s")]


def _first(cases: Iterator[bytes], count: int) -> Iterator[bytes]:
    return (next(cases) for _ in range(count))


@cache
def _gates() -> list[Any]:
    return read_gates(["max(final_val_accuracy) < 0.5", "test_accuracy < 0.1", "divergence_rate > 10 %"])


_VIEWS = (
    View(format="markdown"),
    View(format="markdown", layers=True),
    View(plot=True, format="markdown"),
    View(format="csv"),
    View(format="json"),
)


def comparisons(runs: list[Any]) -> None:
    """Render the comparison of runs in each format; an InitbenchError is an acceptable outcome."""
    with suppress(InitbenchError):
        found = build_tables(runs)
        for view in _VIEWS:  # Markdown has the cells of the table, and takes a tenth of its time
            inert(render_comparison(found, view), lines=view.format == "markdown")
        evaluate_gates(_gates(), found)
    with suppress(InitbenchError):
        inert(
            render_comparison(build_tables(runs, by=("model.norm", "init.scheme")), View(format="markdown"))
        )


def show(runs: list[StoredRun]) -> None:
    """Render the runs of one experiment as `show` does."""
    console = quiet()
    console.print(render_experiment(runs, all_layers=True, width=200))
    console.print("\n".join(failure_tracebacks(runs)))
    inert(printed(console))
    strict_json.dumps(runs_document(runs))


def inert(text: str, *, lines: bool = True) -> None:
    """Assert that what is printed does nothing to a terminal or to a CI job that shows it."""
    assert "\x1b" not in text
    assert "\x07" not in text
    text.encode()
    if lines:
        assert not any(line.lstrip().startswith("::") for line in text.splitlines())


def quiet() -> Console:
    return Console(
        file=io.StringIO(), width=200, markup=False, emoji=False, highlight=False, color_system=None
    )


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def attack_document(root: Path, cases: int, seed: int) -> Tally:
    """Hold a store against a changed document of `compare --json`."""
    found = build_tables(load_run_summaries(Store(root), []))
    content, tally = strict_json.dumps(compare_document(found)).encode(), Tally()
    path = root.parent / "against.json"
    for mutant in _first(mutants(content, random.Random(seed)), cases):
        path.write_bytes(mutant)
        tally += _against(path, found)
    return tally


def _against(path: Path, found: Any) -> Tally:
    try:
        earlier = read_document(path)
    except InitbenchError:
        return Tally(1, 1, 0)
    except Exception as error:
        return Tally(1, failures=[f"against: {error!r}"])
    try:
        what = compare_states(found, earlier)
        strict_json.dumps(against_document(what, "x"))
        inert("\n".join(change_lines(what)))
        with suppress(InitbenchError):
            evaluate_gates(
                read_gates(["final_val_accuracy < before.final_val_accuracy - 1 %"]), found, reference=earlier
            )
    except Exception as error:
        return Tally(1, failures=[f"against: {error!r}"])
    return Tally(1, 0, 1)


def attack_sweep(root: Path, cases: int, seed: int) -> Tally:
    """Read a store whose file of a sweep is changed."""
    (path,) = (root / ".sweeps").glob("*.json")
    content, tally = path.read_bytes(), Tally()
    runs = load_run_summaries(Store(root), [])
    for mutant in _first(mutants(content, random.Random(seed)), cases):
        path.write_bytes(mutant)
        refused = 0
        try:
            try:
                sweep_index.run_ids_of(sweep_index.read_points(root, path.stem))
            except InitbenchError:
                refused = 1
            for sentence in edge_of_range_warnings(root, runs):
                sentence.encode("utf-8", "strict")
            tally += Tally(1, refused, 1 - refused)
        except Exception as error:
            tally += Tally(1, failures=[f"sweep: {error!r}"])
    path.write_bytes(content)
    return tally


def attack_summary(path: Path, cases: int, seed: int) -> Tally:
    """Read a store with a changed summary: the answer is always that of the other files."""
    store, tally, content = Store(path.parents[1]), Tally(), path.read_bytes()
    expected = [repr(run) for run in load_run_summaries(store, [])]
    for mutant in _first(mutants(content, random.Random(seed)), cases):
        path.write_bytes(mutant)
        if mutant != content and [repr(run) for run in load_run_summaries(store, [])] != expected:
            tally += Tally(1, failures=["summary: another answer"])
        else:
            tally += Tally(1, 1, 0)
    path.write_bytes(content)
    return tally


def copied(source: Path, target: Path) -> Path:
    """A store to be changed."""
    shutil.copytree(source, target)
    return target


def small_store(directory: Path) -> Path:
    """A store with runs of two experiments, one of them with batch norm, and a sweep that was tuned."""
    root = directory / "runs"
    small = ["data.name=digits", "model.depth=3", "model.width=6", "train.steps=6", "train.batch_size=16"]
    small += ["probe.bins=3", "probe.batch=16", "train.eval_every=3", "seeds=2", "-q"]
    small += ["--executor", "inprocess", "--runs-dir", str(root)]
    config = "configs/relu_kaiming.yaml"
    batch_norm = ["model.norm=batch", "probe.covariate_shift=2", "name=batch_norm"]
    assert quietly(["run", config, *small]) == quietly(["run", config, *small, *batch_norm]) == 0
    tuning = {
        **{
            "key": "train.lr",
            "metric": "final_val_accuracy",
            "best": 0.1,
            "good": [0.1, 0.1],
            "decades": 0.0,
        },
        **{"edge": "high", "runs": 2, "seconds": 1.0},
        "tried": [{"value": lr, "score": 0.5 + lr, "runs": 1, "lost": 0} for lr in (0.01, 0.1)],
    }
    runs = sorted(path.name for path in root.iterdir() if path.name.startswith("relu"))
    point = {"experiment": "relu_kaiming", "keys": {"model.depth": 3}, "runs": runs}
    sweep_index.add_points(root, "tuned", {"p": {**point, "tuning_runs": [], "tuning": tuning}})
    return root


def attacks(root: Path) -> dict[str, Callable[[int, int], Tally]]:
    """Return, by file name, a function (cases, seed) that changes the file and tallies the outcomes."""
    fuzz = Fuzz(root)
    directory = next(path for path in root.iterdir() if path.name.startswith("batch_norm-s0"))
    names = ("run.json", "metrics.jsonl", "layers.jsonl", "shift.jsonl", "manifest.json")
    found: dict[str, Callable[[int, int], Tally]] = {
        name: partial(fuzz.attack, directory / name) for name in names
    }
    return {
        **found,
        ".sweeps/NAME.json": partial(attack_sweep, root),
        "summary.jsonl": partial(attack_summary, directory / "summary.jsonl"),
        "compare --json, for --against": partial(attack_document, root),
    }


def quietly(arguments: list[str]) -> int:
    """Call the command line, and keep what it prints to itself."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return run_command(arguments)
