"""What a diagnosis consists of: the kinds of finding that there are, and one finding of one net."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["warning", "note"]


@dataclass(frozen=True)
class Code:
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

    def as_data(self) -> dict[str, Any]:
        """The finding as stored and printed with --json."""
        return dict(vars(self))
