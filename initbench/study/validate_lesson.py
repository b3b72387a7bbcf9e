"""Checks of a lesson beyond its schema: claims must parse, and the names in them must exist."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from initbench.analysis.gates.expression import LayerStatistic, Quantity
from initbench.analysis.gates.parser import LONGEST, GateSyntaxError, parse_condition
from initbench.components.norm import NORMS
from initbench.config.lesson_loader import Problem
from initbench.config.schema import ExperimentConfig
from initbench.config.yaml_reader import REFUSED
from initbench.data.dataset import form_of
from initbench.errors import ConfigError
from initbench.models.network import FAMILIES
from initbench.registry import unknown_name_message
from initbench.study.validate_sweep import check_tunable

Arms = Mapping[str, ExperimentConfig | None]


def find_lesson_issues(data: Mapping[str, Any], arms: Arms) -> Iterator[Problem]:
    """Yield the faults of claims, of the tuned metric, and of the names in figures."""
    for i, claim in enumerate(_list(data.get("claims"))):
        text = claim.get("holds_if") if isinstance(claim, dict) else None
        if isinstance(text, str) and text and text != REFUSED:
            yield from ((("claims", i, "holds_if"), problem) for problem in _claim_issues(text, arms))
    tune = data.get("tune")
    if isinstance(tune, dict) and isinstance(name := tune.get("select", "final_val_accuracy"), str):
        yield from ((("tune", "select"), problem) for problem in check_tunable(name))
    for i, figure in enumerate(_list(data.get("show"))):
        yield from (_figure_issues(i, figure, arms) if isinstance(figure, dict) else ())


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _claim_issues(text: str, arms: Arms) -> Iterator[str]:
    """Yield the faults of a condition; columns count from 1, within the condition."""
    if len(text) > LONGEST:
        yield f"a condition has at most {LONGEST} characters; this one has {len(text)}"
        return
    try:
        quantities = parse_condition(text).quantities
    except GateSyntaxError as fault:
        yield f"column {fault.column + 1}: {fault}"
        return
    for quantity in quantities:
        problem = _quantity_issue(quantity, arms)
        if problem is not None:
            yield f"column {quantity.column + 1}: {problem}"


def _quantity_issue(quantity: Quantity, arms: Arms) -> str | None:
    name = quantity.row.name
    if quantity.row.earlier:
        return "a claim is about the runs of its lesson; before. has no meaning here"
    if name is not None and name not in arms:
        return unknown_name_message("arm", name, arms)
    if isinstance(quantity, LayerStatistic):
        configs = arms.values() if name is None else [arms[name]]
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
        with torch.device("meta"):
            network = FAMILIES[config.model.family].build(config.model, form.shape, form.classes)
    except ConfigError:  # reported as a fault of the arm
        return None
    return sum(layer.activation is not None for layer in network.weight_layers())


def _figure_issues(i: int, figure: Mapping[str, Any], arms: Arms) -> Iterator[Problem]:
    for kind in ("layers", "curves"):
        for j, name in enumerate(_list(figure.get(kind))):
            if isinstance(name, str) and name not in arms:
                yield ("show", i, kind, j), unknown_name_message("arm", name, arms)
    for j, name in enumerate(_list(figure.get("axes"))):
        if isinstance(name, str) and name not in NORMS:
            yield ("show", i, "axes", j), unknown_name_message("norm", name, NORMS.names())
