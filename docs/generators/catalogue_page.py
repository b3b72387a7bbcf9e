"""Render docs/catalogue.md: every registry entry."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from docs.generators import fields
from docs.generators.markdown import NOTHING, code, generated, page, table
from initbench.components.activation import ACTIVATIONS, Activation, bound
from initbench.components.init_scheme import INITS, Scheme
from initbench.components.norm import NORMS
from initbench.config.registry_fields import RegistryField, registry_fields
from initbench.probing.diagnosis import CODES
from initbench.registry import Options, Registry, RegistryEntry
from initbench.render import norm_diagram
from initbench.runner.workers.base import EXECUTORS

_INTRO = """\
This page lists all components that a config can use, and the executors. Each table is one registry; the
config key that selects its entries is given under the heading. `n` is fan_in, `m` is fan_out, `z ~ N(0, 1)`,
and `q = E[h²]` is the second moment of a pre-activation.
Options are listed with their defaults; the [config reference](config.md) describes them.

`initbench catalog` prints these tables. `initbench explain NAME` describes one entry in full, with the
picture of a norm or the curve of an activation. Both support `--json`."""
_PICTURES = """\
The pictures show what each norm averages over, drawn from its axes: rows are samples and columns channels
(or units and inputs of a weight), and each cell is one map of H × W positions (one number in an mlp). Filled
cells share one statistic with the first entry; the others form sets of the same shape, each with its own."""
_DIAGNOSTICS = """\
The codes that a diagnosis can contain; they are not config values. For thresholds, and for which finding
hides which, see [diagnosis](diagnosis.md)."""

Column = tuple[str, Callable[[Any], str]]

_EXTRA: dict[int, tuple[str, list[Column]]] = {}


def _extra(registry: Registry[Any], note: str, *columns: Column) -> None:
    _EXTRA[id(registry)] = (note, list(columns))


def _gain(entry: Scheme) -> str:
    if entry.layer_gain is not None:
        return "computed"
    if entry.default_gain is None:
        return NOTHING
    return {"unit_gain": "1", "kaiming_gain": "√(2/(1+a²))"}.get(entry.default_gain.__name__, "own")


def _auto(entry: Activation) -> str:
    return f"{bound(entry.name).preserving_gain:.3f}"


_extra(
    INITS,
    "`gain` is the default for `init.gain: null`. An entry without one accepts no gain, and `init.gain` is"
    " rejected if neither `init.scheme` nor `init.head` has one. `needs` is what the scheme uses in addition"
    " to the weight itself.",
    ("gain", _gain),
    ("needs", lambda entry: str(entry.needs)),
)
_extra(
    ACTIVATIONS,
    "`auto gain` is 1/√E[φ(z)²], the value of `init.gain: auto` with the default options (computed).",
    ("auto gain", _auto),
    ("bounded", lambda entry: "yes" if entry.bounded else "no"),
)
_extra(
    NORMS,
    "`averages over` names the axes that share one statistic: of activations (N, C, H, W), or of weights"
    " (O, I, H, W) if the norm acts on weights. C/G is one group of channels, N/G one of samples, C/n a"
    " window of channels.",
    ("acts on", lambda entry: entry.acts_on),
    ("averages over", lambda entry: ", ".join(entry.axes) or NOTHING),
)


def render(_current: str) -> str:
    """Render the whole page."""
    parts = ["# Catalogue", generated("the registries"), _INTRO]
    for kind in registry_fields():
        note, columns = _EXTRA.get(id(kind.registry), ("", []))
        header = ("name", "formula", "what it is", *(title for title, _ in columns), "options", "source")
        rows = [_row(entry, columns, kind) for entry in kind.registry]
        parts += [f"## {kind.title}", f"`{kind.key}`", note, table(header, rows)]
        if kind.registry is NORMS:
            parts += [_PICTURES, *_pictures()]
    executors = [[code(entry.name), entry.summary, ", ".join(entry.devices)] for entry in EXECUTORS]
    parts += ["## Executors", "`--executor`", table(("name", "what it is", "devices"), executors)]
    codes = [[code(entry.name), entry.summary, entry.measure] for entry in CODES]
    parts += ["## Diagnostics", _DIAGNOSTICS, table(("name", "what it is", "what is measured"), codes)]
    return page(*parts)


def _pictures() -> Iterator[str]:
    """Yield one picture for all norms that average over the same axes, under their names."""
    names: dict[tuple[str, ...], list[str]] = {}
    for entry in NORMS:
        if norm_diagram.is_drawable(entry.axes):
            names.setdefault(entry.axes, []).append(code(entry.name))
    for axes, norms in names.items():
        yield f"{', '.join(norms)}: {norm_diagram.describe_statistic(axes)}."
        yield "```text\n" + "\n".join(norm_diagram.draw_diagram(axes)) + "\n```"


def _row(entry: RegistryEntry, columns: list[Column], kind: RegistryField) -> list[str]:
    source = NOTHING if entry.source == "-" else entry.source
    extra = [read(entry) for _, read in columns]
    return [code(entry.name), entry.formula, entry.summary, *extra, _options(entry, kind), source]


def _options(entry: RegistryEntry, kind: RegistryField) -> str:
    """Return the entry's options with their defaults, except those that every entry of its kind has."""
    common = set.intersection(*(set(other.options.model_fields) for other in kind.registry))
    keys = [key for key in entry.options.model_fields if key not in common | set(Options.model_fields)]
    defaults = {key: fields.default_of(entry.options.model_fields[key]) for key in keys}
    return ", ".join(f"{code(key)} ({default.strip('`')})" for key, default in defaults.items()) or NOTHING
