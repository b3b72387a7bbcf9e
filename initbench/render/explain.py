"""Page of `initbench explain`: one catalogue entry with options, examples and plots."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor

from initbench.components.activation import SATURATED_BELOW, Activation, BoundActivation, bound
from initbench.components.init_scheme import Scheme
from initbench.components.norm import Norm
from initbench.config import examples
from initbench.config.fields import as_yaml
from initbench.linting.rule import LintRule
from initbench.probing.finding import DiagnosisCode
from initbench.registry import RegistryEntry
from initbench.render import activation_curve, norm_diagram
from initbench.render.catalog import EXAMPLE_FANS, CatalogKind, describe, growth_factors, sigma_w2
from initbench.render.page import Page
from initbench.render.text import format_number
from initbench.render.text_table import TextTable
from initbench.runner.workers.base import Executor

SCHEMA = "initbench.explain/1"
_KEPT = 0.01
"""Relative change of q below which a layer is said to keep it."""
_FAR = 20.0
"""Largest |x| at which an activation is searched for flat parts."""


def explain_document(entries: Sequence[tuple[CatalogKind, RegistryEntry]]) -> dict[str, Any]:
    """Return the entries as one JSON document: the catalogue's data, examples of use and computed values."""
    return {"schema": SCHEMA, "entries": [_entry(kind, entry) for kind, entry in entries]}


def _entry(kind: CatalogKind, entry: RegistryEntry) -> dict[str, Any]:
    data = {"kind": kind.word, **describe(kind, entry)}
    if kind.field is not None:
        data["keys"] = list(kind.field.keys)
        data["yaml"] = "\n".join(examples.yaml_example(kind.field, entry)) + "\n"
        data["overrides"] = examples.override_examples(kind.field, entry)
        data["configs"] = examples.bundled_configs(kind.field, entry.name)
    return {**data, **_computed(entry)}


def explain_entry(sheet: Page, kind: CatalogKind, entry: RegistryEntry, *, ascii_only: bool) -> None:
    """Write the page of one entry to `sheet`."""
    row = describe(kind, entry)
    sheet.title(entry.name, kind.field.registry.kind if kind.field else kind.singular)
    sheet.say(row["summary"])
    sheet.draw([""])
    sheet.pair("formula", row["formula"])
    sheet.pair("source", row["source"])
    _write_details(entry, sheet, ascii_only)
    if kind.field is not None:
        _options(sheet, row["options"])
        _writing(sheet, kind, entry)


def _options(sheet: Page, options: dict[str, dict[str, Any]]) -> None:
    if not options:
        return
    sheet.heading("Options")
    columns = ("  option", "default", "type", "meaning")
    grid = TextTable(columns, left_aligned=columns)
    short = TextTable(columns[:2] + columns[3:], left_aligned=columns)
    for key, option in options.items():
        default = "required" if option["required"] else as_yaml(option["default"])
        grid.add([f"  {key}", default, option["type"], option["description"]])
        short.add([f"  {key}", default, f"{option['description']} ({option['type']})"])
    sheet.table(grid if sheet.width is None or grid.width <= sheet.width else short)


def _writing(sheet: Page, kind: CatalogKind, entry: RegistryEntry) -> None:
    if kind.field is None:
        return
    sheet.heading("In a config")
    sheet.draw(examples.yaml_example(kind.field, entry))
    sheet.heading("On the command line")
    ways = examples.override_examples(kind.field, entry)
    sheet.draw(f"initbench run FILE {' '.join(map(shlex.quote, way))}" for way in ways)
    if len(kind.field.keys) > 1:
        sheet.say(f"The key {' and '.join(kind.field.keys[1:])} takes the same names.")
    files = examples.bundled_configs(kind.field, entry.name)
    if files:
        sheet.heading("Shipped configs that use it")
        sheet.draw(files)


@singledispatch
def _computed(entry: Any) -> dict[str, Any]:
    """Return values that are computed from an entry of this kind; empty unless registered for the type."""
    del entry
    return {}


@singledispatch
def _write_details(entry: Any, sheet: Page, ascii_only: bool) -> None:
    """Write the lines that only entries of this kind have; none unless registered for the type."""
    del entry, sheet, ascii_only


@_write_details.register
def _(entry: Executor, sheet: Page, ascii_only: bool) -> None:
    del ascii_only
    sheet.pair("devices", ", ".join(entry.devices))
    sheet.heading("On the command line")
    forms = (f":{form}" for form in entry.address_forms)
    sheet.draw([f"initbench sweep FILE --executor {entry.name}{form}" for form in ("", *forms)])


@_write_details.register
def _(entry: Norm, sheet: Page, ascii_only: bool) -> None:
    if entry.min_batch > 1:
        sheet.pair("batch", f"at least {entry.min_batch} samples in training")
    if not entry.axes:
        sheet.pair("averages over", "no activations")
        return
    of = " of the weights (O, I, H, W)" if norm_diagram.of_weights(entry.axes) else ""
    sheet.pair("averages over", ", ".join(entry.axes) + of)
    if not norm_diagram.is_drawable(entry.axes):
        return
    sheet.pair("", norm_diagram.describe_statistic(entry.axes))
    mixes = any(axis.partition("/")[0] == "N" for axis in entry.axes)
    sheet.pair("samples", "coupled: the output of one depends on the others" if mixes else "independent")
    sheet.heading("Entries that share a statistic with the first one")
    sheet.draw(norm_diagram.draw_diagram(entry.axes, ascii_only=ascii_only))
    sheet.draw(["", *norm_diagram.diagram_legend(entry.axes, ascii_only=ascii_only)])


@_write_details.register
def _(entry: Activation, sheet: Page, ascii_only: bool) -> None:
    activation = bound(entry.name)
    sheet.pair(
        "auto gain", f"{activation.preserving_gain:.4f}   1/√E[φ(z)²]: a layer with this gain keeps q at 1"
    )
    sheet.pair("kaiming gain", f"{activation.kaiming_gain:.4f}   √(2/(1 + a²)), a = negative slope")
    sheet.pair("bounded", "yes, above and below" if entry.bounded else "no")
    if not entry.elementwise:
        units = 2
        taken, given = (
            entry.features_in(units, activation.options),
            entry.features_out(units, activation.options),
        )
        sheet.pair("channels", f"mixed: {taken} in, {given} out for each {units} units of width")
        return
    sheet.pair("kinks", ", ".join(f"x = {kink:g}" for kink in entry.kinks) or "none")
    where = (
        " or ".join(_format_interval(low, high) for low, high in flat_intervals(activation))
        or "not for large |x|"
    )
    label = "saturated" if entry.saturates else "flat"
    sheet.pair(label, f"{where}   (|φ′| < {SATURATED_BELOW:g}·max|φ′|)")
    if not entry.saturates:
        sheet.pair("", "never diagnosed as saturated, which requires flat ends on both sides, far from 0")
    sheet.heading("Curve and slope")
    phi, slope = ("phi(x)", "phi'(x)") if ascii_only else ("φ(x)", "φ′(x)")
    left = activation_curve.plot_function(_on_floats(activation.phi), phi, ascii_only=ascii_only)
    right = activation_curve.plot_function(_on_floats(activation.derivative), slope, ascii_only=ascii_only)
    both = activation_curve.side_by_side(left, right)
    fits = sheet.width is None or max(map(len, both)) + 2 <= sheet.width
    sheet.draw(both if fits else [*left, "", *right])


def _on_floats(function: Callable[[Tensor], Tensor]) -> activation_curve.Function:
    def values(xs: Sequence[float]) -> list[float]:
        column = torch.tensor(xs, dtype=torch.float64).unsqueeze(1)
        return [float(y) for y in function(column).flatten()]

    return values


def flat_intervals(activation: BoundActivation) -> list[tuple[float, float]]:
    """Return the unbounded intervals, at most two, on which the activation is flat as in the diagnosis.

    The search covers ±20 on a grid of 0.01, then refines the ends; flat parts in the middle are ignored.
    """
    grid = torch.linspace(-_FAR, _FAR, 4001, dtype=torch.float64)
    least = SATURATED_BELOW * activation.max_derivative

    def steep(x: Tensor) -> Tensor:
        return activation.derivative(x).abs() >= least

    steep_points = torch.nonzero(steep(grid)).flatten()
    if len(steep_points) == 0:
        return []
    first, last = int(steep_points[0]), int(steep_points[-1])
    ends = []
    if first > 0:
        ends.append((-math.inf, _edge(steep, grid[first - 1 : first], grid[first : first + 1])))
    if last < len(grid) - 1:
        ends.append((_edge(steep, grid[last + 1 : last + 2], grid[last : last + 1]), math.inf))
    return ends


def _edge(steep: Callable[[Tensor], Tensor], outside: Tensor, inside: Tensor) -> float:
    """Return the border between a flat and a steep point, by bisection."""
    for _ in range(30):
        middle = (outside + inside) / 2
        outside, inside = (outside, middle) if steep(middle) else (middle, inside)
    return round(float(inside), 6) + 0.0


def _format_interval(low: float, high: float) -> str:
    return f"x < {high:.3g}" if math.isinf(low) else f"x > {low:.3g}"


@_computed.register
def _(entry: Activation) -> dict[str, Any]:
    return {"flat": [list(span) for span in flat_intervals(bound(entry.name))] if entry.elementwise else []}


@_write_details.register
def _(entry: Scheme, sheet: Page, ascii_only: bool) -> None:
    del ascii_only
    sheet.pair("needs", "only the weight" if entry.needs == "none" else str(entry.needs).replace("_", " "))
    sheet.pair(
        "gain",
        "init.gain multiplies the standard deviation" if entry.default_gain else "not used",
    )
    found = _computed(entry)["example"]
    if found is None:
        sheet.pair("variance", "not stated: the weights are not independent draws")
        return
    n, m = EXAMPLE_FANS
    sheet.heading(f"Example: n = {n} inputs, m = {m} units, relu, default gain")
    for label, key in (("variance", "variance"), ("std", "std"), ("σ_w² = n·var", "sigma_w2")):
        sheet.pair(label, f"{found[key]:.4g}")
    sheet.heading(f"Effect of one wide layer ({n} units, no biases) on q = 1")
    for label, factors in _sorted(dict(growth_factors(entry, n))).items():
        sheet.pair(label, ", ".join(factors))


def _sorted(factors: dict[str, float]) -> dict[str, list[str]]:
    """Return the activations by their effect on q, largest change first, with the factor unless q is kept."""
    activations: dict[str, list[str]] = {"keeps q": [], "shrinks q": [], "grows q": []}
    for name, factor in sorted(factors.items(), key=lambda pair: -abs(math.log(max(pair[1], 1e-300)))):
        if abs(factor - 1.0) < _KEPT:
            activations["keeps q"].append(name)
        else:
            activations["shrinks q" if factor < 1.0 else "grows q"].append(f"{name} ×{format_number(factor)}")
    return activations


@_computed.register
def _(entry: Scheme) -> dict[str, Any]:
    n, m = EXAMPLE_FANS
    value = sigma_w2(entry, n, m, bound("relu"))
    if value is None:
        return {"example": None, "growth": {}}
    stated = {"fan_in": n, "fan_out": m, "activation": "relu", "variance": value / n}
    example = {**stated, "std": math.sqrt(value / n), "sigma_w2": value}
    return {"example": example, "growth": dict(growth_factors(entry, n))}


@_write_details.register
def _(entry: DiagnosisCode, sheet: Page, ascii_only: bool) -> None:
    del ascii_only
    sheet.pair("level", entry.level)
    sheet.pair("measured", entry.measure)
    sheet.pair("threshold", entry.limit)
    sheet.pair("cause", entry.cause)
    sheet.pair("cure", entry.cure)
    sheet.pair("hides", ", ".join(entry.hides))


@_write_details.register
def _(entry: LintRule, sheet: Page, ascii_only: bool) -> None:
    del ascii_only
    sheet.pair("level", entry.level)
    sheet.pair("threshold", entry.limit)
    sheet.pair("cure", entry.cure)
