"""Resolution of patterns on the command line to stored runs."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from initbench.errors import UnknownNameError, UsageError

_MAX_LISTED = 5


def matching_run_ids(pattern: str, experiments: Mapping[str, str], root: Path) -> list[str]:
    """Return the ids of the runs that match `pattern`.

    Args:
        pattern: A run id, an experiment, a glob, or a unique beginning of a run id; tried in this order.
        experiments: Run id → name of the experiment.
        root: Directory of the runs, searched for misplaced runs if nothing matches.

    Raises:
        UsageError: If several run ids begin with `pattern`.
        UnknownNameError: If nothing matches.
    """
    if pattern in experiments:
        return [pattern]
    for accepts in (_is_named, _is_globbed):
        if run_ids := [run_id for run_id, name in experiments.items() if accepts(pattern, run_id, name)]:
            return run_ids
    begun = [run_id for run_id in experiments if pattern and run_id.startswith(pattern)]
    if len(begun) > 1:
        more = ", …" if len(begun) > _MAX_LISTED else ""
        listed = ", ".join(begun[:_MAX_LISTED])
        raise UsageError(f"{pattern!r} is ambiguous; {len(begun)} run ids begin with it: {listed}{more}")
    if not begun:
        raise UnknownNameError(_no_match_message(pattern, experiments, root))
    return begun


def _is_named(pattern: str, _run_id: str, experiment: str) -> bool:
    return pattern == experiment


def _is_globbed(pattern: str, run_id: str, experiment: str) -> bool:
    return fnmatchcase(run_id, pattern) or fnmatchcase(experiment, pattern)


def _no_match_message(pattern: str, experiments: Mapping[str, str], root: Path) -> str:
    from initbench.registry import nearest_name  # imports pydantic, which only this message needs
    from initbench.store.misplaced import describe_misplaced, find_misplaced

    if misplaced := [run for run in find_misplaced(root) if run.matches([pattern])]:
        return f"no stored run matches {pattern!r}; {describe_misplaced(misplaced)[0]}"
    if not experiments:
        return f"no stored run matches {pattern!r}: {root} contains no runs"
    guess = nearest_name(pattern, [*dict.fromkeys(experiments.values()), *experiments])
    hint = f"did you mean {guess!r}?" if guess else "`initbench ls` lists the stored runs"
    return f"no stored run matches {pattern!r}; {hint}"
