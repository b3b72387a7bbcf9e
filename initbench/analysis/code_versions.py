"""Versions of the code in words: a release and the days of its runs say more than a hash."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from initbench.analysis.run_summary import RunSummary

CODE = "with.code"
"""The key of a run that holds the hash of the code it was computed with."""
_DAY, _MINUTE = len("2026-11-28"), len("2026-11-28T10:15")
_DIGITS = 6
"""As much of a hash as tells two apart that ran within the same minute."""


def code_versions(runs: Iterable[RunSummary]) -> dict[str, str]:
    """Return words for each hash of the code, such as `initbench 0.1.0, runs of 2026-11-28`.

    The hours are added where two hashes have the same version and days, and a part of the hash where
    these are alike as well. The result is empty if some run states neither its version nor its time.
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
    """The versions of runs and the time from the first to the last, cut to `length` characters."""
    versions = " and ".join(sorted({run.version for run in runs if run.version}))
    times = sorted(run.created[:length].replace("T", " ") for run in runs if run.created)
    span = " to ".join(dict.fromkeys((times[0], times[-1]))) if times else ""
    return ", ".join([*[f"initbench {versions}"] * bool(versions), *[f"runs of {span}"] * bool(span)])
