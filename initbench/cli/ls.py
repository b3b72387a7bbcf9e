"""`initbench ls`: list stored runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from initbench.cli.completion import complete_ls_group, complete_ls_sort
from initbench.cli.options import Json, RunPatterns, RunsDir, runs_root
from initbench.cli.run_groups import group_heading, group_runs, sort_runs
from initbench.errors import StoreError, UnknownNameError
from initbench.render.terminal import print_uncut, stdout_console
from initbench.render.text import dataset_used, format_loss, format_percent
from initbench.render.text_table import TextTable
from initbench.store import strict_json, sweep_index
from initbench.store.misplaced import describe_misplaced, find_misplaced
from initbench.store.run_directory import RUN, STATUSES, STOPPED
from initbench.store.store import Store
from initbench.store.strict_json import parse_number_or_none

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Group


SCHEMA = "initbench.ls/1"
_COPIED = (
    "run_id",
    "experiment",
    "seed",
    "status",
    "dataset",
    "dataset_requested",
    "device",
    "created",
    "finished",
)
_STYLES = {"running": "cyan", "diverged": "yellow", "failed": "red", "interrupted": "dim"}
_STYLES |= dict.fromkeys(("crashed", "damaged"), "red")
Summary = Mapping[str, Any]
Groups = tuple[str, Sequence[Summary]]
"""The key of the groups, and the groups as returned by `group_runs`."""
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def ls(
    patterns: RunPatterns = None,
    runs_dir: RunsDir = None,
    status: Annotated[
        str | None, typer.Option("--status", metavar="STATUS", help="Only runs with this status.")
    ] = None,
    sweep: Annotated[
        str | None, typer.Option("--sweep", metavar="NAME", help="Only the runs of this sweep.")
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            "--sort",
            metavar="[-]KEY",
            help="Sort by age, val, test, steps, status …; - for descending.",
            autocompletion=complete_ls_sort,
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            metavar="KEY",
            help="One line per experiment, status, data, device or seed.",
            autocompletion=complete_ls_group,
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare all files of finished runs with their manifests.")
    ] = False,
    json_output: Json = False,
) -> None:
    """List the stored runs: status, data set, accuracy, steps and age.

    Runs whose process died or whose files are incomplete are listed as crashed, runs whose run.json is
    missing, unreadable or incomplete as damaged. With --verify, exit 3 and name the files if a run has
    changed since it was stored. With --by, accuracies are means.
    """
    store = Store(runs_root(runs_dir))
    records = _select(store, patterns or [], status, sweep)
    problems = {record["run_id"]: _find_problems(store, record) for record in records} if verify else {}
    misplaced = [] if status or sweep else _misplaced(store.root, patterns or [])
    if sort is not None:
        by_id = {record["run_id"]: record for record in records}
        records = [by_id[run["run_id"]] for run in sort_runs(list(map(_summary, records)), sort)]
    groups = None if by is None else (by, group_runs(list(map(_summary, records)), by))
    _print(records, groups, problems, _empty_message(store.root, status), json_output=json_output)
    lines = [f"{run_id}: {problem}" for run_id, run_problems in problems.items() for problem in run_problems]
    if verify and (lines or misplaced):
        raise StoreError("\n".join([*lines, *misplaced]))
    for sentence in misplaced:
        typer.echo(sentence, err=True)


def _misplaced(root: Path, patterns: Sequence[str]) -> list[str]:
    """Describe runs that are not listed because their directories have wrong names."""
    return describe_misplaced(run for run in find_misplaced(root) if run.matches(patterns))


def _find_problems(store: Store, record: dict[str, Any]) -> list[str]:
    """Return the changes of a run since it was stored; empty for unfinished runs."""
    if record["status"] == "damaged":
        return [f"{RUN} is damaged: {record['error']}"]
    ended = record.get("finished") is not None and record["status"] not in STOPPED
    return store.verify(record["run_id"]) if ended else []


def _print(
    records: Sequence[dict[str, Any]],
    groups: Groups | None,
    problems: dict[str, list[str]],
    empty_message: str,
    *,
    json_output: bool,
) -> None:
    if json_output:
        runs = [_summary(record) for record in records]
        if problems:
            runs = [{**run, "problems": problems[str(run["run_id"])]} for run in runs]
        grouped = {} if groups is None else {"groups": groups[1]}
        typer.echo(strict_json.dumps({"schema": SCHEMA, "runs": runs, **grouped}))
    elif records:
        now = datetime.now(UTC)
        table = run_table(records, now) if groups is None else group_table(groups, now)
        print_uncut(stdout_console(), table)
    else:
        typer.echo(empty_message, err=True)


def run_table(records: Sequence[dict[str, Any]], now: datetime) -> Group:
    """Return a table with one line per record, without truncation."""
    grid = TextTable(
        ("run", "status", "data", "val %", "test %", "steps", "age"), left_aligned=("run", "status", "data")
    )
    for record in records:
        cells = _table_cells(_summary(record), now)
        grid.add(cells, _STYLES.get(cells[1]))
    return grid.text()


def group_table(groups: Groups, now: datetime) -> Group:
    """Return a table with one line per group: status counts, mean accuracies, age of the newest run."""
    by, rows = groups
    key = group_heading(by)
    grid = TextTable((by, "runs", "status", "val %", "test %", "age"), left_aligned=(by, "status"))
    for row in rows:
        statuses = row["statuses"]
        words = list(statuses) if len(statuses) == 1 else [f"{n} {name}" for name, n in statuses.items()]
        accuracies = (_format_score(row, "val"), _format_score(row, "test"))
        value = "–" if row[key] is None else str(row[key])
        grid.add([value, str(row["runs"]), ", ".join(words), *accuracies, format_age(row["created"], now)])
    return grid.text()


def format_age(created: object, now: datetime) -> str:
    """Format the time since `created` (ISO 8601) in its largest unit, e.g. `3 min`."""
    try:
        seconds = (now - datetime.fromisoformat(str(created))).total_seconds()
    except (ValueError, TypeError):
        return "–"
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return "0 s"


def _select(store: Store, patterns: list[str], status: str | None, sweep: str | None) -> list[dict[str, Any]]:
    if status is not None and status not in STATUSES:
        from initbench.registry import unknown_name_message

        raise UnknownNameError(unknown_name_message("status", status, STATUSES))
    records = store.record_headers()
    records_by_id = {record["run_id"]: record for record in records}
    wanted = set(store.find(patterns, records_by_id)) if patterns else None
    if sweep is not None:
        swept = sweep_index.run_ids_of(sweep_index.read_points(store.root, sweep))
        wanted = swept if wanted is None else wanted & swept
    return [
        _with_current_step(store, record)
        for record in records
        if (wanted is None or record["run_id"] in wanted) and status in (None, record["status"])
    ]


def _with_current_step(store: Store, record: dict[str, Any]) -> dict[str, Any]:
    """Add the step of the last checkpoint to the record of an unfinished run."""
    if record.get("steps") is not None:
        return record
    return {**record, "steps": max(0, store.stated_step(record["run_id"])) or None}


def _summary(record: dict[str, Any]) -> dict[str, Any]:
    final = record.get("final")
    final = final if isinstance(final, dict) else {}
    steps = record.get("steps")
    return {
        **{key: record.get(key) for key in _COPIED},
        "steps": steps if isinstance(steps, int) else None,
        "val_accuracy": final.get("val_accuracy"),
        "test_accuracy": final.get("test_accuracy"),
        **{key: final[key] for key in ("val_r2", "test_r2", "val_loss") if key in final},
    }


def _table_cells(summary: Summary, now: datetime) -> list[str]:
    return [
        str(summary["run_id"]),
        str(summary["status"]),
        _dataset(summary),
        _format_score(summary, "val"),
        _format_score(summary, "test"),
        "–" if summary["steps"] is None else f"{summary['steps']:,}",
        format_age(summary["created"], now),
    ]


def _dataset(summary: Summary) -> str:
    used, requested = summary["dataset"], summary["dataset_requested"]
    if used is None:
        return "–"
    return dataset_used(str(used), str(used if requested is None else requested))


def _format_score(summary: Summary, split: str) -> str:
    """Return the accuracy in percent, or R² if the run or group has that instead."""
    r2 = summary.get(f"{split}_r2")
    if summary[f"{split}_accuracy"] is None and isinstance(r2, int | float):
        return f"R² {format_loss(r2)}"
    return _format_percent(summary[f"{split}_accuracy"])


def _format_percent(fraction: object) -> str:
    try:
        return format_percent(parse_number_or_none(fraction), 1)
    except ValueError:  # in a damaged record
        return format_percent(None)


def _empty_message(root: Path, status: str | None) -> str:
    if status is not None:
        return f"No {status} runs in {root}."
    return f"No runs in {root} yet. Start one: initbench run configs/relu_kaiming.yaml"
