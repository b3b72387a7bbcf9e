"""Parts of a diagnosis: codes, findings, and advice with its evidence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from initbench.registry import RegistryEntry

Level = Literal["warning", "note"]
Form = Literal["factor", "percent", "number"]


@dataclass(frozen=True)
class Symptom:
    """A problem that a diagnostic of a plug-in sees in a probe."""

    layer: int | None
    """Index of the layer, from 1; None for the whole net."""
    value: float
    sentence: str


@dataclass(frozen=True, kw_only=True)
class DiagnosisCode(RegistryEntry):
    """One kind of finding."""

    source: str = "-"
    measure: str
    threshold: float | None
    limit: str
    """Threshold in words, with its unit."""
    cause: str
    """Typical causes."""
    cure: str
    """Typical cures."""
    hides: tuple[str, ...] = ()
    """Codes that are consequences of this one at init, and are not reported together with it."""
    level: Level = "warning"
    """`note` if most nets with the finding still learn; a net with notes only is healthy."""
    look: Callable[[Mapping[str, Any]], Iterable[Symptom]] | None = None
    """Function of a probe, with `when` ("init" or "end"), `step` and `layers`, that yields symptoms.

    `layers` are the records of the layers as a run stores them. The first symptom of a run becomes the
    finding. None for the built-in codes, which `diagnose` judges together.
    """


@dataclass(frozen=True)
class AdviceCheck:
    """Evidence that a change removes a finding: a quantity before and after the change."""

    quantity: str
    value_before: float | None
    """Value without the change; None if the quantity is not defined for the nets."""
    value_after: float | None
    form: Form = "number"

    @property
    def words(self) -> str:
        """Evidence as text, such as `checked: q per layer ×0.52 → ×0.99`."""
        if self.value_before is None or self.value_after is None:
            return "checked: it is gone"
        values = (_format_value(value, self.form) for value in (self.value_before, self.value_after))
        return f"checked: {self.quantity} {' → '.join(values)}"

    def as_data(self) -> dict[str, Any]:
        """Return the evidence as stored and printed with --json."""
        return {"quantity": self.quantity, "before": self.value_before, "after": self.value_after}


@dataclass(frozen=True)
class Advice:
    """A change that removed the finding when applied to copies of the nets."""

    text: str
    """Change as shown to the user."""
    change: str
    """Change as key=value words."""
    checked: AdviceCheck

    @property
    def words(self) -> str:
        """Change with its evidence in parentheses."""
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
    """Moment of the finding: "init", or "end" for one that training caused."""
    level: Level = "warning"
    advice: tuple[Advice, ...] = ()
    """Changes that cured the finding in a trial; `message` ends with them."""

    def as_data(self) -> dict[str, Any]:
        """Return the finding as stored and printed with --json."""
        return {**vars(self), "advice": [advice.as_data() for advice in self.advice]}


def format_factor(factor: float) -> str:
    """Format a factor as ×0.50, with an exponent if it is very small or large."""
    if math.isinf(factor) or factor >= 1e4 or factor < 1e-2:
        return f"×{factor:.0e}"
    return f"×{factor:.2f}"


def _format_value(value: float, form: Form) -> str:
    if form == "factor":
        return format_factor(value)
    return f"{100 * value:.0f} %" if form == "percent" else f"{value:.3g}"
