"""What `initbench lesson --json` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from initbench.render.gate_tables import gates_document
from initbench.render.lesson_tables import evidence
from initbench.study.run_lesson import ArmResult, LessonResult
from initbench.study.verdicts import ClaimResult

SCHEMA = "initbench.lesson/1"


def lessons_document(found: Sequence[LessonResult]) -> dict[str, Any]:
    """All lessons, with every claim's verdict."""
    return {"schema": SCHEMA, "lessons": [_lesson(one) for one in found]}


def _lesson(found: LessonResult) -> dict[str, Any]:
    config = found.lesson.config
    return {
        "name": config.name,
        "question": config.question,
        "source": config.source,
        "notes": config.notes,
        "digest": config.digest,
        "dataset": found.table.dataset,
        "arms": [_arm(arm) for arm in found.arms],
        "claims": [_claim(one, config.source) for one in found.claims],
    }


def _claim(found: ClaimResult, source: str) -> dict[str, Any]:
    (gate,) = gates_document([found.judgement])
    return {
        "claim": found.claim.says,
        "verdict": str(found.verdict),
        "evidence": "; ".join(evidence(found)),
        "undecided_because": list(found.reasons),
        "n": found.n,
        "condition": found.claim.holds_if,
        "source": found.claim.source or source,
        "cases": gate["cases"],
    }


def _arm(arm: ArmResult) -> dict[str, Any]:
    return {
        "name": arm.name,
        "experiment": arm.arm.config.name,
        "runs": [run.run_id for run in arm.trained.runs],
        "seconds": sum(run.seconds or 0.0 for run in arm.trained.facts),
        "tuning": None if arm.tuning is None else arm.tuning.as_data(),
    }
