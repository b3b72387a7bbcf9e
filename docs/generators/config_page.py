"""docs/config.md: every section and key of a config, and the options of every registry entry."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from docs.generators import fields
from docs.generators.markdown import code, generated, page, slug, table
from initbench.config.registries import Kind, kinds
from initbench.config.schema import ExperimentConfig
from initbench.registry import Options, Registry

_HEADER = ("key", "type", "default", "meaning")
_INTRO = """\
A config is one YAML file. Every key has a default except `name`, and a key that is not listed here is
refused. `initbench validate FILE` lists every fault with file, line and column; `initbench run FILE
--print-config` prints the config with all defaults filled in.

YAML is read strictly, by the rules of YAML 1.2: `1e-3` is a number, `no` is a word, `010` is refused because
YAML 1.1 reads it as 8, and a key that stands twice is a fault. `key=value` arguments override a file:
`model.depth=50`, `init.scheme=lsuv`, `train.optimizer.momentum=0.9`.

Where the type is a link, the value is the name of an entry of that table. An entry with options is
written as a mapping:

```yaml
model:
  norm: group            # the default options
# or
  norm:
    name: group
    num_groups: 4
```

Editors complete and check a config that begins with this line
(the schema is [config.schema.json](config.schema.json)):

```yaml
# yaml-language-server: $schema=../docs/config.schema.json
```"""


def render(_current: str) -> str:
    """The whole page."""
    found = kinds()
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
    for kind in found:
        if kind.key.count(".") and not _is_section(kind):
            parts += _options_of(kind)
    return page(*parts)


def link(registry: Registry[Any]) -> str:
    """The registry's noun, linked to its table."""
    title = next(kind.title for kind in kinds() if kind.registry is registry)
    return f"[{registry.kind}](catalogue.md#{slug(title)})"


def _is_section(kind: Kind) -> bool:
    return kind.key.endswith((".name", ".family")) and kind.key.count(".") == 1


def _kind_of_section(key: str) -> Kind | None:
    """The registry whose entries the section is a choice of."""
    return next((kind for kind in kinds() if _is_section(kind) and kind.key.split(".")[0] == key), None)


def _section_model(key: str) -> type[BaseModel] | None:
    """The pydantic class behind a top-level section: its own, or the one all its entries share."""
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
    return parts


def _options_of(kind: Kind) -> list[str]:
    shared = frozenset(Options.model_fields)
    rows = [
        [code(entry.name), *row]
        for entry in kind.registry
        for row in fields.rows(entry.options, link, shared)
    ]
    return [f"## {kind.key}", table(("entry", *_HEADER), rows)] if rows else []
