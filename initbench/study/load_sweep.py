"""Loader of sweeps: files that declare one, and experiments whose axes are given as overrides."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from initbench.config.loading import read_all
from initbench.config.overrides import Override
from initbench.config.sweep_loader import read_sweep
from initbench.config.sweep_schema import Sweep
from initbench.config.yaml_reader import Document
from initbench.errors import ConfigIssue
from initbench.study.validate_sweep import find_sweep_issues


def load_sweep(path: str, overrides: Sequence[str] = (), *, skip_invalid: bool = False) -> Sweep:
    """Load the sweep of a file (`-` for standard input); overrides of the form `key=v1,v2` are axes.

    With `skip_invalid`, points that cannot be built are skipped, as long as others remain.

    Raises:
        ConfigError: If there are faults; the error lists all of them.
    """
    (sweep,) = read_all([path], overrides, partial(_read_sweep, skip_invalid=skip_invalid), axes=True)
    return sweep


def _read_sweep(
    document: Document, file: str, overrides: Sequence[Override], *, skip_invalid: bool
) -> tuple[Sweep | None, list[ConfigIssue]]:
    if document.data.get("kind") == "lesson":
        line, column = document.positions.value(["kind"]) or (1, 1)
        problem = f"is no sweep but a lesson; use: initbench lesson {file}"
        return None, [ConfigIssue(f"{file}:{line}:{column}", "kind", problem)]
    return read_sweep(document, file, overrides, find_sweep_issues, skip_invalid=skip_invalid)
