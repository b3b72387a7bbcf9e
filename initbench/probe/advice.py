"""The sentences of a diagnosis: how much, why, and what to try."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from initbench.components.scheme import INITS
from initbench.models.initialise import InitOptions
from initbench.models.network import FamilyOptions, Network
from initbench.probe.predict import Prediction, predict


@dataclass(frozen=True)
class Situation:
    """What a run was declared to be, as far as it explains what was measured."""

    scheme: str
    scheme_has_gain: bool
    activation: str
    norm: str
    prediction: Prediction


def situation_of(network: Network, model: FamilyOptions, init: InitOptions, first_q: float) -> Situation:
    """What the config declares, with what theory predicts from the first layer's measured q."""
    return Situation(
        scheme=init.scheme.name,
        scheme_has_gain=INITS[init.scheme.name].default_gain is not None,
        activation=model.activation.name,
        norm=model.norm.name,
        prediction=predict(network, init, first_q=first_q, normed=model.norm.name != "none"),
    )


_SUBJECT = {
    "vanishing_forward": "the signal falls",
    "exploding_forward": "q = E[h²] grows",
    "vanishing_backward": "E[δ²] falls on the way back",
    "exploding_backward": "E[δ²] grows on the way back",
}
CHI_TOLERANCE = 1.5
REMEDY = {
    "dead": "Try model.activation=leaky_relu, a smaller train.lr, or a norm layer (model.norm=batch)",
    "saturated": "Try a scheme with a smaller variance, or a norm layer (model.norm=batch)",
}


def spell(when: str) -> str:
    """A snapshot's moment in words."""
    return {"init": "at init", "end": "at the end"}.get(when, "in training")


def and_more(others: int) -> str:
    """How many further layers share a finding."""
    return f" and {others} more" if others else ""


def times(factor: float) -> str:
    """A factor as ×0.50, with an exponent where that would read as zero."""
    if math.isinf(factor) or factor >= 1e4 or factor < 1e-2:
        return f"×{factor:.0e}"
    return f"×{factor:.2f}"


def advice(
    code: str, slope: float, span: tuple[int, int], values: Sequence[float], situation: Situation
) -> str:
    """How much, why and what to try, for a log-slope over the layers from span[0] to span[1]."""
    forward = code.endswith("forward")
    theory = situation.prediction.forward if forward else situation.prediction.backward
    predicted = f", theory{' for q' if forward else ''} {times(theory)}" if theory is not None else ""
    reached = values[-1] / values[0] if values and values[0] > 0 else math.nan
    share = f"; layer {span[1]} has {reached:.0e} of layer {span[0]}'s" if math.isfinite(reached) else ""
    what = f"{_SUBJECT[code]} {times(_exp(slope))} a layer (layers {span[0]} to {span[1]}{predicted}){share}."
    return f"{what} {_cause(situation)}"


def _exp(slope: float) -> float:
    return math.exp(slope) if slope < 700 else math.inf


def _cause(s: Situation) -> str:
    """Why, where the declared scheme explains it, and what to try."""
    p = s.prediction
    if s.norm != "none":
        return "The norm layer holds q, not this. Try fewer layers, or another norm"
    if p.sigma_w2 is None:
        return f"Try {_scheme_that_keeps(s)}, or a norm layer (model.norm=batch)"
    if not 1 / CHI_TOLERANCE < p.chi_at_needed < CHI_TOLERANCE:
        return (
            f"No scale of the weights helps: where {s.activation} keeps q (σ_w² = {p.needed_sigma_w2:.3g}),"
            f" χ₁ is {p.chi_at_needed:.2g}. Try model.norm=batch, or another activation"
        )
    ratio = p.sigma_w2 / p.needed_sigma_w2
    if abs(math.log(ratio)) > 0.05:
        return (
            f"{s.activation} keeps q at σ_w² = {p.needed_sigma_w2:.3g}; {s.scheme} gives {p.sigma_w2:.3g}."
            f" Try {_scheme_that_keeps(s)}, or a norm layer (model.norm=batch)"
        )
    return "Theory expects this scale to hold; at this depth and width it does not. Try model.norm=batch"


def _scheme_that_keeps(s: Situation) -> str:
    if s.activation in ("relu", "leaky_relu"):
        return "init.scheme=kaiming_normal"
    return "init.gain=auto" if s.scheme_has_gain else "init.scheme=lecun_normal init.gain=auto"
