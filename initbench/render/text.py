"""Numbers and histograms as short text. None reads as an en dash everywhere."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from initbench.analysis.stats.summary import Summary

DASH = "–"
_COMMAND = re.compile(r"^(?=\s*::)\s*::|##\[")
"""What GitHub takes for a command: at the beginning of a line, or anywhere in it."""
_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII_BLOCKS = "_.:-=+*#"


def format_number(value: float | None) -> str:
    """Two decimals where they say something, else one digit and an exponent."""
    if value is None:
        return DASH
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    if value == 0:
        return "0"
    if 0.01 <= abs(value) < 1000:
        return f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"
    return format_scientific(value)


def format_share(value: float | None) -> str:
    """Three decimals of a share that is mostly small, where they say something."""
    return f"{value:.3f}" if value is not None and 0.001 <= abs(value) < 10 else format_number(value)


def format_scientific(value: float | None) -> str:
    """Two digits and an exponent."""
    if value is None or not math.isfinite(value):
        return format_number(value)
    return "0" if value == 0 else f"{value:.1e}"


def format_percent(value: float | None, decimals: int = 0) -> str:
    """A fraction in percent, without the sign."""
    if value is None or not math.isfinite(value):
        return format_number(value)
    return f"{100 * value:.{decimals}f}"


def transition(first: str, last: str) -> str:
    """`first → last`, or one of them where they read the same."""
    return first if first == last else f"{first} → {last}"


def transition_chain(values: Sequence[str]) -> str:
    """`a → b → c`, or one of them where all read the same."""
    return values[0] if len(set(values)) == 1 else " → ".join(values)


def evenly_spaced(steps: Sequence[int], most: int) -> list[int]:
    """At most so many of the steps, evenly chosen, both ends among them."""
    if len(steps) <= most:
        return list(steps)
    return sorted({steps[round(i * (len(steps) - 1) / (most - 1))] for i in range(most)})


def percent_summary(summary: Summary) -> str:
    """Mean ± standard deviation in percent."""
    if summary.mean is None or not math.isfinite(summary.mean):
        return _no_number(summary.mean)
    mean = format_percent(summary.mean, 1)
    return mean if summary.std is None else f"{mean} ±{format_percent(summary.std, 1)}"


def format_loss(value: float | None) -> str:
    """A loss to three decimals while it is of a readable size."""
    if value is None or not math.isfinite(value):
        return format_number(value)
    return f"{value:.3f}" if abs(value) < 1000 else format_scientific(value)


def format_count(value: float | None) -> str:
    """A whole number, or the mean of some."""
    return f"{value:,.0f}" if value is not None and math.isfinite(value) else format_number(value)


def loss_summary(summary: Summary) -> str:
    """Mean ± standard deviation of a loss, to three decimals while it is of a readable size."""
    if summary.mean is None or not math.isfinite(summary.mean):
        return _no_number(summary.mean)
    form = format_loss if abs(summary.mean) < 1000 else format_scientific
    return form(summary.mean) + ("" if summary.std is None else f" ±{form(summary.std)}")


def _no_number(mean: float | None) -> str:
    """A loss or an accuracy that is no number has no spread either: the run had diverged by then."""
    return DASH if mean is None else "diverged"


def count_summary(summary: Summary) -> str:
    """Mean ± standard deviation of a count."""
    if summary.mean is None:
        return DASH
    return format_count(summary.mean) + ("" if summary.std is None else f" ±{format_count(summary.std)}")


def sparkline(counts: Sequence[float], cells: int = 8, *, ascii_only: bool = False) -> str:
    """Counts as `cells` blocks, or ASCII signs, the tallest one full; an empty histogram reads as dashes."""
    blocks = _ASCII_BLOCKS if ascii_only else _BLOCKS
    merged = [0.0] * cells
    for i, count in enumerate(counts):
        merged[i * cells // len(counts)] += count
    top = max(merged, default=0.0)
    if top == 0:
        return ("-" if ascii_only else DASH) * cells
    return "".join(blocks[math.ceil(count / top * len(blocks)) - 1 if count else 0] for count in merged)


def one_line(words: str) -> str:
    """Text with its newlines, tabs and control characters written as escapes, so that it is one line.

    It is no command for what reads the log of a CI job either.
    """
    if not words.isprintable():
        words = "".join(sign if sign.isprintable() else _escaped(sign) for sign in words)
    return _COMMAND.sub(lambda match: f"\\x{ord(match[0][0]):02x}{match[0][1:]}", words)


def escape_lines(words: str) -> str:
    """Text of several lines, each of them as `one_line` writes it."""
    return "\n".join(map(one_line, words.split("\n")))


def _escaped(sign: str) -> str:
    return sign.encode("unicode_escape").decode("ascii")


def plural(count: int, noun: str) -> str:
    """`1 seed`, `2,000 steps`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
