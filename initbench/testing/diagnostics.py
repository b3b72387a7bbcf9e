"""Checks of diagnostics: what they see in probes of nets with and without a signal."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch

from initbench.components.target import SampleShape
from initbench.config.schema import ExperimentConfig
from initbench.data.preprocessing import Split
from initbench.models.build import build
from initbench.probing.finding import DiagnosisCode, Symptom
from initbench.runner.advice_trials import probe_untrained
from initbench.testing.check import Check, check_of, expect_that, normal_draws

SCHEMES = ("kaiming_normal", "zeros", "as_built")
_FEATURES, _CLASSES, _SAMPLES = 8, 3, 32


def diagnostic_checks(entry: DiagnosisCode) -> Iterator[Check]:
    """Yield the checks of a diagnostic of a plug-in."""
    if entry.look is not None:
        yield check_of("sees the same in the same probe, and leaves it as it is", check_symptoms, entry)


def check_symptoms(entry: DiagnosisCode) -> None:
    """Check that symptoms name a layer of the net, and have a number and a sentence."""
    assert entry.look is not None
    for scheme in SCHEMES:
        layers = _layers(scheme)
        probe = {"when": "init", "step": 0, "layers": layers}
        original, indices = repr(probe), [layer["index"] for layer in layers]
        symptoms = list(entry.look(probe))
        expect_that(list(entry.look(probe)) == symptoms, f"it sees two things in one probe ({scheme})")
        expect_that(repr(probe) == original, f"it changes the probe ({scheme})")
        for symptom in symptoms:
            expect_that(isinstance(symptom, Symptom), f"it yields {type(symptom).__name__}, not a Symptom")
            expect_that(symptom.layer is None or symptom.layer in indices, f"no layer {symptom.layer!r}")
            expect_that(math.isfinite(symptom.value), f"the value {symptom.value!r} is not finite ({scheme})")
            expect_that(bool(symptom.sentence.strip()), f"the sentence is empty ({scheme})")


def _layers(scheme: str) -> list[dict[str, Any]]:
    """Return the records of the layers of a small untrained mlp."""
    config = ExperimentConfig.model_validate(
        {
            "name": "probe",
            "data": {"name": "digits"},
            "model": {"family": "mlp", "depth": 4, "width": _FEATURES},
            "init": {"scheme": scheme},
        }
    )
    x = normal_draws(_SAMPLES, _FEATURES, dtype=torch.float32)
    form = SampleShape((_FEATURES,), _CLASSES)
    network = build(config.model, config.init, form=form, seed=0, batch=x)
    return list(probe_untrained(network, Split(x=x, y=torch.arange(_SAMPLES) % _CLASSES), config).layers)
