"""Data conditions in words, for the headings of reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from initbench.render import text


def condition_words(data: Mapping[str, Any]) -> list[str]:
    """Return the settings of a config's data section that differ from the default, in words."""
    words = []
    if data.get("whiten", "none") != "none":
        words.append(f"{data['whiten']}-whitened")
    order = str(data.get("order", "shuffled"))
    if order == "sorted":
        words.append("sorted by class")
    elif order != "shuffled":
        words.append(f"sorted {order}")
    if data.get("labelled"):
        words.append(text.plural(data["labelled"], "label"))
    if data.get("label_noise"):
        words.append(f"{100 * data['label_noise']:.3g} % wrong labels")
    shift = _shift(data.get("shift") or {})
    return [*words, f"evaluated under {shift}"] if shift else words


def _shift(shift: Mapping[str, Any]) -> str:
    words = []
    if shift.get("translate"):
        translation = shift["translate"]
        down, right = [translation] * 2 if isinstance(translation, int) else translation
        words += [f"{down:+} px down"] * bool(down) + [f"{right:+} px right"] * bool(right)
    if shift.get("brightness"):
        words.append(f"brightness {shift['brightness']:+g}")
    if shift.get("noise"):
        words.append(f"noise {shift['noise']:g}")
    return ", ".join(words)
