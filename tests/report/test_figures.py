"""Properties that all figures of a report have in common."""

from __future__ import annotations

import pytest

from initbench.cli.completion import complete_figures
from initbench.report.build import FIGURE_SECTIONS, FigureBuilder, FigureSection
from initbench.report.figure import start_engine
from initbench.report.panels import panel_notes
from initbench.report.views.batch_norm import batch_norm_figures
from initbench.report.views.covariate_shift import covariate_shift_figures
from initbench.report.views.pretraining import pretraining_figures
from initbench.report.views.sweep_map import sweep_figures
from tests.report.report_runs import (
    normed_runs,
    pretrained_runs,
    report_of,
    shifted_runs,
    swept_runs,
    two_arms,
)

pytest.importorskip("vl_convert")
SHOWN = {
    sweep_figures: swept_runs,
    batch_norm_figures: normed_runs,
    covariate_shift_figures: shifted_runs,
    pretraining_figures: pretrained_runs,
}
"""Runs that some figures need."""
BUILDERS = [pytest.param(section.build, id=section.key) for section in FIGURE_SECTIONS]


@pytest.mark.parametrize("build", BUILDERS)
def test_a_figure_compiles_without_warnings(build: FigureBuilder, capfd: pytest.CaptureFixture[str]) -> None:
    figures = list(build(report_of(SHOWN.get(build, two_arms)())))
    assert figures
    for figure in figures:
        for legend in (True, False):
            spec = figure.complete_spec(legend=legend)
            assert "<svg" in start_engine().vegalite_to_svg(spec, show_warnings=True)
            assert capfd.readouterr().err == "", figure.key


@pytest.mark.parametrize("build", BUILDERS)
def test_a_figure_says_what_it_shows_of_which_runs(build: FigureBuilder) -> None:
    report = report_of(SHOWN.get(build, two_arms)())
    for figure in build(report):
        assert figure.takeaway.endswith("."), figure.key
        assert figure.caption.endswith("."), figure.key
        assert report.provenance in figure.caption, figure.key
        assert len({len(column) for column in figure.columns.values()}) == 1, figure.key


@pytest.mark.parametrize("section", FIGURE_SECTIONS, ids=lambda section: section.key)
def test_a_section_names_the_figures_that_it_can_have(section: FigureSection) -> None:
    figures = list(section.build(report_of(SHOWN.get(section.build, two_arms)())))
    assert {figure.key for figure in figures} <= set(section.keys)
    assert set(complete_figures("")) >= set(section.keys)
    assert complete_figures(section.keys[0]) == [section.keys[0]]


def test_long_names_above_panels_are_also_listed() -> None:
    short, long = ["relu_kaiming", "relu_xavier"], ["relu_kaiming", "relu with a name that is cut off"]
    assert panel_notes(short) == []
    assert panel_notes(long) == [f"From left to right: {', '.join(long)}."]
    assert panel_notes(long[1:]) == []
    many = [f"{long[1]} {number}" for number in range(8)]
    listed, names = panel_notes(many)
    assert listed.startswith("Of 8 rows, the first 6")
    assert names == f"From left to right: {', '.join(many[:6])}."
