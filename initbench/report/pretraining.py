"""The table of layer-wise pre-training: what each layer's reconstruction came to, and what it cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from initbench.compare.statistics import summarise
from initbench.report import text
from initbench.report.grid import Grid
from initbench.store.store import StoredRun
from initbench.store.strictjson import number_or_none


def pretraining_table(runs: Sequence[StoredRun]) -> RenderableType | None:
    """Each layer's loss before and after, mean over the runs that were pre-trained; None for no such run."""
    trained = [run.record for run in runs if run.record.get("pretraining")]
    if not trained:
        return None
    scheme = trained[0]["config"]["init"]["scheme"]
    grid = Grid(["Pre-training", "loss before", "after", "left %"], left=("Pre-training",))
    for place, layer in enumerate(trained[0]["pretraining"]["layers"]):
        found = [record["pretraining"]["layers"][place] for record in trained]
        start, end = ([number_or_none(one[key]) for one in found] for key in ("loss_start", "loss_end"))
        left = [b / a if a and b is not None else None for a, b in zip(start, end, strict=True)]
        grid.add(
            [
                f"layer {layer['layer']}",
                text.scientific(summarise(start).mean),
                text.scientific(summarise(end).mean),
                text.percent_summary(summarise(left)),
            ]
        )
    return Group(grid.table(), Text(_cost(trained, str(scheme["kind"])), style="dim"))


def _cost(trained: Sequence[dict[str, Any]], kind: str) -> str:
    """What it took, a run: seconds are those of a cohort, shared out among its runs."""
    first = trained[0]["pretraining"]
    seconds = math.fsum(
        float(record["pretraining"]["seconds"]) / max(1, int(record.get("cohort") or 1)) for record in trained
    ) / len(trained)
    steps, samples = text.plural(first["steps"], "update"), text.count(first["samples"])
    return f"{kind} auto-encoders on a fixed sample; a run: {steps}, {samples} samples, {seconds:.1f} s"
