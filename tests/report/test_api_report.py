"""Pages and notebook output of the Python API."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import initbench
from initbench.errors import MissingExtraError, UsageError
from initbench.results import Runs
from initbench.store.store import Store
from tests.report.pages import Page
from tests.test_api import CONFIG

pytest.importorskip("vl_convert")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return initbench.run(CONFIG, runs_dir=tmp_path_factory.mktemp("api") / "runs")


def test_runs_have_a_page(trained: Runs, tmp_path: Path) -> None:
    trained.report(tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    assert page.rows == ["tiny"] and "depth-q" in page.figures
    assert "Made by" not in page.words
    trained.report(str(tmp_path / "again.html"))
    assert (tmp_path / "again.html").read_bytes() == (tmp_path / "page.html").read_bytes()


def test_a_comparison_of_two_stores_has_a_page(trained: Runs, tmp_path: Path) -> None:
    other = initbench.run({**CONFIG, "name": "other"}, runs_dir=tmp_path / "runs", init__scheme="zeros")
    initbench.compare(trained, other, baseline="tiny").report(tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    assert sorted(page.rows) == ["other", "tiny"]
    assert set(page.column("depth-q", "row")) == {"other", "tiny"}  # the layers of both stores are read
    assert '"baseline":"tiny"' in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_without_finished_runs_there_is_no_page(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to report"):
        Runs(Store(tmp_path / "runs"), ()).report(tmp_path / "page.html")


def test_a_path_that_cannot_be_written_is_refused(trained: Runs, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write"):
        trained.report(tmp_path / "missing" / "page.html")


def test_notebooks_show_the_curves_below_the_table(trained: Runs) -> None:
    for result in (trained, initbench.compare(trained)):
        html = result._repr_html_()
        assert html.index("</table>") < html.index("<svg")
        assert html.count("<svg") == 1 and "<script" not in html
        assert html == result._repr_html_()


def test_without_the_extra_there_is_the_table_alone(
    trained: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained._repr_html_()
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    html = trained._repr_html_()
    assert html and whole.startswith(html) and "<svg" not in html
    with pytest.raises(MissingExtraError, match=r"initbench\[report\]"):
        trained.report(tmp_path / "page.html")


def test_runs_without_evaluations_have_the_table_alone(tmp_path: Path) -> None:
    assert "<svg" not in Runs(Store(tmp_path), ())._repr_html_()
