"""The report page as text: its static pictures, sizes of data, findings and configs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from initbench.analysis.load_runs import load_run_summaries
from initbench.render.compare.display_options import View
from initbench.report.build import build_page
from initbench.report.page import _packed
from initbench.report.report_runs import ReportRuns, compare_for_report
from initbench.store.store import Store
from tests.report.report_runs import report_of, stored_run, two_arms


@pytest.fixture(scope="module")
def runs(store_root: Path) -> ReportRuns:
    """The runs of the synthetic store."""
    store = Store(store_root)
    return compare_for_report(store, load_run_summaries(store, []), View())


def test_columns_are_packed_if_values_repeat() -> None:
    column = ["a"] * 5 + [None] * 5 + ["b"]
    assert _packed(column) == {"values": ["a", None, "b"], "counts": [5, 5, 1]}
    assert _packed([1, 2, 2, 3]) == [1, 2, 2, 3]
    assert _packed([]) == []


def test_page_data_are_valid_json_and_end_no_script(page_file: Path) -> None:
    text = page_file.read_text(encoding="utf-8")
    data = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)
    assert len(data) > 5
    assert any("alert(1)" in json.dumps(json.loads(each)) for each in data)
    assert "<script>alert" not in text
    assert len(text) < 2_000_000


def test_findings_are_short_and_divergences_come_first(runs: ReportRuns) -> None:
    page = build_page(runs)
    verdict = next(section for section in page.sections if section.key == "verdict")
    first = verdict.folds[0]
    assert "diverged: the loss was no longer finite after 2 updates; layer 3" in first.summary
    assert first.text.startswith("Check train.lr")


def test_every_row_links_to_its_config(runs: ReportRuns) -> None:
    page = build_page(runs)
    section = next(section for section in page.sections if section.key == "runs")
    configs = {fold.key: fold for fold in section.folds}
    (table,) = section.tables
    assert table.rows[0][2:] == ["diverged", "2", "3"]
    assert len(table.rows) == 6
    for cells, target in zip(table.rows, table.targets, strict=True):
        assert configs[target].summary == f"Config of {cells[0]}"


def test_a_row_without_finished_runs_is_on_the_page() -> None:
    report = report_of([*two_arms(), stored_run("late", status="running")])
    page = build_page(report)
    (verdict,) = next(section for section in page.sections if section.key == "verdict").tables
    assert next(cells for cells in verdict.rows if cells[0] == "late")[1] == "not finished"
    figures = {figure.key: figure for section in page.sections for figure in section.figures}
    assert set(figures["histograms-activation"].columns["row"]) == {"kaiming", "xavier"}
