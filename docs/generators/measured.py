"""Render the outputs quoted in the README and the tutorial, and the results table, from stored runs.

The text between a pair of markers in a page is rewritten:

    <!-- measured: show NAME DATASET [layers] [convergence] [diagnosis] -->   (no part named: all of them)
    <!-- measured: compare DATASET NAME... -->
    <!-- measured: results [NAME...] -->   (no name: all shipped configs)
    <!-- measured: initbench COMMAND ARGUMENT... -->   (the command, and what it prints on a terminal)
    <!-- /measured -->

The runs are those of the shipped configs, unchanged and with data.name=digits:

    initbench run configs/*.yaml --runs-dir DIR
    initbench run configs/*.yaml data.name=digits --runs-dir DIR
"""

from __future__ import annotations

import io
import os
import pty
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table as RichTable

from docs.generators.markdown import NOTHING, code, table
from initbench.analysis.run_summary import summarise_run
from initbench.analysis.tables import Row, Table, build_tables
from initbench.render import run_tables, text
from initbench.render.compare import output
from initbench.store.run_directory import COMPLETE
from initbench.store.store import Store, StoredRun

_WIDTH, _TEXT_WIDTH = 240, 105
"""Widths for tables, which must not lose a digit, and for the sentences of a diagnosis."""
_MARKER = re.compile(r"(<!-- measured: ([^>]*?) -->\n).*?(<!-- /measured -->)", re.DOTALL)
_STYLE = re.compile(r"\x1b\[[0-9;]*m")
_DATASETS = ("mnist", "digits")


def renderer(runs_dir: Path, configs: Path) -> Callable[[str], str]:
    """Return a function that fills the markers of a page from the runs in `runs_dir`."""
    store = Store(runs_dir)
    runs = [store.read(record["run_id"]) for record in store.records() if record["status"] in COMPLETE]

    def render(current: str) -> str:
        def fill(match: re.Match[str]) -> str:
            words = shlex.split(match[2])
            content = (
                _run_command(words, runs_dir) if words[0] == "initbench" else _content(words, runs, configs)
            )
            return f"{match[1]}\n{content}\n\n{match[3]}"

        return _MARKER.sub(fill, current)

    return render


def _content(words: Sequence[str], runs: Sequence[StoredRun], configs: Path) -> str:
    kind, *rest = words
    if kind == "show":
        name, dataset, *parts = rest
        return _block(_experiment_sections(_pick(runs, dataset, [name]), parts))
    if kind == "compare":
        dataset, *names = rest
        return _block(output.comparison_renderables(_tables(_pick(runs, dataset, names))))
    if kind == "results":
        return _results(runs, rest or sorted(path.stem for path in configs.glob("*.yaml")))
    raise ValueError(f"unknown marker: measured: {' '.join(words)}")


def _run_command(words: Sequence[str], runs_dir: Path) -> str:
    """Return a command and its output on a terminal of _TEXT_WIDTH columns, whatever its exit code."""
    environment = {
        **os.environ,
        "COLUMNS": str(_TEXT_WIDTH),
        "TERM": "xterm",
        "NO_COLOR": "1",
        "INITBENCH_RUNS": str(runs_dir),
    }
    master, terminal = pty.openpty()
    command = [sys.executable, "-m", "initbench", *words[1:]]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal, env=environment
    )
    os.close(terminal)
    printed = b"".join(_read_terminal(master))
    os.close(master)
    process.wait()
    plain = _STYLE.sub("", printed.decode()).replace("\r\n", "\n")
    lines = [line.rstrip() for line in plain.rstrip().splitlines()]
    return "\n".join(["```console", f"$ {shlex.join(words)}", "", *lines, "```"])


def _read_terminal(terminal: int) -> Iterator[bytes]:
    """Yield the output of a terminal; reading fails once the last writer has closed it."""
    while True:
        try:
            part = os.read(terminal, 1 << 16)
        except OSError:
            return
        if not part:
            return
        yield part


def _pick(runs: Sequence[StoredRun], dataset: str, names: Sequence[str]) -> list[StoredRun]:
    """Return the runs of these experiments on this data set; each must have exactly one variant."""
    selected = []
    for name in names:
        of_name = [r for r in runs if (r.record["experiment"], r.record["dataset"]) == (name, dataset)]
        arms = {run.record["arm"] for run in of_name}
        if len(arms) != 1:
            raise ValueError(f"{len(arms)} variants of {name} on {dataset} are stored, one is needed")
        selected += sorted(of_name, key=lambda run: int(run.record["seed"]))
    return selected


def _experiment_sections(runs: list[StoredRun], parts: Sequence[str]) -> list[RenderableType]:
    blank = ""
    sections: dict[str, RenderableType] = {
        "layers": run_tables.activation_table(runs, all_layers=False, width=_TEXT_WIDTH),
        "convergence": run_tables.convergence_table(runs, width=_TEXT_WIDTH),
        "diagnosis": run_tables.render_diagnosis(runs),
    }
    pieces: list[RenderableType] = [run_tables.render_heading(runs)]
    for part in parts or sections:
        pieces += [blank, sections[part]]
    return pieces


def _block(pieces: Sequence[RenderableType]) -> str:
    file = io.StringIO()
    for piece in pieces:
        width = _TEXT_WIDTH if isinstance(piece, RichTable) else _WIDTH
        console = Console(file=file, width=width, markup=False, emoji=False, highlight=False, no_color=True)
        console.print(piece, crop=False)
    lines = [line.rstrip() for line in file.getvalue().rstrip().splitlines()]
    return "\n".join(["```text", *lines, "```"])


def _results(runs: Sequence[StoredRun], names: Sequence[str]) -> str:
    shipped = [run for run in runs if run.record["experiment"] in names]
    by_dataset = {
        dataset: _with_one_target([run for run in shipped if run.record["dataset"] == dataset])
        for dataset in _DATASETS
        if any(run.record["dataset"] == dataset for run in shipped)
    }
    header = ["config"]
    for dataset, dataset_tables in by_dataset.items():
        target = dataset_tables[0].target if dataset_tables else None
        goal = "target" if target is None else f"{100 * target:.1f} %"
        header += [f"{dataset}: test accuracy %", f"{dataset}: steps to {goal}"]
    codes = [_codes([r for r in runs if r.record["experiment"] == name]) for name in names]
    rows = []
    for name, diagnosis in zip(names, codes, strict=True):
        row = [f"[{code(name)}](configs/{name}.yaml)"]
        for dataset_tables in by_dataset.values():
            row += _result_cells(dataset_tables, name)
        rows.append([*row, diagnosis])
    return table([*header, "diagnosis"], rows) + "\n\n" + _caption(shipped)


def _tables(runs: Sequence[StoredRun], target: float | None = None) -> list[Table]:
    return build_tables((summarise_run(run) for run in runs), target=target)


def _with_one_target(runs: Sequence[StoredRun]) -> list[Table]:
    """Return the tables of one data set, whatever the budgets; all use the highest of their targets."""
    targets = [table.target for table in _tables(runs) if table.target is not None]
    return _tables(runs, max(targets, default=None))


def _result_cells(dataset_tables: Sequence[Table], name: str) -> list[str]:
    rows = [row for table in dataset_tables for row in table.rows if row.key["experiment"] == name]
    if len(rows) > 1:
        raise ValueError(f"{name} has {len(rows)} variants, one is needed")
    return _cells(rows[0]) if rows else [NOTHING, NOTHING]


def _cells(row: Row) -> list[str]:
    if row.diverged == row.n:
        return ["diverged", NOTHING]
    steps = row.metrics["steps_to_target"]
    reached = text.count_summary(steps) if steps.mean is not None else "not reached"
    return [text.percent_summary(row.metrics["test_accuracy"]), reached]


def _codes(runs: Sequence[StoredRun]) -> str:
    by_dataset = {name: [run for run in runs if run.record["dataset"] == name] for name in _DATASETS}
    diagnosed = next((runs for runs in by_dataset.values() if runs), [])
    if not diagnosed:
        return NOTHING
    codes = dict.fromkeys(finding["code"] for run in diagnosed for finding in run.record["diagnosis"] or [])
    return ", ".join(map(code, codes)) or "healthy"


def _caption(runs: Sequence[StoredRun]) -> str:
    seeds = {len({r.record["seed"] for r in runs if r.record["experiment"] == name}) for name in _names(runs)}
    versions: dict[str, Any] = runs[0].record["versions"]
    count = " or ".join(map(str, sorted(seeds)))
    return (
        f"Values are means ± standard deviations over n = {count} seeds; {NOTHING} stands for a value that"
        " was not measured or does not exist. The validation accuracy is evaluated ten times per run, so the"
        " steps to the target are accurate to a tenth of the budget. The diagnosis is for mnist, or for"
        " digits if the config was not measured on mnist."
        f" initbench {versions['initbench']}, torch {versions['torch'].split('+')[0]}, CPU."
    )


def _names(runs: Sequence[StoredRun]) -> list[str]:
    return sorted({run.record["experiment"] for run in runs})
