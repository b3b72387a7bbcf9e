"""Options of `initbench sweep`."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated

import typer

from initbench.cli.completion import complete_config
from initbench.errors import UsageError


class RetryStatus(StrEnum):
    """Values of `--retry`."""

    FAILED = "failed"
    DIVERGED = "diverged"
    CRASHED = "crashed"


_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}

Arguments = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE|KEY=VALUES",
        help="A sweep or an experiment, then axes such as model.depth=10,20 and overrides such as seeds=8.",
        autocompletion=complete_config,
        show_default=False,
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print what is stored and estimate the rest; train nothing.")
]
PrintConfig = Annotated[
    bool, typer.Option("--print-config", help="Print the resolved config of each point and stop.")
]
NoTrain = Annotated[
    bool,
    typer.Option(
        "--no-train", help="Train nothing: show and judge the stored runs, and exit 1 if runs are missing."
    ),
]
SkipInvalid = Annotated[
    bool, typer.Option("--skip-invalid", help="Skip points that cannot be built, and report them.")
]
Limit = Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Train at most N runs.")]
MaxTime = Annotated[
    str | None,
    typer.Option(
        "--max-time",
        metavar="TIME",
        help="Stop after 90s, 10m or 2h; interrupted runs resume on the next call.",
    ),
]
FailFast = Annotated[
    bool, typer.Option("--fail-fast/--keep-going", help="Stop at the first failed run, or continue.")
]
Retry = Annotated[
    list[RetryStatus] | None,
    typer.Option("--retry", metavar="STATUS", help="Retrain runs that failed, diverged or crashed."),
]
Until = Annotated[
    str | None,
    typer.Option(
        "--until",
        metavar="CONDITION",
        help="Train more seeds until a condition such as 'A.test_accuracy > B.test_accuracy' is decided."
        " See docs/compare.md.",
    ),
]
MaxSeeds = Annotated[
    int | None,
    typer.Option(
        "--max-seeds", metavar="N", min=1, max=10_000, help="With --until: stop at N seeds per row (40)."
    ),
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard", metavar="K/N", help="Run only shard K of N (shards of similar cost), e.g. in a CI matrix."
    ),
]


def parse_duration(text: str | None, option: str = "--max-time") -> float | None:
    """Convert `90`, `90s`, `10m` or `2h` to seconds; raise UsageError for other text."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|)", text.strip())
    if match is None or not float(match[1]):
        raise UsageError(f"{option} takes a time such as 90s, 10m or 2h, not {text!r}")
    return float(match[1]) * _UNITS[match[2]]
