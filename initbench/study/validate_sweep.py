"""Checks of a sweep beyond its schema: gates must parse, and the names in them must exist."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from initbench.analysis.gates.parser import LONGEST, GateSyntaxError, parse_condition
from initbench.analysis.metrics import METRICS
from initbench.config.validation_errors import KeyPath
from initbench.config.yaml_reader import REFUSED
from initbench.registry import unknown_name_message


def find_sweep_issues(
    data: Mapping[str, Any], labels: Sequence[str], is_changed: bool
) -> Iterator[tuple[KeyPath, str]]:
    """Yield the faults of gates and of the tuned metric.

    If the command line has changed the axes, a gate may name a missing row; it is then skipped.
    """
    gates = data.get("gates")
    for i, text in enumerate(gates if isinstance(gates, list) else []):
        if isinstance(text, str) and text and text != REFUSED:
            yield from (
                (("gates", i), problem) for problem in gate_issues(text, None if is_changed else labels)
            )
    tune = data.get("tune")
    if isinstance(tune, dict) and isinstance(name := tune.get("select", "final_val_accuracy"), str):
        yield from ((("tune", "select"), problem) for problem in check_tunable(name))


def gate_issues(text: str, labels: Sequence[str] | None) -> Iterator[str]:
    """Yield the reasons why a gate of a sweep cannot be judged; columns count from 1, within the gate.

    `labels` are the rows that the gate may name; None if they are unknown.
    """
    if len(text) > LONGEST:
        yield f"a gate has at most {LONGEST} characters; this one has {len(text)}"
        return
    try:
        quantities = parse_condition(text).quantities
    except GateSyntaxError as fault:
        yield f"column {fault.column + 1}: {fault}"
        return
    for quantity in quantities:
        name = quantity.row.name
        if quantity.row.earlier:
            yield f"column {quantity.column + 1}: before. has no meaning here; use compare --against"
        elif name is not None and labels is not None and name not in labels:
            yield f"column {quantity.column + 1}: {unknown_name_message('row', name, labels)}"


def check_tunable(name: str) -> Iterator[str]:
    """Yield the reason why a metric cannot be tuned for, if there is one."""
    scored = [metric.name for metric in METRICS.values() if metric.better and not metric.censored]
    if name not in METRICS:
        yield unknown_name_message("metric", name, scored)
    elif name not in scored:
        yield f"{name} cannot be tuned for; choose from {', '.join(scored)}"
