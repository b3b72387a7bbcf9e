"""Output of `initbench probe --model`: the layers of the user's network, and what could not be traced."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from initbench.diagnostics.module_survey import ModuleSurvey
from initbench.render import survey_rows as data
from initbench.render import text
from initbench.render.survey_tables import diagnosis_lines, labelled_line, layers_table, theory_lines
from initbench.render.terminal import print_uncut
from initbench.store import strict_json
from initbench.trace.weight_use import WeightUse

_MAX_UNSEEN = 8


def print_own(console: Console, survey: ModuleSurvey, *, all_layers: bool) -> None:
    """Print heading, layers, theory, loss, untraced parameters and diagnosis."""
    kinds = [kind_of(use) for use in survey.trace.uses]
    blank = Text("")
    parts: list[RenderableType] = [
        _heading(survey),
        blank,
        layers_table(survey, all_layers, console.width, kinds),
        blank,
        *theory_lines(survey),
        labelled_line("Loss", loss_sentence(survey)),
        *_labelled_lines("Not traced", _unseen(survey)),
        *diagnosis_lines(survey, survey.coverage),
        blank,
    ]
    print_uncut(console, Group(*parts))


def kind_of(use: WeightUse) -> str:
    """Return operation, norm, residual sum and activation of a layer, e.g. `conv2d, batch norm, relu`."""
    words = [use.operation]
    if use.norm is not None:
        words.append(f"{use.norm} norm")
    if use.joins_residual:
        words.append("+ shortcut")
    if use.activation is not None:
        words.append(use.activation.label)
    return ", ".join(words)


def _heading(survey: ModuleSurvey) -> Text:
    parts = [
        text.plural(len(survey.layers), "weight layer"),
        survey.batch,
        text.plural(len(survey.seeds), "net"),
        f"{survey.samples} samples",
        "training mode, not trained",
    ]
    return Text.assemble((survey.model, "bold"), "   ", " · ".join(parts))


def loss_sentence(survey: ModuleSurvey) -> str:
    """Return the loss before training, and for comparison its value if all classes are equally likely."""
    measured = f"{survey.loss_value:.3f} ({survey.loss})"
    chance = survey.loss_at_chance
    return (
        f"{measured}." if chance is None else f"{measured}; {chance:.3f} if all classes were equally likely."
    )


def _unseen(survey: ModuleSurvey) -> Iterator[str]:
    unseen = survey.trace.unseen
    for name, why in list(unseen.items())[:_MAX_UNSEEN]:
        yield f"{name}: {why}."
    if len(unseen) > _MAX_UNSEEN:
        yield f"and {len(unseen) - _MAX_UNSEEN} more; --json lists all."


def _labelled_lines(label: str, sentences: Iterable[str]) -> Iterator[Text]:
    for position, sentence in enumerate(sentences):
        yield labelled_line("" if position else label, sentence)


def own_document(survey: ModuleSurvey) -> dict[str, Any]:
    """Return the survey as plain data, in the schema initbench.probe/1."""
    return {
        "schema": data.SCHEMA,
        "model": survey.model,
        "batch": survey.batch,
        "input_shape": list(survey.input_shape),
        "output_shape": list(survey.output_shape),
        "loss": {
            "name": survey.loss,
            "value": survey.loss_value,
            "at_chance": survey.loss_at_chance,
        },
        **data.shared_keys(survey, [_use(use) for use in survey.trace.uses]),
        "unseen": [{"parameter": name, "why": why} for name, why in survey.trace.unseen.items()],
        "coverage": survey.coverage.as_data(),
        "additions": [
            {"after": addition.use.name, "branch": addition.branch, "beside": addition.skip}
            for addition in survey.trace.additions
        ],
    }


def own_json(survey: ModuleSurvey) -> str:
    """Return the document as strict JSON."""
    return strict_json.dumps(own_document(survey))


def _use(use: WeightUse) -> dict[str, Any]:
    return {
        "operation": use.operation,
        "norm": use.norm,
        "activation": None if use.activation is None else use.activation.label,
        "joins_shortcut": use.joins_residual,
        "use": use.use_count,
    }
