"""Render docs/config.md: every section and key of a config, and the options of every registry entry."""

from __future__ import annotations

from inspect import getdoc
from typing import Any

from pydantic import BaseModel

from docs.generators import fields
from docs.generators.markdown import code, generated, page, slug, table
from initbench.config.registry_fields import RegistryField, registry_fields
from initbench.config.schema import ExperimentConfig
from initbench.config.study import Claim, Figure, LessonConfig, Range, SweepConfig, Tune
from initbench.registry import Options, Registry
from initbench.study.tuning import TOLERANCE

_HEADER = ("key", "type", "default", "meaning")
_INTRO = """\
A config is one YAML file. Every key has a default except `name`, and a key that is not listed here is
rejected. `initbench validate FILE` lists every error with file, line and column; `initbench run FILE
--print-config` prints the config with all defaults filled in.

YAML is parsed strictly by the rules of YAML 1.2: `1e-3` is a number, `no` is a string, `010` is rejected
because YAML 1.1 reads it as 8, and a duplicate key is an error. `key=value` arguments override a file:
`model.depth=50`, `init.scheme=lsuv`, `train.optimizer.momentum=0.9`.

If the type is a link, the value is the name of an entry of that table. An entry with options is
written as a mapping:

```yaml
model:
  norm: group            # the default options
# or
  norm:
    name: group
    num_groups: 4
```

Editors complete and validate a config that begins with this line
(the schema is [config.schema.json](config.schema.json)):

```yaml
# yaml-language-server: $schema=../docs/config.schema.json
```"""

_NOTES = {
    "npz": """\
The archive holds arrays, as `numpy.savez(FILE, x_train=…, y_train=…)` writes them; `x_test`, `y_test`,
`x_val` and `y_val` are optional. All parts have samples of one shape and type:

| `x_…` | type |
| --- | --- |
| (N, D) features, (N, H, W) grey images, (N, H, W, C) images with C = 1, 3 or 4 | `uint8`, which is \
scaled to [0, 1], or any float, which must be finite in float32 |
| (N, T) token ids below `vocabulary` | any integer |

`target_kind` lists the shapes of `y_…`. For classes, probable mistakes are rejected with advice: labels that
are floats, negative, one-hot, from 1 or with gaps (unless `classes` chooses some), a single class, about as
many classes as samples, inputs that are all alike, images with their channels first, and integers other than
`uint8`. [docs/own_data.md](own_data.md) shows an example of each of your own data sets.""",
    "images": "[docs/own_data.md](own_data.md) shows the layouts of folders.",
    "table": "[docs/own_data.md](own_data.md) shows which columns become features.",
    "tokens": "[docs/own_data.md](own_data.md) shows how a text is cut into samples.",
}
"""What a table of options cannot say, by the entry's name."""

_LESSONS = """\
A file with `kind: lesson` asks a question, names the experiments that answer it, and states claims about
what they show. `initbench lesson NAME` trains the missing runs and evaluates each claim. A lesson is named
after its file, without the leading number that orders the files."""
_ARMS = """\
An arm is `base` with some keys changed, by the rules of `key=value` arguments: a value replaces the
previous one entirely, and a name on the way becomes a mapping of that name. It is stored as the experiment
`lesson.arm`, and its tuning as `lesson.arm.tune`. Arms run in the order of the file. Errors are listed with
the position of the value in the file.

```yaml
base:
  seeds: 5
  data: {name: digits}
  model: {family: mlp, depth: 20, width: 64}
arms:
  xavier: {init.scheme: xavier_normal}
  kaiming: {init.scheme: kaiming_normal}
  deep: {init.scheme: kaiming_normal, model.depth: 50}
tune:
  train.lr: {log: [0.001, 0.1], points: 3}
claims:
  - says: Kaiming keeps the second moment under relu
    holds_if: kaiming.slope(q@init) ≈ 0 within 0.1
show:
  - layers: [xavier, kaiming]
```"""

_VERDICTS = f"""\
A claim is **supported** if the whole 95 % interval of its numbers fulfils the condition,
**contradicted** if the whole interval fulfils the opposite, and otherwise **undecided**. A claim that
names no arm is supported if every arm shows it, and contradicted if one arm shows the opposite.

The numbers decide nothing if only a part of the interval fulfils the condition, if there is no
interval (one seed, or all runs of an arm diverged), or if only some runs of an arm reach the
accuracy of a `steps_to`; [docs/ci.md](ci.md#what-is-computed) describes how intervals are computed. Two
reasons, which are printed with the claim, make it undecided although its numbers are clear:

- **The edge of the grid.** A tuned arm of the claim scores best at the lowest or the highest value tried,
  so a better value may lie outside the range. Widen the range under `tune` until the best value lies
  inside. There is no edge if all values score alike, within {TOLERANCE:.0%} of the best score or, for an
  accuracy, within {100 * TOLERANCE:.0f} points: such an arm learns under none of them, or under all. A key
  of `train` changes nothing that is measured `@init`, so claims about that alone are evaluated.
- **The interval between evaluations.** Two numbers of steps differ by less than `train.eval_every` updates,
  which cannot show the difference. Give a smaller `train.eval_every`; with an evaluation after every update
  the numbers are exact.

A verdict holds for the budget and the grid of its file. If more updates may reverse it, the claim
says so: "Within 400 updates, …"."""

_SWEEPS = """\
A file with `kind: sweep` runs one experiment at many points. `initbench sweep FILE` trains the missing
runs and shows the comparison.

```yaml
kind: sweep
name: depth
base: ../relu_kaiming.yaml
grid:
  init.scheme: [xavier_normal, kaiming_normal]
  model.depth: [10, 20, 50]
zip:
  train.lr: [0.1, 0.01]
  train.batch_size: [512, 64]
exclude:
  - {init.scheme: xavier_normal, model.depth: 50}
include:
  - {init.scheme: {name: sparse, connections: 8}, model.depth: 50}
seeds: 8
gates:
  - final_val_accuracy < 90 %
```"""
_POINTS = """\
`grid` spans 2 × 3 points here, `zip` doubles them, `exclude` removes two of the twelve and `include` adds
one. A point is `base` with some keys changed, by the rules of `key=value` arguments. It is stored as the
experiment `sweep.point` and called after its values, as `depth.xavier_normal_depth10_lr0.1_batch_size512`:
words are used as they are, numbers after the last part of their key. Adding a value to an axis therefore
renames no point, and stored runs are reused. Names of more than 95 characters are shortened by a hash.
Points that result in the same experiment run once. An entry of `exclude` may name some of the keys; an
entry that matches no point is an error.

On the command line `key=v1,v2` adds or replaces an axis, `key=v` replaces an axis by one value or sets the
key at every point, and `seeds=8` applies to all points. A list as a single value is written `key=[1, 2]`. A
plain experiment can be swept as well, with the axes from the command line: `initbench sweep
configs/relu_kaiming.yaml model.depth=10,20`.

`tune` works as in a lesson: each point is tuned separately, and the chosen value runs under seeds that the
tuning did not use."""


def render(_current: str) -> str:
    """Render the whole page."""
    kinds = registry_fields()
    model = ExperimentConfig
    sections = {key: section for key in model.model_fields if (section := _section_model(key))}
    skip = frozenset(sections)
    parts = [
        "# Config reference",
        generated("the config's schema"),
        _INTRO,
        "## Top level",
        table(_HEADER, fields.rows(model, link, skip)),
    ]
    for key, section in sections.items():
        parts += [f"## {key}", model.model_fields[key].description or "", table(_HEADER, _rows(key, section))]
        parts += _entries_of_section(key, section)
    parts += ["# Options of the entries", "An entry that is not listed here has no options of its own."]
    for kind in kinds:
        if kind.key.count(".") and not _is_section(kind):
            parts += _options_of(kind)
    return page(*parts, *_lessons(), *_sweeps())


def _lessons() -> list[str]:
    """Render the sections about lesson files."""
    sections = {"base and arms": None, "tune": Tune, "tune: values": Range, "claims": Claim, "show": Figure}
    parts = ["# Lessons", _LESSONS, table(_HEADER, fields.rows(LessonConfig, link))]
    for title, section in sections.items():
        if section is None:
            parts += [f"## {title}", _ARMS]
        else:
            parts += [f"## {title}", getdoc(section) or "", table(_HEADER, fields.rows(section, link))]
        parts += ["## Verdicts", _VERDICTS] if section is Claim else []
    return parts


def _sweeps() -> list[str]:
    """Render the sections about sweep files."""
    return ["# Sweeps", _SWEEPS, table(_HEADER, fields.rows(SweepConfig, link)), "## Points", _POINTS]


def link(registry: Registry[Any]) -> str:
    """Return the registry's kind as a link to its table."""
    title = next(kind.title for kind in registry_fields() if kind.registry is registry)
    return f"[{registry.kind}](catalogue.md#{slug(title)})"


def _is_section(kind: RegistryField) -> bool:
    return kind.key.endswith((".name", ".family")) and kind.key.count(".") == 1


def _kind_of_section(key: str) -> RegistryField | None:
    """Return the registry that the section selects an entry of."""
    return next(
        (kind for kind in registry_fields() if _is_section(kind) and kind.key.split(".")[0] == key), None
    )


def _section_model(key: str) -> type[BaseModel] | None:
    """Return the pydantic class of a top-level section, or the one that all its entries share."""
    annotation = ExperimentConfig.model_fields[key].annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return None


def _rows(key: str, section: type[BaseModel]) -> list[list[str]]:
    kind = _kind_of_section(key)
    if kind is None:
        return fields.rows(section, link)
    tag = kind.key.split(".")[1]
    default = ExperimentConfig.model_fields[key].get_default(call_default_factory=True)
    first = [
        code(tag),
        link(kind.registry),
        code(getattr(default, tag)),
        section.model_fields[tag].description,
    ]
    return [[str(c) for c in first], *fields.rows(section, link, frozenset({tag}))]


def _entries_of_section(key: str, section: type[BaseModel]) -> list[str]:
    kind = _kind_of_section(key)
    if kind is None:
        return []
    shared = frozenset(section.model_fields)
    parts = []
    for entry in kind.registry:
        rows = fields.rows(entry.options, link, shared)
        if rows:
            parts += [f"### {kind.key}: {entry.name}", entry.summary, table(_HEADER, rows)]
            parts += [_NOTES[entry.name]] if entry.name in _NOTES else []
    return parts


def _options_of(kind: RegistryField) -> list[str]:
    shared = frozenset(Options.model_fields)
    rows = [
        [code(entry.name), *row]
        for entry in kind.registry
        for row in fields.rows(entry.options, link, shared)
    ]
    return [f"## {kind.key}", table(("entry", *_HEADER), rows)] if rows else []
