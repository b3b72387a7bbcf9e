"""Output of `initbench probe --depths`: a table with one row for each depth of a net."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.text import Text

from initbench.analysis.stats.summary import summarise_geometric
from initbench.diagnostics.survey import Survey
from initbench.render import probe_document as data
from initbench.render import text
from initbench.render.probe_tables import survey_heading, theory_lines
from initbench.render.terminal import print_uncut
from initbench.render.text_table import TextTable
from initbench.store import strict_json

_HEADINGS = (
    "depth",
    "q last theory",
    "q last",
    "in band",
    "δ² first/last theory",
    "δ² first/last",
    "diagnosis",
)


def depths_json(surveys: Mapping[int, Survey]) -> str:
    """Return the survey documents of all depths as strict JSON."""
    documents = [{"depth": depth, **data.survey_document(survey)} for depth, survey in surveys.items()]
    return strict_json.dumps({"schema": data.SCHEMA, "depths": documents})


def print_depths(console: Console, surveys: Mapping[int, Survey]) -> None:
    """Print the table, and below it the fixed point and depth scales of the deepest net."""
    grid = TextTable(_HEADINGS, left_aligned=("diagnosis",))
    for depth, survey in surveys.items():
        grid.add(_cells(depth, survey), None if not survey.findings else "yellow")
    deepest = surveys[max(surveys)]
    blank = Text("")
    print_uncut(
        console, Group(survey_heading(deepest), blank, grid.table(), blank, *theory_lines(deepest)[:1], blank)
    )


def _cells(depth: int, survey: Survey) -> list[str]:
    rows = data.survey_rows(survey)
    hidden = rows[:-1]
    judged = [row.inside for row in rows if row.inside is not None]
    last = hidden[-1] if hidden else rows[-1]
    q = last.predicted.get("q")
    return [
        f"{depth:,}",
        text.format_number(None if q is None else q.value),
        text.format_number(last.measured["q"].mean),
        f"{sum(judged)} of {len(judged)}" if judged else text.DASH,
        text.format_number(_predicted_ratio(hidden[:-1])),
        text.format_number(_measured_ratio(hidden[:-1])),
        ", ".join(finding.code for finding, _ in survey.findings) or "healthy",
    ]


def _predicted_ratio(rows: Sequence[data.SurveyRow]) -> float | None:
    """Return the predicted E[δ²] of the first hidden layer over that of the last.

    None if a layer has no prediction or one that is not positive.
    """
    ratios = [row.predicted.get("grad_ratio") for row in rows]
    if not ratios or any(ratio is None or ratio.value <= 0.0 for ratio in ratios):
        return None
    return math.exp(math.fsum(math.log(ratio.value) for ratio in ratios if ratio is not None))


def _measured_ratio(rows: Sequence[data.SurveyRow]) -> float | None:
    """Return the geometric mean over nets of the measured ratio; None if it is 0 or missing in any net."""
    nets: list[list[Any]] = [list(net) for net in zip(*(row.layer.measured for row in rows), strict=True)]
    ratios = [_product([layer["grad_ratio"] for layer in net]) for net in nets]
    return None if not ratios or None in ratios or 0.0 in ratios else summarise_geometric(ratios).mean


def _product(ratios: Sequence[float | None]) -> float | None:
    if any(ratio is None for ratio in ratios):
        return None
    present_ratios = [ratio for ratio in ratios if ratio is not None]
    return 0.0 if 0.0 in present_ratios else math.exp(math.fsum(map(math.log, present_ratios)))
