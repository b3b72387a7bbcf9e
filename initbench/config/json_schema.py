"""The JSON Schema of a config file, made from the pydantic models and the registries behind them."""

from __future__ import annotations

import json
from typing import Any

from pydantic.json_schema import models_json_schema

from initbench.config.lesson import LessonConfig, Tune
from initbench.config.read_lesson import NOT_IN_ARMS
from initbench.config.schema import ExperimentConfig


def json_schema() -> str:
    """The schema as indented JSON text, with a newline at the end.

    `kind` decides which of two schemas a file has to fit; without it the file declares an experiment.
    """
    _, made = models_json_schema([(ExperimentConfig, "validation"), (LessonConfig, "validation")])
    schemas: dict[str, Any] = made["$defs"]
    schemas[LessonConfig.__name__]["properties"]["base"] |= _shared(schemas[ExperimentConfig.__name__])
    either = [{"type": "array", "items": {"type": "number"}}, schemas[Tune.__name__]["additionalProperties"]]
    schemas[Tune.__name__]["additionalProperties"] = {"anyOf": either}
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "initbench config",
        "if": {"properties": {"kind": {"const": "lesson"}}, "required": ["kind"]},
        "then": {"$ref": f"#/$defs/{LessonConfig.__name__}"},
        "else": {"$ref": f"#/$defs/{ExperimentConfig.__name__}"},
        "$defs": schemas,
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _shared(experiment: dict[str, Any]) -> dict[str, Any]:
    """What the base of a lesson takes: the keys of an experiment that are not the lesson's own."""
    properties = {key: value for key, value in experiment["properties"].items() if key not in NOT_IN_ARMS}
    return {"properties": properties, "additionalProperties": False}
