"""Hash the code that computes the numbers of a run, by its parsed meaning.

The fingerprint covers only the top-level statements that the training of one config can reach. Changes of
docstrings, comments, annotations or catalogue texts keep it. Moved files and changes of schemes that the
config does not name keep it, too. A changed constant in an activation changes the fingerprint of the configs
that use this activation; a changed training step changes all fingerprints.

A statement reaches the statements that define the names it loads. Registry entries are reached by name: the
config names them, or their name appears as a string in a statement that uses the registry.

A net of the user (model.family=custom) adds the function that builds it, what this function reaches in its
project and in initbench, and the tracer.

The code of a plug-in counts like the numerical code of initbench, for the configs that name its entries: the
statement that registers an entry, and what that reaches in the project of the plug-in and in initbench. Any
string in it that is the name of an entry reaches this entry. Other libraries that it imports do not count.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

from pydantic import BaseModel

from initbench import plugins, trace
from initbench.config.registry_fields import leaf_types, registry_fields
from initbench.config.schema import ExperimentConfig
from initbench.data.dataset import DATASETS
from initbench.errors import UsageError
from initbench.models.families.custom import CustomOptions, require_factory
from initbench.plugins import file_of, is_same_project
from initbench.registry import Registry, has_user_entries

ROOTS = (
    ("initbench.runner.workers.task", "WorkerTask"),
    ("initbench.runner.workers.task", "train"),
    ("initbench.data.preprocessing", "preprocess"),
)
"""Entry points of training: these statements and all that they reach always count."""
NUMERICAL_PACKAGES = (
    "initbench.rng",
    "initbench.determinism",
    "initbench.theory",
    "initbench.components",
    "initbench.models",
    "initbench.data",
    "initbench.probing",
    "initbench.train",
    "initbench.pretrain",
    "initbench.runner.workers.task",
)
"""Modules whose code counts. Other modules do not affect the numbers, or only through the config."""
FETCHING_PACKAGE = "initbench.data.download"
"""Package that finds and verifies files; the file contents are a separate part of the run identity."""
CATALOGUE_TEXTS = frozenset({"summary", "formula", "source"})
"""Arguments of registry entries that only the documentation uses."""
DIGITS = 10


@dataclass(frozen=True)
class NamedEntry:
    """One entry of a registry; the hash uses the registry object, because registries are not comparable."""

    registry: Registry[Any]
    name: str

    @property
    def module(self) -> str:
        """Module that registers the entry."""
        return self.registry.origin(self.name)[0]

    def location(self) -> Statement | None:
        """Return the top-level statement that adds the entry, or None if its code does not count.

        Raises:
            UsageError: If the entry is registered outside of a file, so that its code is unknown.
        """
        module, line = self.registry.origin(self.name)
        if not _counts(module):
            return None
        if _is_user_module(module) and file_of(module) is None:
            raise UsageError(
                f"{self.registry.kind} {self.name!r} is registered by {module}, which has no source file;"
                " run ids depend on the code, so put it into a file"
            )
        return read_module(module).statement_at(line)


@dataclass(frozen=True)
class Statement:
    """One top-level statement of a module."""

    module: str
    index: int

    @property
    def node(self) -> ast.stmt:
        """The statement without docstrings, annotations and config fields."""
        return read_module(self.module).statements[self.index]


@dataclass(frozen=True)
class ModuleSource:
    """The parsed source of one module."""

    name: str
    statements: list[ast.stmt]
    lines: list[tuple[int, int]]
    """First and last line of each statement."""
    imports: Mapping[str, Sequence[tuple[str, str | None]]] = field(default_factory=dict)
    """Local name → (module, name in it, or None for the module itself); `*` stands for all other names."""

    @cached_property
    def definitions(self) -> dict[str, list[int]]:
        """Name → the statements that bind it."""
        definitions: dict[str, list[int]] = {}
        for index, statement in enumerate(self.statements):
            for name in _bound_names(statement):
                definitions.setdefault(name, []).append(index)
        return definitions

    def statement_at(self, line: int) -> Statement:
        """Return the statement that contains a line of the file."""
        index = next(i for i, (first, last) in enumerate(self.lines) if first <= line <= last)
        return Statement(self.name, index)

    def executed_on_import(self) -> Iterator[Statement]:
        """Yield statements that define no name, except statements that add registry entries."""
        for index, statement in enumerate(self.statements):
            if not _bound_names(statement) and not _adds_entry(self, index):
                yield Statement(self.name, index)

    def imported_modules(self) -> set[str]:
        """Return the modules of the same project that this one imports, and the packages that it is in."""
        parts = self.name.split(".")
        packages = {".".join(parts[:length]) for length in range(1, len(parts))}
        imported = {module for targets in self.imports.values() for module, _ in targets}
        return {
            module
            for module in packages | imported
            if is_same_project(self.name, module) and file_of(module) is not None
        }


def code_fingerprint(config: ExperimentConfig, dataset: str) -> str:
    """Return the hash of the code that computes the numbers of a config's runs.

    Args:
        config: The experiment; the registry entries that it names are covered.
        dataset: Name of the data set that was found for it, which may be a fallback.

    Returns:
        Ten hexadecimal digits.
    """
    return _digest(_closure(entries_of(config, dataset), factory_statements(config))[0])


def factory_fingerprint(config: ExperimentConfig) -> str:
    """Return the hash of the user's code that builds the net of a config, as `code_fingerprint` reads it."""
    statements, _ = _closure(frozenset(), factory_statements(config))
    return _digest(statement for statement in statements if _is_user_module(statement.module))


def factory_statements(config: ExperimentConfig) -> frozenset[Statement]:
    """Return the statements that a net of the user needs in addition; empty for other families.

    These define the function that builds it, and the tracer, which finds its head and its activation.

    Raises:
        ConfigError: If the function is not given.
        UsageError: If its code is unknown.
    """
    if not isinstance(config.model, CustomOptions):
        return frozenset()
    factory = require_factory()
    name = factory.attribute.partition(".")[0]
    statements = _definitions_of(factory.module, name)
    if not statements:
        raise UsageError(
            f"--model {factory.path}: the source of {name} is not found in {factory.module}; run ids depend"
            " on the code, so write a function that builds the network into a file"
        )
    return frozenset([*statements, *_tracer_statements()])


@cache
def _tracer_statements() -> tuple[Statement, ...]:
    modules = [f"{trace.__name__}.{module.name}" for module in pkgutil.iter_modules(trace.__path__)]
    return tuple(
        Statement(module, index) for module in modules for index in range(len(read_module(module).statements))
    )


def entries_of(config: ExperimentConfig, dataset: str) -> frozenset[NamedEntry]:
    """Return the registry entries that a config names, with those of the data set in use."""
    return frozenset({*_named_in(config), NamedEntry(DATASETS, dataset)})


def plugin_entries(config: ExperimentConfig, dataset: str) -> list[NamedEntry]:
    """Return the entries of plug-ins that the training of a config uses, by kind and name."""
    if not uses_user_code(config):
        return []
    _, covered = _closure(entries_of(config, dataset), factory_statements(config))
    entries = (entry for entry in covered if _is_user_module(entry.module))
    return sorted(entries, key=lambda entry: (entry.registry.kind, entry.name))


def uses_user_code(config: ExperimentConfig) -> bool:
    """Return whether code outside of initbench may take part in the training of a config."""
    return isinstance(config.model, CustomOptions) or plugins.are_available() or has_user_entries()


def is_numerical(module: str) -> bool:
    """Return whether a module of initbench computes numbers of runs."""
    return _is_below(module, NUMERICAL_PACKAGES) and not _is_below(module, (FETCHING_PACKAGE,))


def _is_user_module(module: str) -> bool:
    return not _is_below(module, ("initbench",))


def _counts(module: str) -> bool:
    return is_numerical(module) or _is_user_module(module)


@cache
def read_module(name: str) -> ModuleSource:
    """Parse the source of a module of initbench or of a plug-in."""
    tree = ast.parse(_source_of(name))
    statements, lines = [], []
    imports: dict[str, list[tuple[str, str | None]]] = {}
    for node in ast.walk(tree):
        for local, target in _imported_names(node, name):
            if _is_below(target[0], ("initbench",)) or is_same_project(name, target[0]):
                imports.setdefault(local, []).append(target)
    for statement in tree.body:
        if isinstance(statement, ast.Import | ast.ImportFrom) or _is_docstring(statement):
            continue
        decorators = [decorator.lineno for decorator in getattr(statement, "decorator_list", [])]
        lines.append((min([statement.lineno, *decorators]), statement.end_lineno or statement.lineno))
        statements.append(_Meaning().visit(statement))
    return ModuleSource(name, statements, lines, imports)


def _digest(statements: Iterable[Statement]) -> str:
    digests = sorted(_statement_digest(statement) for statement in statements)
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()[:DIGITS]


@cache
def _closure(
    entries: frozenset[NamedEntry], roots: frozenset[Statement] = frozenset()
) -> tuple[frozenset[Statement], frozenset[NamedEntry]]:
    """Return all statements and entries that ROOTS, these entries and these statements reach."""
    statements: set[Statement] = set()
    covered: set[NamedEntry] = set()
    pending: list[Statement] = []
    if entries or roots:  # the part that all configs share is computed once
        shared_statements, shared_entries = _closure(frozenset())
        statements |= shared_statements
        covered |= shared_entries
        pending += roots
    else:
        pending += [statement for module, name in ROOTS for statement in _definitions_of(module, name)]
    pending_entries = list(entries - covered)
    while pending or pending_entries:
        if pending_entries:
            entry = pending_entries.pop()
            if entry not in covered:
                covered.add(entry)
                location = entry.location()
                pending += [] if location is None else [location]
            continue
        statement = pending.pop()
        if statement in statements:
            continue
        statements.add(statement)
        pending += _neighbours(statement)
        pending_entries += _named_entries(statement)
    return frozenset(statements), frozenset(covered)


@cache
def _neighbours(statement: Statement) -> tuple[Statement, ...]:
    """Return the statements that this one needs, and all that run when its module is imported."""
    module = statement.module
    needed = (target for name in _loaded_names(statement) for target in _definitions_of(module, name))
    return (*needed, *(executed for name in _modules_run(module) for executed in _executed(name)))


@cache
def _executed(module: str) -> tuple[Statement, ...]:
    return tuple(read_module(module).executed_on_import())


@cache
def _modules_run(module: str) -> frozenset[str]:
    """Return the module and, for a plug-in, all modules of its project that an import of it executes."""
    modules, pending = {module}, [module] if _is_user_module(module) else []
    while pending:
        new = read_module(pending.pop()).imported_modules() - modules
        modules |= new
        pending += new
    return frozenset(modules)


def _named_entries(statement: Statement) -> Iterator[NamedEntry]:
    """Yield entries named in a statement that uses their registry, or in a constant that it loads.

    In the code of a plug-in, any registry may be used.
    """
    registries, texts = [], _strings_in(statement.node)
    if _is_user_module(statement.module):
        registries += [kind.registry for kind in registry_fields()]
    for name in _loaded_names(statement):
        for definition in _definitions_of(statement.module, name):
            texts |= _constant_text(definition.node)
            if _is_user_module(definition.module):
                continue
            registry = getattr(importlib.import_module(definition.module), name, None)
            if isinstance(registry, Registry):
                registries.append(registry)
    for registry in registries:
        yield from (NamedEntry(registry, text) for text in sorted(texts) if text in registry)


def _definitions_of(module: str, name: str) -> list[Statement]:
    """Return the statements that define a name in a module; all statements if the name is a module."""
    if not _counts(module) or (_is_user_module(module) and file_of(module) is None):
        return []
    source = read_module(module)
    if name in source.definitions:
        return [Statement(module, index) for index in source.definitions[name]]
    targets = source.imports.get(name) or [(origin, name) for origin, _ in source.imports.get("*", ())]
    return [statement for target in targets for statement in _target_definitions(*target)]


def _target_definitions(module: str, name: str | None) -> list[Statement]:
    """Return the statements that an imported name stands for; all statements for a module without a name."""
    if name is not None:
        return _definitions_of(module, name)
    if not _counts(module) or file_of(module) is None:
        return []
    return [Statement(module, index) for index in range(len(read_module(module).statements))]


def _named_in(section: BaseModel) -> Iterator[NamedEntry]:
    """Yield the registry entries that a config section names, at every depth."""
    for key, model_field in type(section).model_fields.items():
        value = getattr(section, key)
        if not isinstance(value, BaseModel):
            continue
        for _, choice in leaf_types(model_field.annotation, list(model_field.metadata)):
            if choice is not None:
                yield NamedEntry(choice.registry, getattr(value, choice.tag))
        yield from _named_in(value)


class _Meaning(ast.NodeTransformer):
    """Removes parts that change no number: docstrings, annotations, catalogue texts, config fields."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        node.body = _without_docstrings(node.body)
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        # The run identity already has the values of config fields, including defaults.
        node.body = [child for child in _without_docstrings(node.body) if not _is_config_field(child)]
        node.body = node.body or [ast.Pass()]
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        node.keywords = [keyword for keyword in node.keywords if keyword.arg not in CATALOGUE_TEXTS]
        return self.generic_visit(node)


def _without_docstrings(body: list[ast.stmt]) -> list[ast.stmt]:
    return [child for child in body if not _is_docstring(child)] or [ast.Pass()]


def _is_docstring(statement: ast.stmt) -> bool:
    """Return whether a statement is a bare string: a docstring of a module, class, function or attribute."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _is_config_field(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.AnnAssign)
        and isinstance(statement.value, ast.Call)
        and ast.unparse(statement.value.func) == "Field"
    )


@cache
def _statement_digest(statement: Statement) -> str:
    return hashlib.sha256(_canonical(statement.node).encode()).hexdigest()


def _canonical(node: Any) -> str:
    """Format a syntax tree without positions and without fields that only some Python versions have."""
    if isinstance(node, ast.AST):
        fields = ((name, _canonical(value)) for name, value in ast.iter_fields(node) if name != "ctx")
        texts = [f"{name}={text}" for name, text in fields if text not in ("None", "[]")]
        return f"{type(node).__name__}({','.join(texts)})"
    if isinstance(node, list):
        return f"[{','.join(map(_canonical, node))}]"
    return repr(node)


@cache
def _loaded_names(statement: Statement) -> frozenset[str]:
    return frozenset(node.id for node in ast.walk(statement.node) if isinstance(node, ast.Name))


def _strings_in(node: ast.AST) -> set[str]:
    constants = (child.value for child in ast.walk(node) if isinstance(child, ast.Constant))
    return {value for value in constants if isinstance(value, str)}


def _constant_text(statement: ast.stmt) -> set[str]:
    """Return the strings in an assignment; an empty set for other statements."""
    is_assignment = isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None
    return _strings_in(statement) if is_assignment else set()


def _bound_names(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.If | ast.Try | ast.With):
        stored = (node for node in ast.walk(statement) if isinstance(node, ast.Name))
        return {node.id for node in stored if isinstance(node.ctx, ast.Store)}
    return set()


@cache
def _entry_lines() -> dict[str, list[int]]:
    """Return a mapping: module → the lines that add registry entries."""
    lines: dict[str, list[int]] = {}
    for registry in (kind.registry for kind in registry_fields()):
        for name in registry.names():
            module, line = registry.origin(name)
            lines.setdefault(module, []).append(line)
    return lines


def _adds_entry(source: ModuleSource, index: int) -> bool:
    """Return whether a statement adds registry entries; in a plug-in, also lint rules and executors."""
    first_line, last_line = source.lines[index]
    if any(first_line <= line <= last_line for line in _entry_lines().get(source.name, ())):
        return True
    names = _loaded_names(Statement(source.name, index)) if _is_user_module(source.name) else ()
    targets = [target for name in names for target in source.imports.get(name, ())]
    return any(
        name is not None and isinstance(getattr(sys.modules.get(module), name, None), Registry)
        for module, name in targets
    )


def _imported_names(node: ast.AST, module: str) -> Iterator[tuple[str, tuple[str, str | None]]]:
    """Yield (local name, target) for each name that a statement of `module` imports, as in `imports`."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.asname is not None:
                yield alias.asname, (alias.name, None)
            else:  # `import a.b` binds a, through which both are used
                parts = alias.name.split(".")
                for length in range(1, len(parts) + 1):
                    yield parts[0], (".".join(parts[:length]), None)
    elif isinstance(node, ast.ImportFrom):
        origin = _absolute_name(node, module)
        for alias in node.names:
            yield alias.asname or alias.name, _import_target(origin, alias.name)


def _absolute_name(node: ast.ImportFrom, module: str) -> str:
    """Return the module that an import names, without leading dots."""
    if not node.level:
        return node.module or ""
    file = file_of(module)
    is_package = file is not None and file.name == "__init__.py"
    parts = module.split(".")
    parents = parts[: len(parts) - node.level + is_package]
    return ".".join([*parents, *([node.module] if node.module else [])])


@cache
def _import_target(module: str, name: str) -> tuple[str, str | None]:
    whole = f"{module}.{name}"
    if module.partition(".")[0] not in sys.modules:  # to look for the module would import its package
        return module, name
    return (whole, None) if name != "*" and file_of(whole) is not None else (module, name)


def project_sources(module: str) -> dict[str, str]:
    """Return the sources of a module of the user and of all modules of its project that it imports."""
    if file_of(module) is None:
        return {}
    return {name: _source_of(name) for name in _modules_run(module)}


def forget_code() -> None:
    """Read all code again at its next use."""
    for function in _CACHED:
        function.cache_clear()


def _source_of(module: str) -> str:
    path = file_of(module)
    assert path is not None, module
    return path.read_text(encoding="utf-8")


def _is_below(module: str, packages: Iterable[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


_CACHED = (
    _tracer_statements,
    read_module,
    _closure,
    _neighbours,
    _executed,
    _modules_run,
    _statement_digest,
    _loaded_names,
    _entry_lines,
    _import_target,
)
"""Functions whose results depend on sources or on registered entries."""
