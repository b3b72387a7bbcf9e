"""JSON document of `initbench lesson --json`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from initbench.render.gate_tables import gates_document
from initbench.render.lesson_tables import claim_evidence
from initbench.study.run_study import LessonResult, VariantResult
from initbench.study.verdicts import ClaimResult

SCHEMA = "initbench.lesson/1"


def lessons_document(results: Sequence[LessonResult]) -> dict[str, Any]:
    """Return all lessons with the verdict on each claim."""
    return {"schema": SCHEMA, "lessons": [_lesson(result) for result in results]}


def _lesson(result: LessonResult) -> dict[str, Any]:
    config = result.study.config
    return {
        "name": config.name,
        "question": config.question,
        "source": config.source,
        "notes": config.notes,
        "digest": config.digest,
        "dataset": result.table.dataset,
        "arms": [_arm(result, arm) for arm in result.variants],
        "claims": [_claim(claim, config.source) for claim in result.claims],
    }


def _claim(result: ClaimResult, source: str) -> dict[str, Any]:
    (gate,) = gates_document([result.judgement])
    return {
        "claim": result.claim.says,
        "verdict": str(result.verdict),
        "evidence": "; ".join(claim_evidence(result)),
        "undecided_because": list(result.reasons),
        "n": result.n,
        "condition": result.claim.holds_if,
        "source": result.claim.source or source,
        "cases": gate["cases"],
    }


def _arm(result: LessonResult, arm: VariantResult) -> dict[str, Any]:
    runs = result.runs(arm)
    return {
        "name": arm.label,
        "experiment": arm.variant.config.name,
        "runs": [run.run_id for run in runs],
        "seconds": sum(run.seconds or 0.0 for run in runs),
        "tuning": None if arm.tuning is None else arm.tuning.as_data(),
    }
