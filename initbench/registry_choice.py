"""Config fields whose value names a registry entry and sets the entry's options.

`norm: group` and `norm: {name: group, num_groups: 8}` are both valid values. The entry defines
the valid options and their descriptions.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, Generic, Literal, TypeVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError, create_model
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails, InitErrorDetails, PydanticCustomError, core_schema

from initbench.registry import Registry, RegistryEntry, Section, missing_space_advice

E = TypeVar("E", bound=RegistryEntry)

_NONE = "none"
"""Name of the entry that disables the component, if the registry has one."""

ANY = "*"
"""Placeholder for an unknown entry in the location of an error."""


@cache
def options_model(entry: RegistryEntry, tag: str) -> type[Section]:
    """Return the pydantic class of `entry`'s options, whose field `tag` is fixed to the entry's name."""
    literal: Any = Literal[entry.name]
    fields: dict[str, Any] = {tag: (literal, entry.name)}
    # The fields inherit their docstrings; extracting them again would take half a second in total.
    model: type[Section] = create_model(
        f"{entry.options.__name__}_{entry.name}",
        __base__=entry.options,
        __doc__=entry.summary,
        __cls_kwargs__={"use_attribute_docstrings": False},
        **fields,
    )
    return model


def default_choice(registry: Registry[E], name: str, tag: str = "name") -> Any:
    """Return the entry called `name` with its default options as a config value."""
    return options_model(registry[name], tag)()


class Choice(Generic[E]):
    """Annotation of a field whose value is one entry of `registry`.

    `tag` is the key of the entry's name. With `shorthand`, a bare string is accepted for an entry
    with default options, and such an entry is serialized as a bare string.
    """

    def __init__(self, registry: Registry[E], tag: str = "name", *, shorthand: bool = True) -> None:
        self.registry = registry
        self.tag = tag
        self.shorthand = shorthand

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the tagged union of the entries' option classes."""
        models = {entry.name: options_model(entry, self.tag) for entry in self.registry}
        union = core_schema.tagged_union_schema(
            choices={name: handler.generate_schema(model) for name, model in models.items()},
            discriminator=self.tag,
        )
        return core_schema.no_info_before_validator_function(
            self._expand,
            union,
            serialization=core_schema.plain_serializer_function_ser_schema(self._dump),
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Return the JSON Schema of the union, plus the bare names if the shorthand is allowed."""
        json_schema = handler(schema)
        if not self.shorthand:
            return json_schema
        return {"anyOf": [{"type": "string", "enum": self.registry.names()}, json_schema]}

    def _expand(self, value: Any) -> Any:
        if isinstance(value, Section):
            return value
        if isinstance(value, str) and self.shorthand and not missing_space_advice(value):
            value = {self.tag: value}
        if not isinstance(value, dict):
            raise PydanticCustomError("choice_type", "{problem}", {"problem": self._shape_problem(value)})
        canonical = self.registry.canonical_name(value.get(self.tag))
        if canonical is not None:
            return {**value, self.tag: canonical}
        name_error = self._name_problem(value)
        errors = [InitErrorDetails(type=name_error, input=value), *self._errors_of_all_entries(value)]
        raise ValidationError.from_exception_data(self.registry.kind, errors)

    def _name_problem(self, value: dict[Any, Any]) -> PydanticCustomError:
        name, names = value.get(self.tag), self.registry.names()
        if name is None:
            advice = self._advice_by_keys(value) or f"one of {', '.join(names)}"
            problem = f"needs a {self.tag}: {advice}"
            return PydanticCustomError("choice_missing", "{problem}", {"problem": problem, "at": self.tag})
        problem = self.registry.unknown_message(str(name))
        at = self.tag if not self.shorthand or len(value) > 1 else ""
        context = {"problem": problem, "at": at, "name": str(name)}
        return PydanticCustomError("choice_unknown", "{problem}", context)

    def _advice_by_keys(self, value: dict[Any, Any]) -> str:
        """Return advice for a key that only an entry with an option of the command line has, or nothing."""
        keys = {entry: options_model(entry, self.tag).model_fields.keys() for entry in self.registry}
        for key in value:
            owners = [entry for entry in keys if key in keys[entry]]
            if len(owners) == 1 and owners[0].chosen_by:
                (owner,) = owners
                key_line = f"{self.tag}: {owner.name}"
                return f"{key} is a key of {owner.name}; pass {owner.chosen_by}, or write {key_line}"
        return ""

    def _errors_of_all_entries(self, value: dict[Any, Any]) -> Iterator[InitErrorDetails]:
        """Yield the errors of the other keys that are invalid for every entry."""
        errors_of_entries = [
            _errors_by_key(options_model(entry, self.tag), value, self.tag) for entry in self.registry
        ]
        for key in value:
            if all(key in errors for errors in errors_of_entries):
                specific_errors = (
                    errors[key] for errors in errors_of_entries if errors[key][0]["type"] != "extra_forbidden"
                )
                yield from (
                    _relocate_error(error) for error in next(specific_errors, errors_of_entries[0][key])
                )

    def _shape_problem(self, value: Any) -> str:
        either = f"a {self.registry.kind}'s name or " if self.shorthand else ""
        problem = f"must be {either}a mapping with a {self.tag}"
        if (value is None or value is False) and self.shorthand and _NONE in self.registry:
            return f"{problem}; write {_NONE}"
        if not isinstance(value, str):
            return problem
        if self.registry.canonical_name(value) is not None:
            return f"{problem}; write {{{self.tag}: {self.registry.canonical_name(value)}}}"
        spaced = missing_space_advice(value)
        return f"{problem}, not the text {value!r}: {spaced}" if spaced else problem

    def _dump(self, value: Section) -> Any:
        fields = value.model_dump()
        return fields[self.tag] if self.shorthand and len(fields) == 1 else fields


def _errors_by_key(model: type[Section], value: dict[Any, Any], tag: str) -> dict[Any, list[ErrorDetails]]:
    """Validate `value` against `model` and return the errors by key."""
    errors: dict[Any, list[ErrorDetails]] = {}
    try:
        model.model_validate({key: inner for key, inner in value.items() if key != tag})
    except ValidationError as error:
        for details in error.errors(include_url=False):
            errors.setdefault(details["loc"][0] if details["loc"] else None, []).append(details)
    return errors


def _relocate_error(error: ErrorDetails) -> InitErrorDetails:
    """Convert `error` to one that pydantic can raise again, located below the placeholder `ANY`."""
    kind, context = error["type"], error.get("ctx", {})
    error_type = PydanticCustomError(kind, "{problem}", context) if "problem" in context else kind
    return InitErrorDetails(type=error_type, loc=(ANY, *error["loc"]), input=error["input"], ctx=context)
