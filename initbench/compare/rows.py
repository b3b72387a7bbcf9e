"""Stored runs as rows: one for each experiment, the runs of one table all on the same data."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from initbench.compare.statistics import Summary, geometric, summarise
from initbench.compare.variants import variants
from initbench.store.layout import COMPLETE
from initbench.store.store import StoredRun
from initbench.store.strictjson import number_or_none

METRICS = (
    "act_std_init_first",
    "act_std_init_middle",
    "act_std_init_last",
    "grad_ratio_init",
    "best_val_accuracy",
    "final_val_accuracy",
    "test_accuracy",
    "steps_to_target",
)
GEOMETRIC = frozenset({"grad_ratio_init"})
"""Metrics whose mean is geometric and whose std is that of the natural logarithms."""
DEFAULT_TARGET = 0.9
"""Share of the best mean validation accuracy in a table that is its target."""


@dataclass(frozen=True)
class Row:
    """The runs of one experiment on the same data, summarised."""

    key: dict[str, Any]
    """{"experiment"}, and {"variant"}: what sets it apart from others of that name, if there are any."""
    n: int
    """Complete runs, the diverged ones included."""
    diverged: int
    unfinished: int
    metrics: dict[str, Summary]
    reached: int
    """Runs that reached the table's target."""


@dataclass(frozen=True)
class Table:
    """All rows on the same data."""

    dataset: str
    fingerprint: str | None
    """Hash of the data, which tells two archives or recipes apart; None where the runs do not say it."""
    target: float | None
    """Validation accuracy that `steps_to_target` counts to."""
    rows: list[Row]


def tables(runs: Iterable[StoredRun], target: float | None = None) -> list[Table]:
    """One table for each data set and fingerprint, rows with the best accuracy first.

    Runs of one name whose config, code, torch or device differ are rows of their own, named by what
    differs. `target` is a validation accuracy in (0, 1].
    """
    by_data: defaultdict[tuple[str, str], list[StoredRun]] = defaultdict(list)
    for run in runs:
        by_data[str(run.record.get("dataset")), _fingerprint(run) or ""].append(run)
    return [_table(*data, by_data[data], target) for data in sorted(by_data)]


def _fingerprint(run: StoredRun) -> str | None:
    data = (run.record.get("identity") or {}).get("data") or {}
    found = data.get("fingerprint")
    return None if found is None else str(found)


def _table(dataset: str, fingerprint: str, runs: Sequence[StoredRun], target: float | None) -> Table:
    arms: defaultdict[tuple[str, str], list[StoredRun]] = defaultdict(list)
    for run in runs:
        arms[str(run.record["experiment"]), str(run.record.get("arm"))].append(run)
    if target is None:
        target = _default_target(list(arms.values()))
    named = variants({arm: group[0] for arm, group in arms.items()})
    rows = [_row(name, named[name, arm], group, target) for (name, arm), group in arms.items()]
    return Table(dataset, fingerprint or None, target, sorted(rows, key=_rank))


def _default_target(groups: Sequence[Sequence[StoredRun]]) -> float | None:
    means = [summarise([_best(run) for run in group if _is_finished(run)]).mean for group in groups]
    best = max((mean for mean in means if mean is not None), default=None)
    return None if best is None else DEFAULT_TARGET * best


def _rank(row: Row) -> tuple[float, str]:
    mean = row.metrics["best_val_accuracy"].mean
    return (-mean if mean is not None else math.inf, str(row.key))


def _row(name: str, variant: dict[str, Any], runs: Sequence[StoredRun], target: float | None) -> Row:
    complete = [run for run in runs if run.record["status"] in COMPLETE]
    finished = [run for run in complete if _is_finished(run)]
    std = [_act_std(run) for run in complete]
    steps = [_steps_to(run, target) for run in complete]
    reached = [s for s in steps if s is not None]
    all_reached = len(reached) == len(complete)
    metrics = {
        **{
            f"act_std_init_{where}": summarise([s[i] if s else None for s in std])
            for i, where in enumerate(("first", "middle", "last"))
        },
        "grad_ratio_init": geometric([_gradient_ratio(run) for run in complete]),
        "best_val_accuracy": summarise([_best(run) for run in finished]),
        "final_val_accuracy": summarise([_final(run, "val_accuracy") for run in finished]),
        "test_accuracy": summarise([_final(run, "test_accuracy") for run in finished]),
        "steps_to_target": summarise(reached) if all_reached else Summary(None, None, len(complete)),
    }
    return Row(
        key={"experiment": name, **({"variant": variant} if variant else {})},
        n=len(complete),
        diverged=len(complete) - len(finished),
        unfinished=len(runs) - len(complete),
        metrics=metrics,
        reached=len(reached),
    )


def _is_finished(run: StoredRun) -> bool:
    return bool(run.record["status"] == "finished")


def _hidden_at_init(run: StoredRun) -> list[dict[str, Any]]:
    first = next((s for s in run.snapshots if s["when"] == "init"), None)
    return [layer for layer in first["layers"] if layer["act"] is not None] if first else []


def _act_std(run: StoredRun) -> tuple[float | None, ...]:
    hidden = _hidden_at_init(run)
    if not hidden:
        return ()
    chosen = (hidden[0], hidden[math.ceil(len(hidden) / 2) - 1], hidden[-1])
    return tuple(number_or_none(layer["act"]["std"]) for layer in chosen)


def _gradient_ratio(run: StoredRun) -> float | None:
    """E[δ²] of the first hidden layer over that of the last; None where the last has no gradient."""
    hidden = _hidden_at_init(run)
    if not hidden:
        return None
    first, last = (number_or_none(layer["grad"]["pre_q"]) for layer in (hidden[0], hidden[-1]))
    return None if first is None or not last else first / last


def _best(run: StoredRun) -> float | None:
    known = [number_or_none(entry["val_accuracy"]) for entry in run.convergence]
    return max((value for value in known if value is not None and not math.isnan(value)), default=None)


def _final(run: StoredRun, metric: str) -> float | None:
    final = run.record.get("final") or {}
    return number_or_none(final.get(metric))


def _steps_to(run: StoredRun, target: float | None) -> float | None:
    """The first evaluated step at which the validation accuracy is at least `target`."""
    if target is None:
        return None
    steps = (
        float(e["step"]) for e in run.convergence if (number_or_none(e["val_accuracy"]) or 0.0) >= target
    )
    return next(steps, None)
