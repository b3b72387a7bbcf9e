"""Rows of a survey of untrained nets, for tables and JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from initbench.analysis.stats.summary import Summary, summarise
from initbench.diagnostics.survey import Survey, SurveyedLayer
from initbench.store import strict_json
from initbench.theory.bands import STATISTICS, PredictedStatistic
from initbench.theory.types import LayerPrediction
from initbench.trace.weight_use import WeightUse

SCHEMA = "initbench.probe/1"


@dataclass(frozen=True)
class SurveyRow:
    """Predicted and measured statistics of one layer, over all seeds, with the bands of the prediction."""

    layer: SurveyedLayer
    predicted: dict[str, PredictedStatistic]
    measured: dict[str, Summary]
    bands: dict[str, tuple[float, float]]

    @property
    def inside(self) -> bool | None:
        """Whether the mean of q over the seeds lies in its band; None without a band."""
        mean, between = self.measured["q"].mean, self.bands.get("q")
        return None if between is None or mean is None else between[0] <= mean <= between[1]


def survey_rows(survey: Survey) -> list[SurveyRow]:
    """Return the layers in order, including the head."""
    pairs = zip(survey.layers, survey.expected.layers, strict=True)
    return [_row(layer, predicted, len(survey.seeds)) for layer, predicted in pairs]


def _row(layer: SurveyedLayer, predicted: LayerPrediction, nets: int) -> SurveyRow:
    measured = {name: summarise([net[name] for net in layer.measured]) for name in STATISTICS}
    bands = {name: band for name in STATISTICS if (band := predicted.band(name, nets)) is not None}
    return SurveyRow(layer, predicted.statistics, measured, bands)


def survey_document(survey: Survey) -> dict[str, Any]:
    """Return the survey as plain data, in the schema initbench.probe/1."""
    layers = [
        {**_layer(row), **_use(use)} for row, use in zip(survey_rows(survey), survey.trace.uses, strict=True)
    ]
    return {
        "schema": SCHEMA,
        **_subject(survey),
        "input_shape": list(survey.input_shape),
        "output_shape": list(survey.output_shape),
        "loss": {"name": survey.loss, "value": survey.loss_value, "at_chance": survey.loss_at_chance},
        "seeds": list(survey.seeds),
        "samples": survey.samples,
        "theory": _theory(survey),
        "layers": layers,
        "diagnosis": [{**finding.as_data(), "seeds": count} for finding, count in survey.findings],
        "note": survey.note,
        "unseen": [{"parameter": name, "why": why} for name, why in survey.trace.unseen.items()],
        "coverage": survey.coverage.as_data(),
        "additions": [
            {"after": addition.use.name, "branch": addition.branch, "beside": addition.skip}
            for addition in survey.trace.additions
        ],
    }


def survey_json(survey: Survey) -> str:
    """Return the document as strict JSON."""
    return strict_json.dumps(survey_document(survey))


def surveys_json(surveys: Sequence[Survey]) -> str:
    """Return the documents of several surveys as strict JSON."""
    return strict_json.dumps({"schema": SCHEMA, "probes": [survey_document(survey) for survey in surveys]})


def _subject(survey: Survey) -> dict[str, Any]:
    """Return the keys that identify the nets and their batch."""
    experiment = survey.experiment
    if experiment is None:
        return {"model": survey.name, "batch": survey.batch}
    return {
        "experiment": survey.name,
        "config": experiment.config.resolved(),
        "dataset": experiment.dataset,
        "dataset_requested": experiment.requested,
    }


def _theory(survey: Survey) -> dict[str, Any]:
    fixed = survey.expected.fixed
    keys = ("chi_1", "chi_parallel", "q_star", "depth_scale_q", "depth_scale_c")
    values = {key: None if fixed is None else getattr(fixed, key) for key in keys}
    reasons = {"no_prediction": survey.expected.reason, "no_band": survey.expected.no_band}
    return {**values, "chi_at": chi_at(survey), **reasons}


def chi_at(survey: Survey) -> str | None:
    """Return where χ was evaluated: `q_star`, or `last_hidden` if q* is 0, infinite or arbitrary.

    None without a prediction.
    """
    fixed = survey.expected.fixed
    if fixed is None:
        return None
    settled = fixed.q_star is not None and 0.0 < fixed.q_star < math.inf
    return "q_star" if settled else "last_hidden"


def _layer(row: SurveyRow) -> dict[str, Any]:
    layer = row.layer
    return {
        "index": layer.index,
        "name": layer.name,
        "fan_in": layer.fan_in,
        "fan_out": layer.fan_out,
        "predicted": {name: _value(row.predicted.get(name)) for name in STATISTICS},
        "measured": {
            name: {"mean": row.measured[name].mean, "std": row.measured[name].std} for name in STATISTICS
        },
        "band": {name: list(between) for name, between in row.bands.items()} or {"q": None},
        "inside": row.inside,
    }


def _value(statistic: PredictedStatistic | None) -> float | None:
    return None if statistic is None else statistic.value


def _use(use: WeightUse) -> dict[str, Any]:
    return {
        "operation": use.operation,
        "norm": use.norm,
        "activation": None if use.activation is None else use.activation.label,
        "joins_shortcut": use.joins_residual,
        "use": use.use_count,
    }
