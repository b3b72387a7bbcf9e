"""`initbench explain CODE` gives the threshold in units and the cure, from the constants that judge."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from initbench.cli.main import app
from initbench.linting.rule import LINT_RULES
from initbench.probing.diagnosis import CODES
from initbench.probing.initial_conditions import EXCESS
from initbench.probing.layer_factors import MAX_FLAT
from initbench.probing.log_slopes import VANISHING_RATIO
from initbench.probing.tensor_statistics import ALIKE

DOCS = Path(__file__).resolve().parents[2] / "docs"
KINDS = (("diagnostic", CODES), ("lint code", tuple(LINT_RULES)))
ALL = [(kind, entry) for kind, entries in KINDS for entry in entries]


def _explained(kind: str, name: str, *options: str) -> str:
    result = CliRunner().invoke(app, ["explain", name, "--kind", kind, *options])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize(("kind", "entry"), ALL, ids=[f"{kind}/{entry.name}" for kind, entry in ALL])
def test_the_threshold_and_the_cure_are_explained(kind: str, entry):
    printed = " ".join(_explained(kind, entry.name).split())
    (document,) = json.loads(_explained(kind, entry.name, "--json"))["entries"]
    page = (DOCS / ("diagnosis.md" if kind == "diagnostic" else "lint.md")).read_text(encoding="utf-8")
    for heading, key in (("threshold", "limit"), ("cure", "cure")):
        words = getattr(entry, key)
        assert len(words.split()) > 1
        assert f"{heading} {words}" in printed or f"{heading}: {words}" in printed
        assert document[key] == words
        assert words.replace("|", r"\|") in page
    assert re.search(r"\d|\bany\b|\ball\b|NaN", entry.limit), (
        "a threshold is a number, or says that any counts"
    )
    assert entry.cure.endswith(".")


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
def test_the_words_of_a_threshold_hold_its_number(code):
    spelled = {
        None: "",
        ALIKE: f"{ALIKE:g}",
        EXCESS: f"{EXCESS:g} nats",
        MAX_FLAT: f"{100 * MAX_FLAT:g} %",
    }
    if "vanishing" in code.name:
        assert f"ln({VANISHING_RATIO:g})/(L − 1) = −{-code.threshold:.2f}/(L − 1) nats" in code.limit
    elif "exploding" in code.name:
        assert f"ln({1 / VANISHING_RATIO:g})/(L − 1) = {code.threshold:.2f}/(L − 1) nats" in code.limit
    elif code.name == "dead":
        assert f"{100 * code.threshold:g} %" in code.limit
    else:
        assert spelled.get(code.threshold, f"{code.threshold:g}" if code.threshold else "") in code.limit
    assert code.cause.endswith(".")
