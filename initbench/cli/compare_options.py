"""Options of `initbench compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from initbench.cli.completion import (
    complete_columns,
    complete_conditions,
    complete_keys,
    complete_metrics,
)

ViewName = Literal["all", "activation", "convergence"]
FormatName = Literal["table", "markdown", "csv", "json", "latex"]
Names = list[str] | None

By = Annotated[
    Names,
    typer.Option(
        "--by",
        metavar="KEY,…",
        help="Keys whose values form the rows; two keys form a pivot.",
        autocompletion=complete_keys,
    ),
]
WhereOption = Annotated[
    Names,
    typer.Option(
        "--where",
        metavar="KEY=VALUE",
        help="Only runs that match; KEY!=VALUE excludes, * is a wildcard.",
        autocompletion=complete_conditions,
    ),
]
ViewOption = Annotated[ViewName, typer.Option("--view", help="Group of metrics to show.")]
MetricOption = Annotated[
    Names,
    typer.Option(
        "--metric", metavar="NAME,…", help="Show one metric in detail.", autocompletion=complete_metrics
    ),
]
Columns = Annotated[
    Names,
    typer.Option(
        "--columns",
        metavar="NAME,…",
        help="Metrics, counts or keys to show.",
        autocompletion=complete_columns,
    ),
]
Sort = Annotated[
    str | None,
    typer.Option(
        "--sort",
        metavar="[-]NAME",
        help="Sort by a metric or label; - for descending.",
        autocompletion=complete_metrics,
    ),
]
OnlyChanged = Annotated[bool, typer.Option("--only-changed", help="Show only the config keys that differ.")]
Layers = Annotated[bool, typer.Option("--layers", help="Show one line per layer, at init and at the end.")]
Plot = Annotated[bool, typer.Option("--plot", help="Plot learning curves.")]
Baseline = Annotated[
    str | None, typer.Option("--baseline", metavar="NAME", help="Compare every row with this baseline.")
]
Confidence = Annotated[
    float,
    typer.Option("--confidence", min=0.5, max=0.9999, help="Confidence level of intervals, tests and gates."),
]
Target = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=1.0,
        help="Count steps to this validation accuracy; default: 0.9 of the best mean in the table.",
        show_default=False,
    ),
]
FormatOption = Annotated[
    FormatName | None, typer.Option("--format", help="Output format.", show_default=False)
]
Output = Annotated[
    Path | None,
    typer.Option(
        "-o", "--output", metavar="FILE", help="Write the output to FILE; the format follows from the suffix."
    ),
]
