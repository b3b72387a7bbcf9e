"""Learning-rate schedules: warm-up, shape and end points, for every registered one."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initbench.components.schedule import SCHEDULES, learning_rate
from initbench.registry_choice import options_model

NAMES = SCHEDULES.names()
budgets = st.integers(1, 400).flatmap(lambda steps: st.tuples(st.just(steps), st.integers(0, steps + 3)))
bases = st.floats(1e-6, 10.0)


def schedule(name, **options):
    return options_model(SCHEDULES[name], "name")(**options)


def rates(chosen, base, steps, warmup):
    return [learning_rate(base, chosen, step=s, steps=steps, warmup_steps=warmup) for s in range(steps)]


@pytest.mark.parametrize("name", NAMES)
@given(budget=budgets, base=bases)
def test_warm_up_rises_in_equal_parts_to_the_rate(name, budget, base):
    steps, warmup = budget
    for step, rate in enumerate(rates(schedule(name), base, steps, warmup)[:warmup]):
        assert rate == pytest.approx(base * (step + 1) / warmup, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
@given(budget=budgets, base=bases)
def test_after_the_warm_up_it_starts_at_the_rate_and_never_rises(name, budget, base):
    steps, warmup = budget
    after = rates(schedule(name), base, steps, warmup)[warmup:]
    assert after[:1] == [pytest.approx(base, rel=1e-12)] * len(after[:1])
    assert all(b <= a * (1 + 1e-12) for a, b in pairwise(after))
    assert all(0 <= rate <= base * (1 + 1e-12) for rate in after)


@given(budget=budgets, base=bases)
def test_constant(budget, base):
    steps, warmup = budget
    assert all(rate == base for rate in rates(schedule("constant"), base, steps, warmup)[warmup:])


@given(budget=budgets, base=bases, final=st.floats(0.0, 1.0))
def test_cosine(budget, base, final):
    steps, warmup = budget
    for i, rate in enumerate(rates(schedule("cosine", final=final), base, steps, warmup)[warmup:]):
        angle = math.pi * i / (steps - warmup)
        expected = base * (final + (1 - final) * (1 + math.cos(angle)) / 2)
        assert rate == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_cosine_end_points():
    found = rates(schedule("cosine", final=0.1), 2.0, 1000, 0)
    assert found[0] == 2.0
    assert found[500] == pytest.approx(2.0 * 0.55)
    assert found[-1] == pytest.approx(0.2, abs=1e-4)
    assert found[-1] > 0.2


def test_step_drops_at_its_shares_of_what_the_warm_up_leaves():
    found = rates(schedule("step"), 1.0, 110, 10)[10:]
    assert found == pytest.approx([1.0] * 50 + [0.1] * 25 + [0.01] * 25)
    found = rates(schedule("step", at=[0.3], gamma=0.5), 1.0, 10, 0)
    assert found == [1.0] * 3 + [0.5] * 7


@given(
    budget=budgets,
    shares=st.lists(st.floats(0.01, 0.99), max_size=4, unique=True),
    gamma=st.floats(0.01, 1.0),
)
def test_step_counts_the_shares_passed(budget, shares, gamma):
    steps, warmup = budget
    for i, rate in enumerate(rates(schedule("step", at=shares, gamma=gamma), 1.0, steps, warmup)[warmup:]):
        passed = len([s for s in shares if i / (steps - warmup) >= s])
        assert rate == pytest.approx(gamma**passed, rel=1e-9)
