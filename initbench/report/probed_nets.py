"""The untrained nets of a report: surveys as rows, with the measurements and the theory of their layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from initbench.diagnostics.survey import Survey
from initbench.render.text import one_line, plural
from initbench.report.report_runs import Layer, LayerReport, Moment
from initbench.report.theme import RowStyle, row_style


@dataclass(frozen=True)
class ProbedRow:
    """Untrained nets of one kind."""

    name: str
    style: RowStyle
    survey: Survey = field(repr=False)

    @property
    def activation(self) -> str | None:
        """Name of the activation of an experiment's nets."""
        experiment = self.survey.experiment
        activation = None if experiment is None else experiment.config.model.declared_activation
        return None if activation is None else activation.entry.name

    @cached_property
    def moments(self) -> list[Moment]:
        """The only probe, that before training, with the theory of each layer."""
        theories = [prediction.as_data() for prediction in self.survey.expected.layers]
        nets: list[list[Layer]] = [
            [{**layer, "theory": theory} for layer, theory in zip(records, theories, strict=True)]
            for records in self.survey.records
        ]
        return [Moment(0, 1e18, nets)]


@dataclass(frozen=True)
class ProbedNets(LayerReport):
    """The rows of a page of untrained nets."""

    rows: list[ProbedRow]

    @property
    def provenance(self) -> str:
        """The batches and the numbers of nets and samples, for captions."""
        surveys = [row.survey for row in self.rows]
        batches = ", ".join(dict.fromkeys(one_line(survey.batch) for survey in surveys))
        nets = sorted({len(survey.seeds) for survey in surveys})
        count = plural(nets[0], "net") if len(nets) == 1 else f"{nets[0]} to {nets[-1]} nets"
        samples = sorted({survey.samples for survey in surveys})
        size = f", {plural(samples[0], 'sample')}" if len(samples) == 1 else ""
        return f"{batches}, {count} a row{size}, not trained"


def probed_nets(surveys: Sequence[tuple[str, Survey]]) -> ProbedNets:
    """Return the rows of surveys with names; names that would look the same are numbered."""
    rows: list[ProbedRow] = []
    for index, (name, survey) in enumerate(surveys):
        label = one_line(name)
        number = 1 + sum(row.name == label for row in rows)
        unique = label if number == 1 else f"{label} ({number})"
        rows.append(ProbedRow(unique, row_style(index), survey))
    return ProbedNets(rows)
