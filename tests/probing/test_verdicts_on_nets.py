"""Verdicts of probe and lint on sound nets and planted mistakes; torchvision's models are slow."""

from __future__ import annotations

import pytest

from benchmarks.verdict_nets import Subject, modern_nets, planted_mistakes
from benchmarks.verdicts_on_nets import judge, torchvision_nets


def by_name(subject: Subject) -> str:
    return subject.name


def check(subject: Subject) -> None:
    verdict = judge(subject)
    assert verdict.wrong == [], verdict.sentences


@pytest.mark.parametrize("subject", list(modern_nets()), ids=by_name)
def test_a_net_as_its_authors_start_it_gets_no_finding_and_no_warning(subject: Subject) -> None:
    check(subject)


@pytest.mark.parametrize("subject", list(planted_mistakes()), ids=by_name)
def test_a_planted_mistake_is_named_and_the_advice_cures(subject: Subject) -> None:
    check(subject)


def test_the_advice_of_lint_is_followed_as_it_is_printed() -> None:
    copied = next(subject for subject in planted_mistakes() if subject.name == "deep-copied layers")
    followed = [(advice.code, advice.call, advice.outcome) for advice in judge(copied).advice]
    assert followed == [("identical_layers", 'apply_init(module, "kaiming_normal")', "cured")]


@pytest.mark.slow
@pytest.mark.parametrize("subject", list(torchvision_nets()), ids=by_name)
def test_a_model_of_torchvision_gets_no_finding_and_no_warning(subject: Subject) -> None:
    if subject.millions > 100:
        pytest.skip("takes gigabytes: `python -m benchmarks.verdicts_on_nets` has it")
    check(subject)
