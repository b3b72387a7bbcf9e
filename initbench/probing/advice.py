"""The sentences of a diagnosis: how much, why, and what to try."""

from __future__ import annotations

import math
from collections.abc import Sequence

from initbench.probing.remedy import (
    SAME_SCALE,
    Situation,
    batch_norm,
    bias_is_to_blame,
    fewer_layers,
    init_candidates,
    other_init,
)

_SUBJECT = {
    "vanishing_forward": "the signal falls",
    "exploding_forward": "q = E[h²] grows",
    "vanishing_backward": "E[δ²] falls on the way back",
    "exploding_backward": "E[δ²] grows on the way back",
}
_SUMS = "Every residual sum adds what its branch puts out to what goes past it. "
CHI_TOLERANCE = 1.5
DRIFT = math.log(2.0) / 5.0
"""A predicted q that takes more than five layers to halve or double is not spoken of."""


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


def slope_advice(
    code: str, slope: float, span: tuple[int, int], values: Sequence[float], situation: Situation
) -> str:
    """How much, why and what to try, for a log-slope over `values`, of the layers span[0] to span[1]."""
    p = situation.prediction
    theory = {"vanishing_forward": p.signal, "exploding_forward": p.forward}.get(code, p.backward)
    of = " for q" if code == "exploding_forward" else ""
    predicted = f", theory{of} {times(theory)}" if theory is not None else ""
    reached = values[-1] / values[0] if len(values) > 1 and values[0] > 0 else math.nan
    share = f"; layer {span[1]} has {reached:.0e} of layer {span[0]}'s" if math.isfinite(reached) else ""
    what = f"{_SUBJECT[code]} {times(_exp(slope))} a layer (layers {span[0]} to {span[1]}{predicted}){share}."
    by_sums = bool(situation.branches) and code.startswith("exploding")
    return f"{what} {_SUMS if by_sums else _cause(situation)}{_try(situation, code)}"


def _exp(slope: float) -> float:
    return math.exp(slope) if slope < 700 else math.inf


def _cause(s: Situation) -> str:
    """Why, where the declared scheme explains it: a sentence and a space, or nothing."""
    p, name = s.prediction, s.activation.label
    if s.norm != "none":
        return "The norm layer holds q, not this. "
    if bias_is_to_blame(s):
        return f"init.bias={s.bias:g} moves every pre-activation away from 0. "
    if p.sigma_w2 is None:
        return ""
    if not 1 / CHI_TOLERANCE < p.chi_at_needed < CHI_TOLERANCE:
        return (
            f"No scale of the weights helps at q = 1: where {name} keeps it (σ_w² = {p.needed_sigma_w2:.3g}),"
            f" χ₁ is {p.chi_at_needed:.2g}. "
        )
    if abs(math.log(p.sigma_w2 / p.needed_sigma_w2)) > SAME_SCALE:
        given = s.scheme if s.gain is None else f"{s.scheme} with init.gain={s.gain}"
        return f"{name} keeps q at σ_w² = {p.needed_sigma_w2:.3g}; {given} gives {p.sigma_w2:.3g}. "
    return "This scale keeps q = 1 on average, but not over this depth and width. "


def _try(s: Situation, code: str = "") -> str:
    """What was seen to cure the finding `code`, where that can be tried; else what is expected to hold."""
    if s.check is not None and code:
        return tried(s, code, [_depths(s)])
    ways = [way for way in (_init_way(other_init(s), s), _norm_way(s)) if way is not None]
    fewer = fewer_layers(s) if not ways else None
    if fewer is not None:
        ways = [f"fewer layers ({s.phrase(fewer)})"]
    return f"Try {', or '.join(ways)}" if ways else "Try fewer layers"


def tried(s: Situation, code: str, others: Sequence[Sequence[str]] = ()) -> str:
    """Name the first way of each kind that cures the finding, with the proof; `others` only without these."""
    norm = batch_norm(s) or ("" if s.norm != "none" else "model.norm=batch")
    kinds = (s.recurrent, s.branches, init_candidates(s), [norm] if norm else [])
    ways = [_proven(s, code, words) for words in kinds]
    for words in others:
        if not any(ways):
            ways.append(_proven(s, code, words))
    proven = [way for way in ways if way is not None]
    if proven:
        return f"Try {', or '.join(proven)}"
    return "No init or norm layer that was tried cures it"


def _proven(s: Situation, code: str, candidates: Sequence[str]) -> str | None:
    assert s.check is not None
    for words in candidates:
        proof = s.check(code, words)
        if proof is not None:
            return f"{s.phrase(words)} ({proof})"
    return None


def _depths(s: Situation) -> list[str]:
    fewer = fewer_layers(s)
    return [] if fewer is None else [fewer]


def _init_way(words: str | None, s: Situation) -> str | None:
    return None if words is None else s.phrase(words)


def _norm_way(s: Situation) -> str | None:
    words = batch_norm(s)
    if words is None:
        return None
    return f"{'another' if s.norm != 'none' else 'a'} norm layer ({s.phrase(words)})"


def drift_note(predicted_q: Sequence[float], situation: Situation) -> str | None:
    """What theory's q does over the hidden layers, and what keeps it; None where it stays, or settles.

    It is said of nets that keep within the limits of a finding and would leave them if they were deeper.
    """
    if len(predicted_q) < 2 or min(predicted_q) <= 0.0:
        return None
    slope = math.log(predicted_q[-1] / predicted_q[0]) / (len(predicted_q) - 1)
    last = math.log(predicted_q[-1] / predicted_q[-2])
    if abs(slope) < DRIFT or abs(last) < DRIFT or slope * last < 0.0:
        return None
    does = "falls" if slope < 0.0 else "grows"
    turns = f"{'halves' if slope < 0.0 else 'doubles'} every {math.log(2.0) / abs(slope):.1f} layers"
    auto = f"init.gain=auto ({situation.activation.preserving_gain:.4g})"
    ways = _try(situation).replace("init.gain=auto", auto)
    return f"q of wide nets {does} {times(math.exp(slope))} a layer in theory: it {turns}. {ways}"


def dead_advice(when: str, s: Situation) -> str:
    """Why units are zero on every sample, and what to try."""
    if when == "init" and s.check is not None:
        leaky = [] if s.activation.entry.name == "leaky_relu" else ["model.activation=leaky_relu"]
        return tried(s, "dead", [leaky])
    ways = [way for way in (_other_init_at(when, s), _norm_way(s)) if way is not None]
    if s.activation.entry.name != "leaky_relu" and not (when == "init" and s.bias):
        ways.append(s.phrase("model.activation=leaky_relu"))
    if when != "init":
        ways.append("a smaller train.lr")
    why = f"init.bias={s.bias:g} keeps them there. " if when == "init" and s.bias < 0 else ""
    return f"{why}Try {', or '.join(ways)}"


def saturated_advice(when: str, pre: dict[str, float], s: Situation) -> str:
    """Why a layer with the statistics `pre` is on the flat part, and what to try."""
    mean, std = pre["mean"], pre["std"]
    if when != "init":
        why = "Training has driven it there"
    elif abs(mean) > std and s.bias:
        why = f"init.bias={s.bias:g} moves it there (mean {mean:.3g}, standard deviation {std:.3g})"
    else:
        why = f"Its pre-activations are too large (standard deviation {std:.3g})"
    if when == "init" and s.check is not None:
        return f"{why}. {tried(s, 'saturated')}"
    ways = [way for way in (_other_init_at(when, s), _norm_way(s)) if way is not None]
    if when != "init":
        ways.append("a smaller train.lr")
    way = ", or ".join(ways) or "fewer layers"
    return f"{why}. Many such nets learn all the same. Try {way}, if this one does not"


def _other_init_at(when: str, s: Situation) -> str | None:
    """Another init, where it was the init that did it: one that does not do it to the next layer at once."""
    return None if when != "init" else _init_way(other_init(s) or other_init(s.alone()), s)
