"""A claim is left undecided where its runs were tuned or looked at in a way that cannot decide it."""

from __future__ import annotations

import pytest

from initbench.analysis.metrics import METRICS
from initbench.analysis.run_summary import RunSummary
from initbench.analysis.tables import build_single_table
from initbench.config.study import Claim
from initbench.study.tuning import Tuning, TuningTrial, choose_best
from initbench.study.verdicts import ArmRecord, ClaimResult, ClaimVerdict, evaluate_claims
from tests.analysis.stored_runs import stored

PEAK, RISING, FLAT = (0.5, 0.9, 0.6), (0.5, 0.7, 0.9), (0.1, 0.1, 0.12)


def tuned(scores: tuple[float | None, ...]) -> Tuning:
    tried = [TuningTrial(10.0 ** (i - 3), score, 2, 0, 1.0) for i, score in enumerate(scores)]
    return choose_best("train.lr", METRICS["final_val_accuracy"], tried)


def runs(name: str, *steps: int) -> list[RunSummary]:
    """Runs that reach 90 % in the evaluation of that number, of six."""
    return [
        stored(name, seed, accuracies=[0.1 if i < step else 0.95 for i in range(6)])
        for seed, step in enumerate(steps)
    ]


def judge(holds_if: str, tunings: dict[str, Tuning | None]) -> ClaimResult:
    facts = {"fast": runs("fast", 1, 1, 1), "slow": runs("slow", 4, 4, 4)}
    arms = {name: ArmRecord(facts[name], tunings.get(name)) for name in facts}
    (one,) = evaluate_claims([Claim(says="so", holds_if=holds_if)], build_single_table(facts), arms=arms)
    return one


CLAIM = "fast.final_val_accuracy > 80 %"


@pytest.mark.parametrize(
    ("scores", "decided"), [(PEAK, True), (FLAT, True), (RISING, False), (RISING[::-1], False)]
)
def test_an_arm_at_the_edge_of_its_grid_decides_nothing(scores: tuple[float, ...], decided: bool) -> None:
    one = judge(CLAIM, {"fast": tuned(scores)})
    assert one.verdict is (ClaimVerdict.SUPPORTED if decided else ClaimVerdict.UNDECIDED)
    assert bool(one.reasons) is not decided
    if not decided:
        end = "high" if scores is RISING else "low"
        assert f"the {end} end of the 3 values tried (0.001 to 0.1)" in one.reasons[0]


def test_it_is_the_arms_that_a_claim_reads() -> None:
    assert judge(CLAIM, {"slow": tuned(RISING)}).verdict is ClaimVerdict.SUPPORTED
    assert judge("final_val_accuracy > 80 %", {"slow": tuned(RISING)}).verdict is ClaimVerdict.UNDECIDED
    both = judge(
        "fast.final_val_accuracy > slow.final_val_accuracy - 1", {n: tuned(RISING) for n in ("fast", "slow")}
    )
    assert [reason.split()[0] for reason in both.reasons] == ["fast", "slow"]


def test_what_is_measured_at_init_does_not_depend_on_the_learning_rate() -> None:
    assert not judge("fast.slope(q@init) < 100", {"fast": tuned(RISING)}).reasons
    assert judge("fast.slope(q@end) < 100", {"fast": tuned(RISING)}).reasons


def test_a_difference_finer_than_the_looks_at_it_decides_nothing() -> None:
    spacing = stored("fast", 0, accuracies=[0.1] * 6).evaluations[1][0] or 0
    facts = {"fast": runs("fast", 1, 1, 1, 1, 1, 1, 1, 1), "slow": runs("slow", 2, 2, 2, 2, 2, 2, 2, 1)}
    arms = {name: ArmRecord(facts[name], None) for name in facts}
    claim = Claim(says="so", holds_if="fast.steps_to(90 %) < slow.steps_to(90 %)")
    (one,) = evaluate_claims([claim], build_single_table(facts), arms=arms)
    assert one.verdict is ClaimVerdict.UNDECIDED
    assert f"evaluated every {spacing:g} updates" in one.reasons[0]
    assert not judge(claim.holds_if, {}).reasons, "three looks apart"
