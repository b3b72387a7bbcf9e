"""Registries and the config values that name their entries."""

from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, TypeAdapter, ValidationError

from initbench.components.activation import ACTIVATIONS
from initbench.components.init_scheme import INITS
from initbench.components.norm import NORMS
from initbench.components.optimizer import OPTIMIZERS
from initbench.components.schedule import SCHEDULES
from initbench.data.dataset import DATASETS
from initbench.errors import NameTakenError, UnknownNameError
from initbench.models.network import FAMILIES
from initbench.registry import Options, Registry, RegistryEntry, nearest_name, unknown_name_message
from initbench.registry_choice import Choice, default_choice
from initbench.testing.check import EXAMPLE_OPTIONS
from tests.processes import run_forked

REGISTRIES = [INITS, ACTIVATIONS, NORMS, OPTIMIZERS, SCHEDULES, FAMILIES, DATASETS]
COMPONENTS = [INITS, ACTIVATIONS, NORMS, OPTIMIZERS, SCHEDULES, FAMILIES]
ENTRIES = [pytest.param(r, e, id=f"{r.kind}-{e.name}") for r in REGISTRIES for e in r]
COMPONENT_ENTRIES = [pytest.param(r, e, id=f"{r.kind}-{e.name}") for r in COMPONENTS for e in r]


ORDERED = {"initbench.components.init_scheme": "INITS", "initbench.components.norm": "NORMS"}


def tag_of(registry):
    return "family" if registry is FAMILIES else "name"


def adapter(registry):
    shorthand = registry not in (FAMILIES, DATASETS)
    return TypeAdapter(Annotated[Options, Choice(registry, tag_of(registry), shorthand=shorthand)])


@pytest.mark.parametrize(("registry", "entry"), COMPONENT_ENTRIES)
def test_every_component_states_its_formula(registry, entry):
    assert entry.formula


@pytest.mark.parametrize(("registry", "entry"), ENTRIES)
def test_a_value_survives_dump_and_load(registry, entry):
    values, tag = adapter(registry), tag_of(registry)
    required = EXAMPLE_OPTIONS.get(entry.name, {})
    value = values.validate_python({tag: entry.name, **required})
    dumped = values.dump_python(value)
    assert values.validate_python(dumped) == value
    if registry not in (FAMILIES, DATASETS):
        if not required:
            assert values.validate_python(entry.name) == value
        has_options = len(type(value).model_fields) > 1
        assert dumped == (
            {"name": entry.name, **value.model_dump(exclude={"name"})} if has_options else entry.name
        )


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda r: r.kind)
def test_json_schema_lists_every_name(registry):
    schema = adapter(registry).json_schema()
    if "anyOf" in schema:
        assert schema["anyOf"][0] == {"type": "string", "enum": registry.names()}
        schema = {**schema["anyOf"][1], "$defs": schema["$defs"]}
    assert set(schema["discriminator"]["mapping"]) == set(registry.names())


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda r: r.kind)
def test_a_misspelt_name_is_answered_with_the_nearest(registry):
    for name in registry.names():
        with pytest.raises(UnknownNameError, match="did you mean") as caught:
            registry[name + "x"]
        assert caught.value.exit_code == 2
        assert registry.kind in str(caught.value)


def test_options_given_as_a_mapping():
    value = adapter(NORMS).validate_python({"name": "group", "num_groups": 4})
    assert value.num_groups == 4
    assert adapter(NORMS).dump_python(value) == {
        "name": "group",
        "affine": True,
        "eps": 1e-5,
        "num_groups": 4,
    }
    assert adapter(ACTIVATIONS).dump_python(default_choice(ACTIVATIONS, "tanh")) == "tanh"


@pytest.mark.parametrize(
    ("value", "said", "at"),
    [
        ("grup", "did you mean 'group'?", ""),
        ({"name": "grup", "eps": 1e-3}, "did you mean 'group'?", "name"),
        ({"num_groups": 4}, "one of none, batch, layer, instance, group", "name"),
        (3, "norm", None),
        (None, "norm", None),
    ],
)
def test_a_wrong_choice_names_the_key_and_the_choices(value, said, at):
    with pytest.raises(ValidationError) as caught:
        adapter(NORMS).validate_python(value)
    (error,) = caught.value.errors()
    assert said in error["msg"]
    if at is not None:
        assert error["ctx"]["at"] == at


def test_options_of_another_entry_are_refused():
    with pytest.raises(ValidationError) as caught:
        adapter(NORMS).validate_python({"name": "layer", "num_groups": 4})
    assert caught.value.errors()[0]["type"] == "extra_forbidden"
    assert caught.value.errors()[0]["loc"][-1] == "num_groups"


def test_a_string_is_refused_where_there_is_no_shorthand():
    with pytest.raises(ValidationError, match="mapping with a family"):
        adapter(FAMILIES).validate_python("mlp")


def test_options_are_strict_and_frozen():
    with pytest.raises(ValidationError):
        adapter(NORMS).validate_python({"name": "group", "num_groups": "4"})
    with pytest.raises(ValidationError):
        adapter(NORMS).validate_python({"name": "batch", "eps": float("nan")})
    value = adapter(NORMS).validate_python("group")
    with pytest.raises(ValidationError):
        value.num_groups = 2


class Sized(Options):
    size: int = Field(default=1, gt=0)
    """A size."""


def test_a_name_taken_twice_raises():
    registry = Registry("thing")
    first = registry.add(RegistryEntry(name="a", summary="A.", source="-", options=Sized))
    with pytest.raises(NameTakenError, match=r"thing 'a' of .* is taken"):
        registry.add(RegistryEntry(name="a", summary="Another.", source="-"))
    assert list(registry) == [first]
    assert len(registry) == 1
    assert "a" in registry
    assert "b" not in registry


def test_a_new_entry_is_all_it_takes():
    registry = Registry("thing")
    for name in ("small", "large"):
        registry.add(RegistryEntry(name=name, summary="A.", source="-", options=Sized))
    assert adapter(registry).validate_python({"name": "large", "size": 3}).size == 3
    with pytest.raises(ValidationError):
        adapter(registry).validate_python({"name": "large", "size": 0})
    assert registry.names() == ["small", "large"]


def test_a_name_like_no_other_is_answered_with_all_of_them():
    assert (
        unknown_name_message("thing", "zzzz", ["alpha", "beta"])
        == "unknown thing 'zzzz'; choose from alpha, beta"
    )
    assert (
        unknown_name_message("thing", "ALPHA", ["alpha", "beta"])
        == "unknown thing 'ALPHA'; did you mean 'alpha'?"
    )


@given(st.text(max_size=20))
def test_nearest_answers_anything_with_a_choice_or_none(name):
    assert nearest_name(name, ["alpha", "beta"]) in ("alpha", "beta", None)


def test_the_order_of_entries_does_not_depend_on_what_was_imported_first(tmp_path):
    lines = ["import initbench.components.inits.sparse, initbench.components.norms.weight_norms"]
    lines += [f"from {m} import {r}; print({r}.names())" for m, r in ORDERED.items()]
    done = run_forked(tmp_path, source="\n".join(lines))
    assert done.stdout == "".join(f"{r.names()}\n" for r in (INITS, NORMS))
