"""The page of untrained nets: verdict, histograms, depth profiles, and the table of the layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from initbench.diagnostics.survey import Survey
from initbench.render.probe_document import survey_rows
from initbench.render.probe_tables import (
    layers_table,
    loss_sentence,
    survey_heading,
    theory_sentences,
    unseen_sentences,
)
from initbench.render.text import DASH, one_line
from initbench.report.build import made_by
from initbench.report.page import HtmlTable, ReportPage, ReportSection
from initbench.report.probed_nets import ProbedNets, ProbedRow, probed_nets
from initbench.report.views.depth_profile import depth_figures
from initbench.report.views.histogram_grid import histogram_figures
from initbench.report.views.verdicts import folded_finding


def build_probe_page(surveys: Sequence[tuple[str, Survey]], *, command: str | None = None) -> ReportPage:
    """Return the page of surveys of untrained nets.

    Args:
        surveys: The surveys with the names of their rows.
        command: The command that makes the page again; None if Python code made it.
    """
    nets = probed_nets(surveys)
    figures = {
        ("histograms", "Histograms, layer by layer"): tuple(histogram_figures(nets)),
        ("depth", "The signal against depth"): tuple(depth_figures(nets)),
    }
    return ReportPage(
        title=f"Before training: {', '.join(nets.names[:3])}"
        + (f" and {len(nets.names) - 3} more rows" if len(nets.names) > 3 else ""),
        summary=[one_line(survey_heading(row.survey).plain) for row in nets.rows],
        rows=[(row.name, row.style) for row in nets.rows],
        steps=[0],
        layers=max(layer.index for row in nets.rows for layer in row.survey.layers),
        sections=[
            _verdict(nets),
            *(ReportSection(*names, figures=drawn) for names, drawn in figures.items() if drawn),
            *_layer_sections(nets),
        ],
        footer=made_by(command),
    )


def _verdict(nets: ProbedNets) -> ReportSection:
    paragraphs = [sentence for row in nets.rows for sentence in _sentences(row, is_only=len(nets.rows) == 1)]
    rows = [[row.name, _diagnosis(row.survey), *_numbers(row.survey)] for row in nets.rows]
    table = HtmlTable(["row", "diagnosis", "loss", "layers with q in the band", "nets"], rows)
    folds = [
        folded_finding(row.name, finding.code, finding.message)
        for row in nets.rows
        for finding, _ in row.survey.findings
    ]
    return ReportSection("verdict", "Verdict", paragraphs=paragraphs, folds=folds, tables=[table])


def _diagnosis(survey: Survey) -> str:
    """Return the findings with the number of nets that have them, or that the nets are healthy."""
    seeds = len(survey.seeds)
    codes = [
        f"{finding.code} ({count} of {seeds} nets)"
        for finding, count in survey.findings
        if finding.level == "warning"
    ]
    if codes:
        return ", ".join(codes)
    return "healthy" if survey.coverage.is_complete else one_line(survey.coverage.verdict)


def _numbers(survey: Survey) -> list[str]:
    judged = [row.inside for row in survey_rows(survey) if row.inside is not None]
    band = f"{sum(judged)} of {len(judged)}" if judged else DASH
    return [f"{survey.loss_value:.3f}", band, str(len(survey.seeds))]


def _sentences(row: ProbedRow, *, is_only: bool) -> Iterator[str]:
    """Yield sentences on the diagnosis, theory, the loss, and everything that was not measured."""
    survey, prefix = row.survey, "" if is_only else f"{row.name}: "
    word = str.capitalize if is_only else str
    if not any(finding.level == "warning" for finding, _ in survey.findings):
        yield f"{prefix}{word('diagnosis')}: {_diagnosis(survey)}."
    if survey.findings and not survey.coverage.is_complete:
        yield f"{prefix}{word('covers')} {survey.coverage.share}; {one_line(survey.coverage.gaps)}."
    if survey.note is not None:
        yield f"{prefix}{word('note')}: {one_line(survey.note)}"
    yield f"{prefix}{word('theory')}: {' '.join(map(one_line, theory_sentences(survey)))}"
    yield f"{prefix}{word('loss')}: {one_line(loss_sentence(survey))}"
    unseen = list(unseen_sentences(survey))
    if unseen:
        yield f"{prefix}{word('not traced')}: {' '.join(map(one_line, unseen))}"


def _layer_sections(nets: ProbedNets) -> Iterator[ReportSection]:
    """Yield a section for each row with the table of its layers."""
    for number, row in enumerate(nets.rows, 1):
        is_only = len(nets.rows) == 1
        grid = layers_table(row.survey, all_layers=True)
        yield ReportSection(
            "layers" if is_only else f"layers-{number}",
            "Layers" if is_only else f"Layers of {row.name}",
            tables=[
                HtmlTable(
                    grid.headings,
                    [cells for cells, _ in grid.rows],
                    ["Means ±std over nets; δ² ratio: E[δ²] over that of the next layer."],
                )
            ],
        )
