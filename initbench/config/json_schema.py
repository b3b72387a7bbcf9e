"""The JSON Schema of a config, made from the pydantic models and the registries behind them."""

from __future__ import annotations

import json

from initbench.config.schema import ExperimentConfig


def json_schema() -> str:
    """The schema as indented JSON text, with a newline at the end."""
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **ExperimentConfig.model_json_schema(),
        "title": "initbench config",
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
