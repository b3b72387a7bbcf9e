"""What is known of a difference."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """left − right, or ln(left / right) where means are geometric."""

    difference: float | None
    low: float | None
    high: float | None
    """The interval; None where there is none."""
    n: tuple[int, ...]
    """Runs that were used, of each row; of pairs, their number."""
    method: str
    problem: str = ""
    """Why there is no interval."""
    missing: int = 0
    """Complete runs that have no value."""
    is_ratio: bool = False
    is_exact: bool = False
    """Whether it is a number of these very runs, and no estimate."""
