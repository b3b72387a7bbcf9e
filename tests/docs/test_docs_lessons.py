"""docs/lessons.md states the claims and configs of the lessons; its numbers come from stored runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from initbench.study.load import bundled_lessons, load_lessons

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "lessons.md"
LESSON = """\
kind: lesson
name: tiny
question: What?
base:
  data: {name: digits}
  model: {family: mlp, depth: 3, width: 8}
  train: {steps: 2, batch_size: 16}
arms: {one: {}, other: {init.scheme: zeros}}
claims:
  - {says: This | that, source: X 1999, holds_if: "one.test_accuracy > 2 and one.test_accuracy < 1"}
  - {says: Undecided, holds_if: one.test_accuracy > other.test_accuracy}
"""


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    for name in [name for name in sys.modules if name == "docs" or name.startswith("docs.")]:
        monkeypatch.delitem(sys.modules, name)
    from docs.generators import lessons_page

    return lessons_page


@pytest.mark.skipif(not PAGE.exists(), reason="the page is written once all lessons have been run")
def test_the_page_is_that_of_the_lessons(page: Any):
    assert page.stale(PAGE.read_text(encoding="utf-8"), load_lessons(list(bundled_lessons()))) == []


def test_claims_and_configs_are_checked_and_numbers_are_not(
    page: Any, initbench: Callable[..., Any], tmp_path: Path
):
    import torch

    from initbench.data.dataset import DataSource
    from initbench.runner.plan import RunContext
    from initbench.store.store import Store
    from initbench.study.run_study import load_stored_study

    file = tmp_path / "tiny.yaml"
    file.write_text(LESSON, encoding="utf-8")
    assert initbench("lesson", file, "--runs-dir", tmp_path / "runs", "--quiet").code == 0
    source = DataSource(root=tmp_path, offline=True, notify=print)
    context = RunContext(store=Store(tmp_path / "runs"), source=source, device=torch.device("cpu"))
    (lesson,) = load_lessons([str(file)])
    result = load_stored_study(lesson, context)
    written = page.render([result])
    assert "2 runs on digits" in written and "## 1. What?" in written and "## 2." not in written
    assert "| 1 | `tiny` | What? | 2 | 0 | 0 | 2 |" in written and "\n2 claims: 0 supported," in written
    assert written.count("| undecided | ") == 2
    assert page.stale(written, [lesson]) == []
    assert page.stale(written.replace("2 runs on", "7 runs on"), [lesson]) == []
    assert page.stale(written.replace("| Undecided:", "| Decided:"), [lesson]) == [
        "tiny: its claims are others"
    ]
    assert page.stale(written, []) == ["tiny: is no lesson any more"]
    other = (
        written.replace("tiny", "other").replace("| undecided |", "| supported |").replace("What?", "Why?")
    )
    both = page.render([result], current=other, order=["other", "tiny"])
    assert both.index("## 1. Why?") < both.index("## 2. What?"), "the section of the other lesson is kept"
    assert (
        "| 1 | `other` | Why? | 2 | 2 | 0 | 0 |" in both and "| 2 | `tiny` | What? | 2 | 0 | 0 | 2 |" in both
    )
    assert "\n4 claims: 2 supported, 0 contradicted, 2 undecided. Machine: " in both
    assert page.render([result], current=both, order=["other", "tiny"]) == both
    file.write_text(LESSON.replace("steps: 2", "steps: 3"), encoding="utf-8")
    (changed,) = load_lessons([str(file)])
    (message,) = page.stale(written, [changed])
    assert message == f"tiny: its runs are of config {lesson.config.digest}"
