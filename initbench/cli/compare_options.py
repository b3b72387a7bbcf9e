"""What `initbench compare` can be asked for."""

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
        help="Keys whose values make the rows; two make a pivot.",
        autocompletion=complete_keys,
    ),
]
WhereOption = Annotated[
    Names,
    typer.Option(
        "--where",
        metavar="KEY=VALUE",
        help="Only such runs; != for others, * for any text.",
        autocompletion=complete_conditions,
    ),
]
ViewOption = Annotated[ViewName, typer.Option("--view", help="Which metrics are shown.")]
MetricOption = Annotated[
    Names,
    typer.Option("--metric", metavar="NAME,…", help="One metric in depth.", autocompletion=complete_metrics),
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
        help="A metric or label; - for descending.",
        autocompletion=complete_metrics,
    ),
]
OnlyChanged = Annotated[
    bool, typer.Option("--only-changed", help="Only the keys of the configs that differ.")
]
Layers = Annotated[bool, typer.Option("--layers", help="A line for each layer, at init and at the end.")]
Plot = Annotated[bool, typer.Option("--plot", help="Draw curves over the steps.")]
Baseline = Annotated[
    str | None, typer.Option("--baseline", metavar="NAME", help="Hold every row against this one.")
]
Confidence = Annotated[
    float, typer.Option("--confidence", min=0.5, max=0.9999, help="Of intervals, tests and gates.")
]
Target = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=1.0,
        help="Validation accuracy that steps are counted to; default 0.9 of the best mean in the table.",
        show_default=False,
    ),
]
FormatOption = Annotated[
    FormatName | None, typer.Option("--format", help="What is printed.", show_default=False)
]
Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="FILE", help="Write it there; the name tells the format."),
]
