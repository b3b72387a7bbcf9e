"""Checks of every registry entry, and the choice of the checks of its kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any

from pydantic import TypeAdapter

from initbench.components.activation import Activation
from initbench.components.init_scheme import Scheme
from initbench.components.norm import Norm
from initbench.components.optimizer import Optimizer
from initbench.components.schedule import Schedule
from initbench.config.registry_fields import registry_fields
from initbench.data.dataset import Dataset
from initbench.linting.rule import LINT_RULES
from initbench.probing.diagnosis import DIAGNOSTICS
from initbench.probing.finding import DiagnosisCode
from initbench.registry import Options, Registry, RegistryEntry
from initbench.registry_choice import Choice, options_model
from initbench.runner.workers.base import EXECUTORS
from initbench.testing.activations import activation_checks
from initbench.testing.check import Check, SkippedError, check_of, default_options, expect_that
from initbench.testing.diagnostics import diagnostic_checks
from initbench.testing.inits import scheme_checks
from initbench.testing.norms import norm_checks
from initbench.testing.training import dataset_checks, optimizer_checks, schedule_checks

_BY_TYPE: dict[type[RegistryEntry], Callable[[Any], Iterator[Check]]] = {
    Scheme: scheme_checks,
    Activation: activation_checks,
    Norm: norm_checks,
    Optimizer: optimizer_checks,
    Schedule: schedule_checks,
    Dataset: dataset_checks,
    DiagnosisCode: diagnostic_checks,
}


def _no_checks(_entry: RegistryEntry) -> Iterator[Check]:
    return iter(())


def all_entries() -> Iterator[tuple[Registry[Any], RegistryEntry]]:
    """Yield every entry of every kind that plug-ins can add."""
    for registry in (*(kind.registry for kind in registry_fields()), EXECUTORS, LINT_RULES, DIAGNOSTICS):
        for entry in registry:
            yield registry, entry


def entry_checks(registry: Registry[Any], entry: RegistryEntry) -> Iterator[Check]:
    """Yield the checks of an entry: those of all entries, then those of its kind.

    The checks of the kind need defaults of all options; without them, one check is skipped instead.
    """
    yield check_of("name and summary", check_texts, entry)
    checks_of_kind = _BY_TYPE.get(type(entry), _no_checks)
    field = next((kind for kind in registry_fields() if kind.registry is registry), None)
    if field is None:
        yield from checks_of_kind(entry)
        return
    yield check_of("source", check_source, entry)
    yield check_of("options have descriptions", check_descriptions, entry, field.tag)
    yield check_of("survives a config file", check_round_trip, registry, entry, field.tag, field.shorthand)
    try:
        default_options(entry, field.tag)
    except SkippedError:
        return
    yield from checks_of_kind(entry)


def check_texts(entry: RegistryEntry) -> None:
    """Check the name and the summary, which the catalogue shows."""
    expect_that(
        entry.name == entry.name.lower() and entry.name.strip() != "", "the name is not in lower case"
    )
    is_sentence = entry.summary.endswith((".", ")")) and "\n" not in entry.summary
    expect_that(is_sentence, "the summary is not a sentence on one line")


def check_source(entry: RegistryEntry) -> None:
    """Check that the source is given."""
    expect_that(bool(entry.source), "the source is empty; write - if there is none")


def check_descriptions(entry: RegistryEntry, tag: str) -> None:
    """Check that each option has a docstring, which `explain` and the JSON Schema show."""
    properties = options_model(entry, tag).model_json_schema()["properties"]
    silent = [key for key, field in properties.items() if key != tag and not field.get("description")]
    expect_that(not silent, f"options without a description: {', '.join(silent)}")


def check_round_trip(registry: Registry[Any], entry: RegistryEntry, tag: str, shorthand: bool) -> None:
    """Check that a config with the default options reads back as the same value."""
    values = TypeAdapter[Any](Annotated[Options, Choice(registry, tag, shorthand=shorthand)])
    value = default_options(entry, tag)
    dumped = values.dump_python(value)
    expect_that(values.validate_python(dumped) == value, f"{dumped} reads back as another value")
