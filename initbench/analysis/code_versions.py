"""Readable names of code versions: the release and the days of its runs instead of a hash."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from initbench.analysis.run_summary import RunSummary

CODE = "with.code"
"""Key of a run with the hash of the code that computed it."""
_DAY, _MINUTE = len("2026-11-28"), len("2026-11-28T10:15")
_DIGITS = 6
"""Number of digits of a hash that are shown to distinguish two versions that ran within the same minute."""


def code_versions(runs: Iterable[RunSummary]) -> dict[str, str]:
    """Return a readable name for each hash of the code, such as `initbench 0.1.0, runs of 2026-11-28`.

    The time of day is added if two hashes have the same version and days, and a part of the hash if these are
    equal as well. The result is empty if a run records neither its version nor its time.
    """
    by_code: defaultdict[str, list[RunSummary]] = defaultdict(list)
    for run in runs:
        if run.keys.get(CODE) is not None:
            by_code[str(run.keys[CODE])].append(run)
    if not all(run.version or run.created for group in by_code.values() for run in group):
        return {}
    candidates: Sequence[Callable[[str, list[RunSummary]], str]] = (
        lambda _code, group: _describe_runs(group, _DAY),
        lambda _code, group: _describe_runs(group, _MINUTE),
        lambda code, group: f"{_describe_runs(group, _MINUTE)}, code {code[:_DIGITS]}",
    )
    for words in candidates:
        versions = {code: words(code, group) for code, group in by_code.items()}
        if len(set(versions.values())) == len(versions):
            return versions
    return {}


def _describe_runs(runs: Sequence[RunSummary], length: int) -> str:
    """Return the versions of runs and the times of the first and the last, cut to `length` characters."""
    versions = " and ".join(sorted({run.version for run in runs if run.version}))
    times = sorted(run.created[:length].replace("T", " ") for run in runs if run.created)
    span = " to ".join(dict.fromkeys((times[0], times[-1]))) if times else ""
    return ", ".join([*[f"initbench {versions}"] * bool(versions), *[f"runs of {span}"] * bool(span)])
