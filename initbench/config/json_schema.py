"""JSON Schema of a config file, generated from the pydantic models and their registries."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from initbench.config.schema import ExperimentConfig
from initbench.config.study import BELONGS_TO_STUDY, LessonConfig, SweepConfig, Tune

_OTHERS: dict[str, type[BaseModel]] = {"lesson": LessonConfig, "sweep": SweepConfig}


def json_schema() -> str:
    """Return the schema as indented JSON text, with a final newline.

    The key `kind` selects the schema that a file must match; without it the file declares an experiment.
    """
    models: list[type[BaseModel]] = [ExperimentConfig, *_OTHERS.values()]
    _, generated = models_json_schema([(model, "validation") for model in models])
    schemas: dict[str, Any] = generated["$defs"]
    shared = _base_schema(schemas[ExperimentConfig.__name__])
    schemas[LessonConfig.__name__]["properties"]["base"] |= shared
    forms = schemas[SweepConfig.__name__]["properties"]["base"]["anyOf"]
    next(form for form in forms if form["type"] == "object").update(shared)
    either = [{"type": "array", "items": {"type": "number"}}, schemas[Tune.__name__]["additionalProperties"]]
    schemas[Tune.__name__]["additionalProperties"] = {"anyOf": either}
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "initbench config",
        **_by_kind(list(_OTHERS)),
        "$defs": schemas,
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _by_kind(kinds: list[str]) -> dict[str, Any]:
    if not kinds:
        return {"$ref": f"#/$defs/{ExperimentConfig.__name__}"}
    return {
        "if": {"properties": {"kind": {"const": kinds[0]}}, "required": ["kind"]},
        "then": {"$ref": f"#/$defs/{_OTHERS[kinds[0]].__name__}"},
        "else": _by_kind(kinds[1:]),
    }


def _base_schema(experiment: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of the `base` of a lesson or sweep: an experiment without kind, name and notes."""
    properties = {
        key: value for key, value in experiment["properties"].items() if key not in BELONGS_TO_STUDY
    }
    return {"properties": properties, "additionalProperties": False}
