"""What runs that start from other weights took, in a few lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from initbench.report import text
from initbench.store.store import StoredRun

_SHOWN = 4


def transfer_lines(runs: Sequence[StoredRun]) -> Text | None:
    """Where the weights come from, and what was taken, drawn anew and frozen; None where none were.

    The runs of an experiment take the same, each from its own source or all from one.
    """
    found = [run.record["transfer"] for run in runs if run.record.get("transfer")]
    if not found:
        return None
    first = found[0]
    sources = list(dict.fromkeys(str(one["source"]) for one in found))
    more = f" and {len(sources) - 1} more, by seed" if len(sources) > 1 else ""
    left = {name: why for name, why in first["skipped"].items() if name not in first["drawn"]}
    count = len(first["taken"]) + len(first["drawn"])
    lines = [
        f"from {sources[0]}{more}",
        f"{len(first['taken'])} of {text.plural(count, 'tensor')} taken",
        *_reasons("drawn anew", first["drawn"]),
        *_reasons("left behind", left),
        *([f"frozen: {_listed(first['frozen'])}"] if first["frozen"] else []),
    ]
    body = Text("Transfer  ", style="bold")
    body.append("\n          ".join(map(text.one_line, lines)), style="not bold")
    return body


def _reasons(label: str, why: Mapping[str, Any]) -> list[str]:
    """One line for each reason, with the tensors that share it."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in why.items():
        by_reason.setdefault(str(reason), []).append(name)
    return [f"{label}: {_listed(names)} ({reason})" for reason, names in by_reason.items()]


def _listed(names: Sequence[str]) -> str:
    if len(names) <= _SHOWN:
        return ", ".join(names)
    return f"{', '.join(names[: _SHOWN - 1])}, … {names[-1]} ({len(names)})"
