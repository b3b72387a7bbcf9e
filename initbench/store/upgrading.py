"""Upgrade of stored runs: adds the summary file to complete runs of earlier versions."""

from __future__ import annotations

from pathlib import Path

from initbench.errors import StoreError
from initbench.store import directory_swap, strict_json
from initbench.store.files import DOCUMENT_BYTES, read_bytes, write_atomic
from initbench.store.locks import structure_lock
from initbench.store.manifest import MANIFEST, SUMMARY, listed_entry
from initbench.store.run_directory import COMPLETE, RunPaths, wrap_os_errors
from initbench.store.store import Store
from initbench.store.summary_file import LineStatistics, read_summary, summary_text

UPGRADED, CURRENT, UNFINISHED = "upgraded", "current", "unfinished"


def remove_index(root: Path) -> None:
    """Remove the index of comparisons, which earlier versions kept in the root of a store."""
    for name in (".compare.index", ".compare.index.lock"):
        with wrap_os_errors(f"remove {name}"):
            (root / name).unlink(missing_ok=True)


def upgrade_run(store: Store, run_id: str) -> str:
    """Add the summary to a complete run whose files match its manifest.

    The run is complete at any moment, so that an upgrade can be interrupted.

    Returns:
        UPGRADED, CURRENT for a run with a valid summary, or UNFINISHED for a run that is not complete or
        has been removed.

    Raises:
        StoreError: If a file of the run is damaged or has changed, or cannot be written.
    """
    paths = RunPaths(store.root, run_id)
    if read_summary(paths.live, run_id) is not None:
        return CURRENT
    with wrap_os_errors(f"upgrade run {run_id}"), structure_lock(store.root):
        directory_swap.recover_run(paths)
        run = store.read_if_there(run_id)
        if run is None or run.record["status"] not in COMPLETE:
            return UNFINISHED
        for problem in store.verify(run_id):
            if not problem.startswith(SUMMARY):
                raise StoreError(problem)
        try:
            text = summary_text(
                run.record, LineStatistics.from_lines(run.convergence, run.snapshots), run.shifts
            )
        except (TypeError, ValueError, AttributeError, LookupError) as error:
            raise StoreError(f"its content is invalid ({type(error).__name__}: {error})") from error
        _install(paths.live, text)
    return UPGRADED


def _install(directory: Path, text: str) -> None:
    """Write the summary and list it in the manifest; a kill leaves a complete run with or without it."""
    manifest = strict_json.loads(read_bytes(directory / MANIFEST, DOCUMENT_BYTES).decode())
    write_atomic(directory / SUMMARY, text)
    manifest["files"][SUMMARY] = listed_entry(directory / SUMMARY)
    write_atomic(directory / MANIFEST, strict_json.dumps(manifest) + "\n", sync_name=False)
