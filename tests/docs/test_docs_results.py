"""docs/results.md: a study rewrites its own section and nothing else."""

import pytest

from benchmarks import results_page


@pytest.fixture
def page(tmp_path, monkeypatch):
    path = tmp_path / "results.md"
    monkeypatch.setattr(results_page, "PAGE", path)
    return path


def test_a_section_is_added_and_then_rewritten_in_place(page):
    results_page.write_section("one", "first")
    results_page.write_section("two", "second\n")
    before = page.read_text()
    assert before.startswith("# Results\n")
    assert before.index("first") < before.index("second")
    results_page.write_section("one", r"again \1")
    assert page.read_text() == before.replace("first", r"again \1")
    results_page.write_section("one", "first")
    assert page.read_text() == before


def test_a_page_without_an_end_marker_is_not_written_over(page):
    page.write_text("# Results\n\n<!-- begin: one -->\n\nby hand\n")
    with pytest.raises(ValueError, match="missing"):
        results_page.write_section("one", "first")
    assert "by hand" in page.read_text()
