"""Checked reads of the files of lines of a run: evaluations, probes and covariate shift."""

from __future__ import annotations

from pathlib import Path

from initbench.errors import StoreError
from initbench.store import strict_json
from initbench.store.files import read_last_line, read_lines
from initbench.store.manifest import find_step_disorder
from initbench.store.record_schema import EVALUATION_LINE, SHIFT_LINE, SNAPSHOT_LINE, Check, layer_signature
from initbench.store.run_directory import LAYERS, METRICS, SHIFT, Record


def read_line_files(directory: Path) -> tuple[list[Record], list[Record], list[Record]]:
    """Return the lines of metrics.jsonl, layers.jsonl and shift.jsonl; a missing file has no lines.

    Raises StoreError, with the file and the defect, for a damaged file, and OSError if one cannot be read.
    """
    return (
        read_evaluations(directory),
        _read_layers(directory / LAYERS, SNAPSHOT_LINE),
        read_shifts(directory),
    )


def read_evaluations(directory: Path) -> list[Record]:
    """Return the lines of metrics.jsonl; the errors are those of `read_line_files`."""
    return _read_checked_lines(directory / METRICS, EVALUATION_LINE)


def read_last_snapshot(directory: Path) -> Record | None:
    """Return the last complete line of layers.jsonl, or None without any; read only the end of the file.

    Raises StoreError if that line is damaged, and OSError if the file cannot be read.
    """
    path = directory / LAYERS
    try:
        line = read_last_line(path)
        snapshot = None if line is None else strict_json.loads(line)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StoreError(f"{path} is damaged: its last line: {error}") from error
    for problem in () if line is None else SNAPSHOT_LINE(snapshot, ""):
        raise StoreError(f"{path} is damaged: its last line: {problem}")
    return snapshot


def read_shifts(directory: Path) -> list[Record]:
    """Return the lines of shift.jsonl; the errors are those of `read_line_files`."""
    return _read_layers(directory / SHIFT, SHIFT_LINE)


def _read_layers(path: Path, check: Check) -> list[Record]:
    lines = _read_checked_lines(path, check)
    if len(set(map(layer_signature, lines))) > 1:
        raise StoreError(f"{path} is damaged: its lines describe different layers")
    return lines


def _read_checked_lines(path: Path, check: Check) -> list[Record]:
    try:
        lines = [strict_json.loads(line) for line in read_lines(path)]
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise StoreError(f"{path} is damaged: {error}") from error
    for number, line in enumerate(lines, 1):
        for problem in check(line, ""):
            raise StoreError(f"{path} is damaged: line {number}: {problem}")
    if disordered := find_step_disorder((line.get("step"), line.get("when")) for line in lines):
        raise StoreError(f"{path} is damaged: {disordered}")
    return lines
