"""Data conditions in the words of a heading."""

from __future__ import annotations

import pytest

from initbench.data.dataset import DataOptions
from initbench.render.condition_notes import condition_words


def words(**data: object) -> str:
    return " · ".join(condition_words(DataOptions(**data).model_dump()))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, ""),
        ({"shift": {}}, ""),
        ({"whiten": "zca"}, "zca-whitened"),
        ({"order": "sorted"}, "sorted by class"),
        ({"order": "blocks(8)"}, "sorted blocks(8)"),
        ({"labelled": 100, "label_noise": 0.25}, "100 labels · 25 % wrong labels"),
        ({"shift": {"translate": 2}}, "evaluated under +2 px down, +2 px right"),
        (
            {"shift": {"translate": [0, -3], "brightness": 0.3, "noise": 0.1}},
            "evaluated under -3 px right, brightness +0.3, noise 0.1",
        ),
    ],
)
def test_only_what_is_not_as_usual_is_said(data, said):
    assert words(**data) == said


def test_a_run_from_before_there_were_conditions():
    assert condition_words({"name": "digits"}) == []
