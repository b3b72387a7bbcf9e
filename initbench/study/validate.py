"""Checks of a study beyond its schema: conditions must parse, and the names in them must exist."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from initbench.analysis.gates.expression import LayerStatistic, Quantity
from initbench.analysis.gates.parser import LONGEST, GateSyntaxError, parse_condition
from initbench.analysis.metrics import METRICS
from initbench.components.norm import NORMS
from initbench.config.schema import ExperimentConfig
from initbench.config.validation_errors import KeyPath
from initbench.config.yaml_reader import REFUSED
from initbench.data.dataset import form_of
from initbench.errors import ConfigError
from initbench.models.build import build_outline
from initbench.registry import unknown_name_message

Problem = tuple[KeyPath, str]
"""Path of a fault in the file of a study, and its description."""
Arms = Mapping[str, ExperimentConfig | None]
"""Arms of a lesson by name; None for an arm that cannot be built."""


def find_lesson_problems(data: Mapping[str, Any], arms: Arms) -> Iterator[Problem]:
    """Yield the faults of claims, of the tuned metric, and of the names in figures."""
    for i, claim in enumerate(_list(data.get("claims"))):
        text = claim.get("holds_if") if isinstance(claim, dict) else None
        if _is_text(text):
            yield from ((("claims", i, "holds_if"), problem) for problem in claim_issues(text, arms))
    yield from _tuning_problems(data)
    for i, figure in enumerate(_list(data.get("show"))):
        yield from (_figure_problems(i, figure, arms) if isinstance(figure, dict) else ())


def find_sweep_problems(data: Mapping[str, Any], labels: Collection[str] | None) -> Iterator[Problem]:
    """Yield the faults of gates and of the tuned metric.

    `labels` are the rows that a gate may name; None if the command line has changed the axes. A gate that
    names a missing row is then skipped.
    """
    for i, text in enumerate(_list(data.get("gates"))):
        if _is_text(text):
            yield from ((("gates", i), problem) for problem in gate_issues(text, labels))
    yield from _tuning_problems(data)


def gate_issues(text: str, labels: Collection[str] | None) -> Iterator[str]:
    """Yield the reasons why a gate of a study cannot be judged; columns count from 1, within the gate.

    `labels` are the rows that the gate may name; None if they are unknown.
    """
    yield from _condition_issues(text, "gate", "row", labels)


def claim_issues(text: str, arms: Arms) -> Iterator[str]:
    """Yield the faults of a claim's condition; columns count from 1, within the condition."""
    yield from _condition_issues(text, "condition", "arm", arms)


def _condition_issues(
    text: str, noun: str, row_noun: str, rows: Collection[str] | Arms | None
) -> Iterator[str]:
    if len(text) > LONGEST:
        yield f"a {noun} has at most {LONGEST} characters; this one has {len(text)}"
        return
    try:
        quantities = parse_condition(text).quantities
    except GateSyntaxError as fault:
        yield f"column {fault.column + 1}: {fault}"
        return
    for quantity in quantities:
        problem = quantity_issue(quantity, row_noun, rows)
        if problem is not None:
            yield f"column {quantity.column + 1}: {problem}"


def quantity_issue(quantity: Quantity, row_noun: str, rows: Collection[str] | Arms | None) -> str | None:
    """Return why a condition of a study cannot name a quantity, or None if it can.

    `rows` are the rows that it may name; None if they are unknown.
    """
    name = quantity.row.name
    if quantity.row.earlier:
        if row_noun == "arm":
            return "a claim is about the runs of its lesson; before. has no meaning here"
        return "before. has no meaning here; use compare --against"
    if name is not None and rows is not None and name not in rows:
        return unknown_name_message(row_noun, name, rows)
    if isinstance(quantity, LayerStatistic) and isinstance(rows, Mapping):
        configs: Sequence[ExperimentConfig | None] = [*rows.values()] if name is None else [rows[name]]
        depths = [depth for config in configs if config and (depth := hidden_layers(config)) is not None]
        if depths and max(depths) < abs(quantity.layer):
            return f"there is no layer {quantity.layer}: the deepest net has {max(depths)} hidden layers"
    return None


def hidden_layers(config: ExperimentConfig) -> int | None:
    """Count the weight layers with an activation; None if the form of the data is unknown."""
    form = form_of(config.data)
    if form is None:
        return None
    try:
        network = build_outline(config.model, form)
    except ConfigError:  # reported as a fault of the arm
        return None
    return sum(layer.activation is not None for layer in network.weight_layers())


def _tuning_problems(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the reason why the metric of `tune` cannot be tuned for, if there is one."""
    tune = data.get("tune")
    name = tune.get("select", "final_val_accuracy") if isinstance(tune, dict) else None
    if not isinstance(name, str):
        return
    scored = [metric.name for metric in METRICS.values() if metric.better and not metric.censored]
    if name not in METRICS:
        yield ("tune", "select"), unknown_name_message("metric", name, scored)
    elif name not in scored:
        yield ("tune", "select"), f"{name} cannot be tuned for; choose from {', '.join(scored)}"


def _figure_problems(i: int, figure: Mapping[str, Any], arms: Arms) -> Iterator[Problem]:
    for kind, noun, choices in (
        ("layers", "arm", list(arms)),
        ("curves", "arm", list(arms)),
        ("axes", "norm", NORMS.names()),
    ):
        for j, name in enumerate(_list(figure.get(kind))):
            if isinstance(name, str) and name not in choices:
                yield ("show", i, kind, j), unknown_name_message(noun, name, choices)


def _is_text(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and value not in ("", REFUSED)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
