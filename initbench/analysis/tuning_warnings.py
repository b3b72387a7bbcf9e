"""Warnings about tuned values at an end of the range that was tried, which may not be the best values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from initbench.analysis.run_summary import RunSummary
from initbench.errors import InitbenchError
from initbench.store import sweep_index


def edge_of_range_warnings(root: Path, runs: Iterable[RunSummary]) -> Iterator[str]:
    """Yield a sentence for each experiment of `runs` whose tuned value is at an end of the values tried.

    Damaged tuning results and sweeps that cannot be read are reported as well.
    """
    run_ids = {run.run_id for run in runs}
    for name in sweep_index.sweep_names(root):
        try:
            points = sweep_index.read_points(root, name).values()
        except InitbenchError as error:
            yield str(error)
            continue
        for point in points:
            tuning = point["tuning"]
            if not tuning or not run_ids & set(point["runs"]):
                continue
            if problem := next(sweep_index.TUNING(tuning, "tuning"), None):
                yield f"{point['experiment']}: its stored tuning result is damaged: {problem}"
            elif tuning["edge"]:
                yield _warning_text(point["experiment"], tuning)


def _warning_text(experiment: str, tuning: dict[str, Any]) -> str:
    values = [trial["value"] for trial in tuning["tried"]]
    return (
        f"{experiment}: its best {tuning['key']}, {tuning['best']:g}, lies at the {tuning['edge']} end of the"
        f" {len(values)} values tried, {values[0]:g} to {values[-1]:g}; a better value may lie beyond it."
    )
