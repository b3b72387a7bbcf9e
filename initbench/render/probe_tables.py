"""Output of `initbench probe`: predictions and measurements of each layer, theory and diagnosis."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from rich.console import Console, Group, RenderableType
from rich.text import Text

from initbench.analysis.stats.summary import Summary
from initbench.diagnostics.survey import Survey, SurveyedExperiment
from initbench.render import probe_document as data
from initbench.render import text
from initbench.render.condition_notes import condition_words
from initbench.render.layer_means import layers_to_show
from initbench.render.terminal import print_uncut
from initbench.render.text_table import TextTable
from initbench.trace.weight_use import WeightUse

_STYLES = {"warning": "bold yellow", "note": "bold"}
_VERDICTS = {True: "yes", False: "NO", None: text.DASH}
UNSTABLE = 1e-6
"""Excess of χ∥ over 1 from which a fixed point is called unstable; smaller ones may be rounding."""
_MAX_UNSEEN = 8
_EXPENDABLE = (
    "mean theory",
    "mean",
    "zeros % theory",
    "zeros %",
    "saturated % theory",
    "saturated %",
    "std theory",
    "std",
)


def print_survey(console: Console, survey: Survey, *, all_layers: bool) -> None:
    """Print heading, layers, theory, untraced parameters and diagnosis.

    For modules of the user, the table also describes the layers, and the loss is printed.
    """
    is_module = survey.experiment is None
    grid = layers_table(survey, all_layers=all_layers)
    parts: list[RenderableType] = [
        survey_heading(survey),
        Text(""),
        grid.fitting(console.width, [name for name in _EXPENDABLE if name in grid.headings]).table(),
        Text(""),
        *theory_lines(survey),
        *([labelled_line("Loss", loss_sentence(survey))] if is_module else []),
        *_labelled_lines("Not traced", unseen_sentences(survey)),
        *diagnosis_lines(survey),
        Text(""),
    ]
    print_uncut(console, Group(*parts))


def _kind_of(use: WeightUse) -> str:
    """Return operation, norm, residual sum and activation of a layer, e.g. `conv2d, batch norm, relu`."""
    words = [use.operation]
    if use.norm is not None:
        words.append(f"{use.norm} norm")
    if use.joins_residual:
        words.append("+ shortcut")
    if use.activation is not None:
        words.append(use.activation.label)
    return ", ".join(words)


def survey_heading(survey: Survey) -> Text:
    """Return one line that says what was probed."""
    experiment = survey.experiment
    layers = text.plural(len(survey.layers), "weight layer")
    parts = [
        *([layers, survey.batch] if experiment is None else _experiment_parts(experiment)),
        text.plural(len(survey.seeds), "net"),
        f"{survey.samples} samples",
        "training mode, not trained" if experiment is None else "not trained",
    ]
    return Text.assemble((survey.name, "bold"), "   ", " · ".join(parts))


def _experiment_parts(experiment: SurveyedExperiment) -> list[str]:
    """Return model, activation, norm, init scheme, data set and conditions."""
    config = experiment.config
    model = config.model
    depth, width = (getattr(model, key, None) for key in ("depth", "width"))
    size = "" if depth is None or width is None else f" {depth} × {width}"
    gain = "" if config.init.gain is None else f" (gain {config.init.gain})"
    return [
        f"{model.family}{size}",
        *text.layer_words(*(None if part is None else part.name for part in (model.activation, model.norm))),
        config.init.scheme.name + gain,
        text.dataset_used(experiment.dataset, experiment.requested),
        *condition_words(config.data.model_dump()),
    ]


def layers_table(survey: Survey, *, all_layers: bool) -> TextTable:
    """Return a table of predictions and measurements with a row for each layer.

    For modules of the user, an extra column describes the layers.
    """
    kinds = list(map(_kind_of, survey.trace.uses)) if survey.experiment is None else []
    rows = data.survey_rows(survey)
    saturates = any(row.measured["saturated_fraction"].mean is not None for row in rows)
    share, kind = ("saturated_fraction", "saturated") if saturates else ("zero_fraction", "zeros")
    columns = ("layer", "q theory", "q measured", "in band", "mean theory", "mean", "std theory", "std")
    shares = (f"{kind} % theory", f"{kind} %")
    headings = (*columns, *shares, "δ² ratio theory", "δ² ratio")
    grid = TextTable((*headings, "operations") if kinds else headings, left_aligned=("layer", "operations"))
    for position in layers_to_show(len(rows), everything=all_layers):
        row = rows[position]
        style = "yellow" if row.inside is False else None
        cells = _cells(row, share, is_head=position + 1 == len(rows))
        if kinds:
            cells = [f"{row.layer.index} {row.layer.name}", *cells[1:], kinds[position]]
        grid.add(cells, style)
    if survey.expected.reason is not None:
        grid = grid.without([*(h for h in headings if h.endswith("theory")), "in band"])
    if survey.expected.no_band is not None:
        grid = grid.without(["in band"])
    return grid


def _cells(row: data.SurveyRow, share: str, *, is_head: bool) -> list[str]:
    percents = _predicted(row, share)
    return [
        f"{row.layer.index} head" if is_head else str(row.layer.index),
        *_both(row, "q"),
        _VERDICTS[row.inside],
        *_both(row, "act_mean"),
        *_both(row, "act_std"),
        text.format_percent(percents),
        text.format_percent(row.measured[share].mean),
        *_both(row, "grad_ratio"),
    ]


def _predicted(row: data.SurveyRow, name: str) -> float | None:
    """Return the prediction of a statistic; None if it was not measured."""
    prediction = row.predicted.get(name)
    return None if prediction is None or row.measured[name].mean is None else prediction.value


def _both(row: data.SurveyRow, name: str) -> list[str]:
    return [text.format_number(_predicted(row, name)), _spread(row.measured[name])]


def _spread(summary: Summary) -> str:
    mean = text.format_number(summary.mean)
    return (
        mean if summary.std is None or summary.mean is None else f"{mean} ±{text.format_number(summary.std)}"
    )


def theory_lines(survey: Survey) -> list[Text]:
    """Return the sentences on theory as lines of text, the first with a label."""
    return list(_labelled_lines("Theory", theory_sentences(survey)))


def theory_sentences(survey: Survey) -> list[str]:
    """Return fixed point, χ and depth scales, then the number of layers in their bands.

    Without a prediction, return the reason.
    """
    fixed, reason, no_band = survey.expected.fixed, survey.expected.reason, survey.expected.no_band
    if no_band is not None:
        return [f"values of infinitely wide nets; no band: {no_band}."]
    if fixed is None:
        return [f"no prediction: {reason or 'there is no hidden layer'}."]
    star = "every q is a fixed point" if fixed.q_star is None else f"q* = {text.format_number(fixed.q_star)}"
    if data.chi_at(survey) == "q_star" and fixed.chi_parallel > 1.0 + UNSTABLE:
        star += ", unstable"
    where = "at q*" if data.chi_at(survey) == "q_star" else f"at the last hidden layer ({fixed.chi_q:.2g})"
    scales = f"{_scale(fixed.depth_scale_q)} for q, {_scale(fixed.depth_scale_c)} for correlations"
    sentence = (
        f"{star}; {where}: χ₁ = {fixed.chi_1:.3f}, χ∥ = {fixed.chi_parallel:.3f}; depth scales: {scales}."
    )
    judged = [row.inside for row in data.survey_rows(survey)]
    inside, outside = judged.count(True), judged.count(False)
    verdict = f"{inside} of {text.plural(inside + outside, 'layer')} in the band"
    unknown = len(judged) - inside - outside
    if unknown:
        verdict += (
            f"; {unknown} not compared (a single net deviates by more than half of q, or q is not finite)"
        )
    return [sentence, f"{verdict}."]


def labelled_line(label: str, sentence: str) -> Text:
    """Return a bold label and a sentence; an empty label aligns the sentence with the one above."""
    return Text.assemble((f"{label:<11}", "bold"), sentence)


def _scale(layers: float) -> str:
    return "∞" if math.isinf(layers) else f"{layers:.1f} layers"


def loss_sentence(survey: Survey) -> str:
    """Return the loss before training, and for comparison its value if all classes are equally likely."""
    measured = f"{survey.loss_value:.3f} ({survey.loss})"
    chance = survey.loss_at_chance
    return (
        f"{measured}." if chance is None else f"{measured}; {chance:.3f} if all classes were equally likely."
    )


def unseen_sentences(survey: Survey) -> Iterator[str]:
    """Yield a sentence for each parameter that was not traced, with the reason, up to a limit."""
    unseen = survey.trace.unseen
    for name, why in list(unseen.items())[:_MAX_UNSEEN]:
        yield f"{name}: {why}."
    if len(unseen) > _MAX_UNSEEN:
        yield f"and {len(unseen) - _MAX_UNSEEN} more; --json lists all."


def _labelled_lines(label: str, sentences: Iterable[str]) -> Iterator[Text]:
    for position, sentence in enumerate(sentences):
        yield labelled_line("" if position else label, sentence)


def diagnosis_lines(survey: Survey) -> list[Text]:
    """Return each kind of finding once, or that the net is healthy if all of it was seen; then notes."""
    noted = [] if survey.note is None else [labelled_line("Note", survey.note)]
    coverage = survey.coverage
    if survey.findings and not coverage.is_complete:
        noted.append(labelled_line("Covers", f"{coverage.share}; {coverage.gaps}."))
    if not survey.findings:
        if not coverage.is_complete:
            return [labelled_line("Diagnosis", f"{coverage.verdict}."), *noted]
        return [Text.assemble(("Diagnosis  ", "bold"), ("healthy", "green")), *noted]
    lines: list[Text] = []
    seeds = len(survey.seeds)
    if all(finding.level == "note" for finding, _ in survey.findings):
        lines.append(Text.assemble(("Diagnosis  ", "bold"), ("healthy", "green"), ", with a note:"))
    for finding, count in survey.findings:
        share = "" if seeds == 1 else f" ({count} of {seeds} nets)"
        label = "" if lines else "Diagnosis"
        lines.append(
            Text.assemble(
                (f"{label:<11}", "bold"),
                (f"{finding.code}{share}: ", _STYLES[finding.level]),
                finding.message,
            )
        )
    return lines + noted
