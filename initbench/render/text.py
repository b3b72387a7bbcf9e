"""Formatting of numbers and histograms as short text. None becomes an en dash everywhere."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from initbench.analysis.stats.summary import Summary
from initbench.store.scores import RecordedScore

DASH = "–"
_COMMAND = re.compile(r"^(?=\s*::)\s*::|##\[")
"""Start of a GitHub workflow command: `::` at the start of a line, or `##[` anywhere in it."""
_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII_BLOCKS = "_.:-=+*#"


def format_number(value: float | None) -> str:
    """Return a number with two decimals (none from 100 on), or an exponent below 0.01 and from 1,000 on."""
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
    """Return a number that is usually below 1 with three decimals if it is from 0.001 to 10."""
    return f"{value:.3f}" if value is not None and 0.001 <= abs(value) < 10 else format_number(value)


def format_scientific(value: float | None) -> str:
    """Return a number with two digits and an exponent."""
    if value is None or not math.isfinite(value):
        return format_number(value)
    return "0" if value == 0 else f"{value:.1e}"


def format_percent(value: float | None, decimals: int = 0) -> str:
    """Return a fraction in percent, without the percent sign."""
    if value is None or not math.isfinite(value):
        return format_number(value)
    return f"{100 * value:.{decimals}f}"


def format_duration(seconds: float) -> str:
    """Return a duration such as `45 s`, `12 min` or `3.4 h`."""
    if seconds < 90.0:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60.0:.0f} min" if seconds < 5400.0 else f"{seconds / 3600.0:.1f} h"


def transition(first: str, last: str) -> str:
    """Return `first → last`, or one of them if they are the same text."""
    return first if first == last else f"{first} → {last}"


def transition_chain(values: Sequence[str]) -> str:
    """Return `a → b → c`, or one of them if all are the same text."""
    return values[0] if len(set(values)) == 1 else " → ".join(values)


def evenly_spaced(steps: Sequence[int], most: int) -> list[int]:
    """Return at most `most` of the steps, evenly spaced and including both ends."""
    if len(steps) <= most:
        return list(steps)
    return sorted({steps[round(i * (len(steps) - 1) / (most - 1))] for i in range(most)})


def percent_summary(summary: Summary) -> str:
    """Return mean ± standard deviation in percent."""
    if summary.mean is None or not math.isfinite(summary.mean):
        return _no_number(summary.mean)
    mean = format_percent(summary.mean, 1)
    return mean if summary.std is None else f"{mean} ±{format_percent(summary.std, 1)}"


def format_loss(value: float | None) -> str:
    """Return a loss with three decimals, or with an exponent from 1,000 on."""
    if value is None or not math.isfinite(value):
        return format_number(value)
    return f"{value:.3f}" if abs(value) < 1000 else format_scientific(value)


def score_words(score: RecordedScore, value: float | None) -> str:
    """Return a validation score with its name, as in `val 93.1 %` and `val R² 0.912`."""
    if score.form == "percent":
        return f"val {format_percent(value, 1)} %"
    return f"val {score.title} {format_loss(value)}"


def format_count(value: float | None) -> str:
    """Return a count, or a mean of counts, as a whole number."""
    return f"{value:,.0f}" if value is not None and math.isfinite(value) else format_number(value)


def loss_summary(summary: Summary) -> str:
    """Return mean ± standard deviation of a loss, with three decimals up to 1,000."""
    if summary.mean is None or not math.isfinite(summary.mean):
        return _no_number(summary.mean)
    form = format_loss if abs(summary.mean) < 1000 else format_scientific
    return form(summary.mean) + ("" if summary.std is None else f" ±{form(summary.std)}")


def _no_number(mean: float | None) -> str:
    """Return the text for a mean that is missing, or not finite because a run had diverged."""
    return DASH if mean is None else "diverged"


def count_summary(summary: Summary) -> str:
    """Return mean ± standard deviation of a count."""
    if summary.mean is None:
        return DASH
    return format_count(summary.mean) + ("" if summary.std is None else f" ±{format_count(summary.std)}")


def sparkline(counts: Sequence[float], cells: int = 8, *, ascii_only: bool = False) -> str:
    """Return a histogram as `cells` blocks or ASCII characters, the tallest full; dashes if it is empty."""
    blocks = _ASCII_BLOCKS if ascii_only else _BLOCKS
    merged = [0.0] * cells
    for i, count in enumerate(counts):
        merged[i * cells // len(counts)] += count
    top = max(merged, default=0.0)
    if top == 0:
        return ("-" if ascii_only else DASH) * cells
    return "".join(blocks[math.ceil(count / top * len(blocks)) - 1 if count else 0] for count in merged)


def value_bars(
    values: Sequence[float | None], *, is_log: bool = False, is_share: bool = False, ascii_only: bool = False
) -> str:
    """Return one block or ASCII character per value, the higher, the larger.

    The scale of shares ends at 1, any other scale at the largest value; a logarithmic scale starts at the
    smallest positive value. `0` stands for 0 and below, `!` for a value that is not finite, a space for None.
    """
    blocks = _ASCII_BLOCKS if ascii_only else _BLOCKS
    finite = [value for value in values if value is not None and 0.0 < value < math.inf]
    low, high = (min(finite), max(finite)) if finite else (1.0, 1.0)
    return "".join(_value_bar(value, low, 1.0 if is_share else high, is_log, blocks) for value in values)


def _value_bar(value: float | None, low: float, high: float, is_log: bool, blocks: str) -> str:
    if value is None:
        return " "
    if not math.isfinite(value):
        return "!"
    if value <= 0.0:
        return "0"
    if is_log:
        span = math.log(high) - math.log(low)
        share = 1.0 if span == 0.0 else (math.log(value) - math.log(low)) / span
    else:
        share = value / high
    return blocks[min(len(blocks) - 1, int(share * len(blocks)))]


def one_line(words: str) -> str:
    """Return text as one line: newlines, tabs and control characters become escape sequences.

    Workflow commands of GitHub are escaped too, so that text from a store cannot run them.
    """
    if not words.isprintable():
        words = "".join(sign if sign.isprintable() else _escaped(sign) for sign in words)
    return _COMMAND.sub(lambda match: f"\\x{ord(match[0][0]):02x}{match[0][1:]}", words)


def escape_lines(words: str) -> str:
    """Return text of several lines with `one_line` applied to each."""
    return "\n".join(map(one_line, words.split("\n")))


def _escaped(sign: str) -> str:
    return sign.encode("unicode_escape").decode("ascii")


def dataset_used(used: str, requested: str) -> str:
    """Return the name of a data set, with the requested one if another is used in its place."""
    return used if used == requested else f"{used} (in place of {requested})"


def layer_words(activation: str | None, norm: str | None) -> list[str]:
    """Return the terms for activation and norm of a config; None for what the code of the user decides."""
    norm_words = "norm as coded" if norm is None else "no norm" if norm == "none" else f"{norm} norm"
    return ["activation as coded" if activation is None else activation, norm_words]


def plural(count: int, noun: str) -> str:
    """Return a count with its noun, e.g. `1 seed` or `2,000 steps`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
