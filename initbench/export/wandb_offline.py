"""Weights & Biases runs in an offline directory, which `wandb sync` uploads."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from initbench.errors import StoreError
from initbench.export.table_files import ExportCounts
from initbench.export.tables import FIXED_COLUMNS, RunTables, Schemas
from initbench.export.tracker_values import (
    bins_with_outside,
    curve_scalars,
    layer_histograms_by_step,
    layer_scalars,
)
from initbench.optional_packages import import_optional
from initbench.store import strict_json
from initbench.store.files import read_text, remove_path, write_atomic
from initbench.store.histograms import Histogram

PROJECT = "initbench"
MARKER = "initbench.json"
"""File in the directory of an exported run, with `run_id` and `digest`; other directories are not touched."""
_ENVIRONMENT = {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}
"""Environment in which wandb opens no network connection; it must be set before wandb is imported."""
_MAX_ID, _DIGITS = 64, 10
_FORBIDDEN = re.compile(r"[^\w.-]", re.ASCII)
_MAX_BINS = 512
"""Maximum number of bins that wandb accepts."""


class WandbExporter:
    """Writes `wandb/offline-run-…` for each run, with an id that depends only on the run id."""

    def __init__(self) -> None:
        os.environ.update(_ENVIRONMENT)
        self._wandb = import_optional("wandb", "W&B runs", "wandb")

    def write(self, runs: Iterable[RunTables], _schemas: Schemas, output: Path) -> ExportCounts:
        """Write the directory of each run; it replaces an earlier one with other contents."""
        directory, temporary = output / "wandb", output / ".export.tmp"
        advice = f"upload them with: wandb sync {shlex.quote(str(directory))}/offline-run-*"
        counts = ExportCounts(files=[directory], advice=advice)
        directory.mkdir(exist_ok=True)
        remove_path(temporary)
        temporary.mkdir()
        os.environ["WANDB_CACHE_DIR"] = str(temporary.resolve() / "cache")
        exported = _find_exported(directory)
        try:
            for tables in runs:
                earlier = exported.pop(tables.run_id, {})
                if tables.digest in earlier:
                    new = earlier.pop(tables.digest)
                    counts.unchanged += 1
                else:
                    complete = self._write_run(tables, temporary)
                    new = complete.rename(directory / f"{complete.name}-{tables.digest[:_DIGITS]}")
                    counts.written += 1
                for old in earlier.values():
                    _discard(old, new)
        except self._wandb.Error as error:
            raise StoreError(f"wandb cannot write to {directory}: {error}") from error
        finally:
            self._wandb.teardown()
            remove_path(temporary)
        return counts

    def _write_run(self, tables: RunTables, temporary: Path) -> Path:
        """Write the directory of a run below `temporary`/wandb and return its path."""
        fixed = {column.name: tables.run[column.name] for column in FIXED_COLUMNS["runs"]}
        run = self._wandb.init(
            project=PROJECT,
            id=wandb_id(tables.run_id),
            name=tables.run_id,
            group=str(tables.run["experiment"]),
            config={**fixed, **tables.config},
            dir=str(temporary),
            mode="offline",
            settings=self._wandb.Settings(
                console="off",
                disable_code=True,
                disable_git=True,
                silent=True,
                x_disable_machine_info=True,
                x_disable_meta=True,
                x_disable_stats=True,
                x_save_requirements=False,
            ),
        )
        for step, values in sorted(self._values_by_step(tables).items()):
            run.log({**values, "_timestamp": tables.time_of_step(step)}, step=step)
        run.summary.update(tables.metrics)
        run.finish()
        path = Path(run.dir).parent
        for debugging in ("logs", "tmp"):
            remove_path(path / debugging)
        write_atomic(path / MARKER, strict_json.dumps({"run_id": tables.run_id, "digest": tables.digest}))
        return path

    def _values_by_step(self, tables: RunTables) -> dict[int, dict[str, Any]]:
        values: defaultdict[int, dict[str, Any]] = defaultdict(dict)
        for scalars in (curve_scalars(tables), layer_scalars(tables)):
            for step, name, number in scalars:
                values[step][name] = number
        for step, name, histogram in layer_histograms_by_step(tables):
            counts, edges = _wandb_bins(histogram)
            values[step][name] = self._wandb.Histogram(np_histogram=(counts, edges))
        return values


def wandb_id(run_id: str) -> str:
    """Return the run id, or an id derived from it if W&B does not accept it."""
    clean = _FORBIDDEN.sub("_", run_id)
    if clean == run_id and len(run_id) <= _MAX_ID:
        return run_id
    digest = hashlib.sha256(run_id.encode()).hexdigest()[:_DIGITS]
    return f"{clean[-(_MAX_ID - _DIGITS - 1) :]}-{digest}"


def _wandb_bins(histogram: Histogram) -> tuple[list[int], list[float]]:
    """Return counts and edges of at most _MAX_BINS bins; neighbouring bins are merged if there are more."""
    bins = bins_with_outside(histogram)
    merged = -(-len(bins) // _MAX_BINS)
    groups = [bins[i : i + merged] for i in range(0, len(bins), merged)]
    edges = [group[0][0] for group in groups]
    return [sum(count for *_, count in group) for group in groups], [*edges, bins[-1][1]]


def _find_exported(directory: Path) -> dict[str, dict[str, Path]]:
    """Return the directories of earlier exports by run id and digest."""
    exported: defaultdict[str, dict[str, Path]] = defaultdict(dict)
    for marker in sorted(directory.glob(f"offline-run-*/{MARKER}")):
        try:
            content = strict_json.loads(read_text(marker))
            exported[content["run_id"]][content["digest"]] = marker.parent
        except (OSError, ValueError, TypeError, KeyError):
            continue
    return exported


def _discard(old: Path, new: Path) -> None:
    """Delete the directory of an earlier export; files that the user has added are moved to the new one."""
    for entry in old.iterdir():
        is_known = (new / entry.name).exists() or entry.suffix in (".wandb", ".synced")
        if not is_known:
            entry.rename(new / entry.name)
    shutil.rmtree(old)
