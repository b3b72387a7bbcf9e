"""The axes of `initbench probe --map`, as they are typed."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initbench.cli.probe_map_axes import (
    DEFAULT_POINTS,
    MAX_POINTS,
    depth_axis,
    linear_axis,
    parse_axes,
    split_axes,
)
from initbench.errors import UsageError

SIGMA, DEPTH = "sigma_w=0.5:3:26", "depth=1:200"


def test_the_axes_as_the_help_shows_them() -> None:
    axes = parse_axes([SIGMA, DEPTH])
    assert axes.sigma_w == tuple(pytest.approx(0.5 + 0.1 * i) for i in range(26))
    assert axes.depth[0] == 1 and axes.depth[-1] == 200 and len(axes.depth) == DEFAULT_POINTS["depth"]


@pytest.mark.parametrize("texts", [[DEPTH, SIGMA], [f"{SIGMA} {DEPTH}"], [f"{DEPTH},{SIGMA}"]])
def test_neither_order_nor_form_matters(texts: list[str]) -> None:
    assert parse_axes(texts) == parse_axes([SIGMA, DEPTH])


@given(
    first=st.integers(1, 500),
    span=st.integers(0, 500),
    count=st.integers(2, MAX_POINTS),
)
def test_depths_are_whole_rise_and_reach_both_ends(first: int, span: int, count: int) -> None:
    depths = depth_axis(f"{first}:{first + span}:{count}")
    assert depths[0] == first and depths[-1] == first + span
    assert len(depths) == min(count, span + 1)
    assert all(type(depth) is int for depth in depths)
    assert all(low < high for low, high in pairwise(depths))


def test_depths_are_spaced_by_ratios_where_there_is_room() -> None:
    assert depth_axis("10:1000:5") == pytest.approx((10, 31.6, 100, 316, 1000), rel=0.02)


@given(
    low=st.floats(1e-3, 1e3),
    span=st.floats(1e-2, 1e3),
    count=st.integers(2, MAX_POINTS),
)
def test_weight_scales_are_equally_far_apart(low: float, span: float, count: int) -> None:
    values = linear_axis(f"{low}:{low + span}:{count}")
    assert len(values) == count
    assert values[0] == pytest.approx(low) and values[-1] == low + span
    steps = [after - before for before, after in pairwise(values)]
    rounding = 1e-11 * (low + span)  # values have twelve digits
    assert steps == pytest.approx([span / (count - 1)] * (count - 1), rel=1e-9, abs=2 * rounding)


def test_one_value_is_an_axis_too() -> None:
    axes = parse_axes(["sigma_w=1.5:1.5", "depth=7:7:1"])
    assert axes.sigma_w == (1.5,) and axes.depth == (7,)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["sigma=0.5:3", DEPTH], ("'sigma'", "did you mean 'sigma_w'")),
        ([SIGMA, "dept=1:5"], ("'dept'", "did you mean 'depth'")),
        ([SIGMA, "width=1:5"], ("'width'",)),
        ([SIGMA], ("lacks the axis depth", "depth=1:200")),
        ([DEPTH], ("lacks the axis sigma_w",)),
        ([SIGMA, SIGMA, DEPTH], ("sigma_w is given twice",)),
        (["here", SIGMA, DEPTH], ("'here'", "two axes")),
        ([SIGMA, "depth=200:1"], ("depth=200:1", "200 is above 1")),
        ([SIGMA, "depth=0:5"], ("depth=0:5", "above 0")),
        (["sigma_w=-1:3", DEPTH], ("sigma_w=-1:3", "above 0")),
        (["sigma_w=0:3", DEPTH], ("sigma_w=0:3", "above 0")),
        (["sigma_w=nan:3", DEPTH], ("sigma_w", "'nan' is not a number")),
        (["sigma_w=1:inf", DEPTH], ("sigma_w", "'inf' is not a number")),
        (["sigma_w=one:3", DEPTH], ("sigma_w", "'one' is not a number")),
        ([SIGMA, "depth=1.5:9"], ("depth=1.5:9", "whole numbers")),
        ([SIGMA, "depth=9"], ("depth=9", "A:B")),
        ([SIGMA, "depth=1:9:3:1"], ("depth", "A:B")),
        ([SIGMA, "depth=1:200:101"], ("depth", "101", "too many", "100")),
        ([SIGMA, "depth=1:200:0"], ("depth", "'0'", "from 1")),
        ([SIGMA, "depth=1:200:2.5"], ("depth", "'2.5'")),
        ([SIGMA, "depth=1:200:1"], ("depth", "both ends")),
    ],
)
def test_what_is_wrong_is_said_with_the_name_of_the_axis(texts: list[str], words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as said:
        parse_axes(texts)
    for word in words:
        assert word in str(said.value)


def test_axes_are_told_from_files_and_overrides() -> None:
    arguments = ["a.yaml", "depth=1:5", "seeds=2", "sigma_w=", "model.width=8", "dept=1:9:3", "notes=1:2"]
    axes, rest = split_axes(arguments)
    assert axes == ["depth=1:5", "sigma_w=", "dept=1:9:3"]
    assert rest == ["a.yaml", "seeds=2", "model.width=8", "notes=1:2"]
