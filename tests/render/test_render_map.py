"""Plot of `initbench probe --map`. `UPDATE_GOLDEN=1 pytest tests/render` rewrites the golden files."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console
from test_render_golden import assert_golden

from initbench.diagnostics.short_training import LearningThreshold
from initbench.diagnostics.trainability_map import MapAxes, MapPoint, TrainabilityMap
from initbench.render.map_plot import map_json, print_map
from initbench.theory.depth_scales import DepthScales, gradient_scale

SIGMA_W = tuple(round(0.5 + 0.1 * i, 1) for i in range(26))
DEPTH = (1, 2, 3, 5, 9, 16, 28, 50, 100, 200)


def invented(
    config: Any, *, trained: bool, theory: bool = True, sigma_w: tuple[float, ...] = SIGMA_W
) -> TrainabilityMap:
    """A map of relu as it should be, with one saturated, one dead and one unheard-of cell."""
    chi = [s**2 / 2 for s in sigma_w]
    scales = [DepthScales(0.0, c, c, gradient_scale(c), gradient_scale(c), gradient_scale(c)) for c in chi]
    points = [point(s, depth, trained=trained) for depth in DEPTH for s in sigma_w]
    odd = ("saturated", "dead", "unheard_of")
    for place, code in zip((5, len(sigma_w), 2 * len(sigma_w)), odd, strict=True):
        points[place] = MapPoint(points[place].sigma_w, points[place].depth, (code,), 1.0, 1.0)
    return TrainabilityMap(
        config=config,
        axes=MapAxes(sigma_w, DEPTH),
        dataset="digits",
        requested="mnist",
        samples=128,
        points=points,
        theory=scales if theory else None,
        reason=None if theory else "the layers are coupled",
        critical=math.sqrt(2.0) if theory else None,
        bar=LearningThreshold(steps=100, majority=0.1, samples=360) if trained else None,
    )


def point(sigma_w: float, depth: int, *, trained: bool) -> MapPoint:
    log_ratio = max(0, depth - 2) * math.log(sigma_w**2 / 2)
    codes: tuple[str, ...] = ()
    if abs(log_ratio) > math.log(1e4):
        codes = ("vanishing_forward", "vanishing_backward") if log_ratio < 0 else ("exploding_forward",)
    learned = abs(log_ratio) < 7.0
    ratio = math.exp(log_ratio) if depth > 1 else None
    found = MapPoint(sigma_w, depth, codes, ratio, ratio)
    return found if not trained else MapPoint(**{**vars(found), "learned": learned, "val_accuracy": 0.5})


def shown(found: TrainabilityMap, width: int, *, encoding: str = "utf-8") -> str:
    screen = Console(
        file=io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True),
        width=width,
        markup=False,
        emoji=False,
        highlight=False,
        color_system=None,
    )
    print_map(screen, found)
    return screen.file.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("trained", [False, True])
def test_the_picture_at_80_columns(make_config: Callable[..., Any], trained: bool) -> None:
    text = shown(invented(make_config(), trained=trained), 80)
    assert_golden("map_trained_80" if trained else "map_80", text)
    assert all(len(line) <= 80 for line in text.splitlines())


def test_the_picture_in_ascii(make_config: Callable[..., Any]) -> None:
    text = shown(invented(make_config(), trained=True), 80, encoding="ascii")
    assert_golden("map_trained_ascii_80", text)
    assert text.isascii()
    assert all(len(line) <= 80 for line in text.splitlines())


def test_a_narrow_terminal_gets_every_other_column(make_config: Callable[..., Any]) -> None:
    text = shown(invented(make_config(), trained=False), 40)
    rows = [line for line in text.splitlines() if line.startswith("    200  ")]
    assert len(rows) == 1 and len(rows[0]) == 9 + 2 * 12 + 1


def test_the_reach_of_theory_stands_between_two_depths(make_config: Callable[..., Any]) -> None:
    found = invented(make_config(), trained=False)
    lines = shown(found, 80).splitlines()
    rows = {
        int(line.split()[0]): line[9:] for line in lines if line.split()[:1] and line[:7].strip().isdigit()
    }
    assert found.theory is not None
    for column, scales in enumerate(found.theory):
        marked = [depth for depth in DEPTH if rows[depth].ljust(60)[2 * column + 1] == "_"]
        reached = [depth for depth in DEPTH if depth <= scales.reach]
        inside = reached and reached[-1] < DEPTH[-1]
        assert marked == (reached[-1:] if inside else [])


def test_without_theory_the_reason_is_said(make_config: Callable[..., Any]) -> None:
    text = shown(invented(make_config(), trained=False, theory=False), 80)
    assert "theory predicts no depth scale for this net: the layers are coupled" in text
    assert "_ " not in text and "critical" not in text


def test_colours_only_add_to_the_marks(make_config: Callable[..., Any]) -> None:
    found = invented(make_config(), trained=True)
    coloured = Console(
        file=io.StringIO(), width=80, force_terminal=True, color_system="standard", markup=False
    )
    print_map(coloured, found)
    text = coloured.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[" in text
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert [line.rstrip() for line in plain.splitlines()] == shown(found, 80).splitlines()


def test_the_document(make_config: Callable[..., Any]) -> None:
    document = json.loads(map_json(invented(make_config(), trained=True)))
    assert document["schema"] == "initbench.map/1"
    assert document["axes"] == {"sigma_w": list(SIGMA_W), "depth": list(DEPTH)}
    assert len(document["points"]) == len(SIGMA_W) * len(DEPTH)
    assert set(document["points"][0]) == {
        "sigma_w",
        "depth",
        "diagnosis",
        "signal_ratio",
        "gradient_ratio",
        "learned",
        "val_accuracy",
    }
    assert set(document["theory"][0]) == {
        "sigma_w",
        "q_star",
        "chi_1",
        "chi_parallel",
        "depth_scale_q",
        "depth_scale_c",
        "depth_scale_gradient",
    }
    assert document["train"]["steps"] == 100
    assert document["train"]["learned_above"] == pytest.approx(0.325)
    untrained = json.loads(map_json(invented(make_config(), trained=False)))
    assert untrained["train"] is None and untrained["points"][0]["learned"] is None
