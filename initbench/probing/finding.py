"""What a diagnosis consists of: the kinds of finding that there are, and one finding of one net."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["warning", "note"]
Form = Literal["factor", "percent", "number"]


@dataclass(frozen=True)
class DiagnosisCode:
    """One kind of finding."""

    name: str
    meaning: str
    measure: str
    threshold: float | None
    limit: str
    """The threshold in words and units."""
    cause: str
    """What brings it about."""
    cure: str
    """What to do about it."""
    hides: tuple[str, ...] = ()
    """Codes that are mere consequences of this one at init, and are not reported beside it."""
    level: Level = "warning"
    """`note` where most nets that show it learn all the same: a net with notes alone is healthy."""


@dataclass(frozen=True)
class AdviceCheck:
    """What a trial of a change has shown: a quantity before and after, and that the finding is gone."""

    quantity: str
    value_before: float | None
    """None where the nets have no such number."""
    value_after: float | None
    form: Form = "number"

    @property
    def words(self) -> str:
        """Return `checked: q per layer ×0.52 → ×0.99`."""
        if self.value_before is None or self.value_after is None:
            return "checked: it is gone"
        before = _format_value(self.value_before, self.form)
        return f"checked: {self.quantity} {before} → {_format_value(self.value_after, self.form)}"

    def as_data(self) -> dict[str, Any]:
        """Return the proof as stored and printed with --json."""
        return {"quantity": self.quantity, "before": self.value_before, "after": self.value_after}


@dataclass(frozen=True)
class Advice:
    """A change that was applied to copies of the nets, in which the finding is gone."""

    text: str
    """The change as it is put to the user."""
    change: str
    """The change as key=value words."""
    checked: AdviceCheck

    @property
    def words(self) -> str:
        """Return the change with its proof in brackets."""
        return f"{self.text} ({self.checked.words})"

    def as_data(self) -> dict[str, Any]:
        """Return the advice as stored and printed with --json."""
        return {"text": self.text, "change": self.change, "checked": self.checked.as_data()}


@dataclass(frozen=True)
class Finding:
    """One diagnosis of one run."""

    code: str
    layer: int | None
    value: float
    threshold: float | None
    message: str
    when: str
    """The moment it was seen at: "init", or "end" for what training brought about."""
    level: Level = "warning"
    advice: tuple[Advice, ...] = ()
    """Changes that were seen to cure it; `message` ends with them."""

    def as_data(self) -> dict[str, Any]:
        """Return the finding as stored and printed with --json."""
        return {**vars(self), "advice": [advice.as_data() for advice in self.advice]}


def format_factor(factor: float) -> str:
    """Spell a factor as ×0.50, with an exponent where that would read as zero."""
    if math.isinf(factor) or factor >= 1e4 or factor < 1e-2:
        return f"×{factor:.0e}"
    return f"×{factor:.2f}"


def _format_value(value: float, form: Form) -> str:
    if form == "factor":
        return format_factor(value)
    return f"{100 * value:.0f} %" if form == "percent" else f"{value:.3g}"
