"""Plug-ins: the user's modules that register components when they are imported.

A plug-in is named on the command line (`--plugin`), in the environment (INITBENCH_PLUGINS), or by an entry
point of an installed distribution in the group `initbench.KIND`. A registry imports them at its first
lookup. Worker processes inherit the variable and see the same entry points, so they import the same modules.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, EntryPoint, entry_points, packages_distributions
from pathlib import Path
from types import ModuleType

from initbench.errors import UsageError, reporting_user_code
from initbench.paths import expand_user

VARIABLE = "INITBENCH_PLUGINS"
"""Environment variable with the names or files of plug-ins, separated by commas."""
GROUP_PREFIX = "initbench."
LOSS_VARIABLE = "INITBENCH_LOSS"
"""Environment variable with a loss function of the user, as `module:function`."""
_MAIN_GUARD_ADVICE = "move its code under if __name__ == '__main__'"
_imported: set[str] = set()
"""Plug-ins that are imported, or whose import has begun."""


@dataclass(frozen=True)
class PluginOrigin:
    """The plug-in that registered an entry."""

    module: str
    """Top-level module or package."""
    distribution: str | None
    """Name of the installed distribution; None for a file or a folder."""
    version: str | None

    def __str__(self) -> str:
        return self.module if self.distribution is None else f"{self.distribution} {self.version}"

    @property
    def absence(self) -> str:
        """The reason why this version of the plug-in is not available, or the remedy; empty if it is."""
        if self.distribution is None:
            is_named = any(Path(name).stem == self.module for name in requested_plugins())
            return "" if is_named else f"name its module or file: --plugin {self.module}.py"
        try:
            installed = importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            return "which is not installed"
        return "" if installed == self.version else f"but version {installed} is installed"


def request_plugins(names: Iterable[str]) -> None:
    """Add plug-ins to those of INITBENCH_PLUGINS, also for child processes.

    Args:
        names: Names of modules, or paths of Python files. Paths are stored absolute.
    """
    names = list(names)
    if with_comma := next((name for name in names if "," in name), None):
        raise UsageError(f"--plugin names one module or file, and no name has a comma; got {with_comma!r}")
    added = [str(expand_user(name).resolve()) if _is_file_name(name) else name for name in names]
    os.environ[VARIABLE] = ",".join(dict.fromkeys([*requested_plugins(), *added]))


def requested_plugins() -> tuple[str, ...]:
    """Return the plug-ins that INITBENCH_PLUGINS names."""
    return tuple(filter(None, map(str.strip, os.environ.get(VARIABLE, "").split(","))))


def requested_modules() -> tuple[str, ...]:
    """Return the modules of the plug-ins that INITBENCH_PLUGINS names."""
    return tuple(Path(name).stem if _is_file_name(name) else name for name in requested_plugins())


def installed_versions() -> dict[str, str]:
    """Return the versions of the installed distributions with plug-ins."""
    points = (point for group in _installed().values() for point in group)
    return {point.dist.name: point.dist.version for point in points if point.dist is not None}


def request_loss(path: str) -> str:
    """Register a function as a loss, also in child processes, and return its name.

    Args:
        path: `module:function`.
    """
    _, colon, name = path.rpartition(":")
    if not colon or not name.isidentifier() or "/" in path or path.startswith(":"):
        raise UsageError(f"--loss-from takes module:function, as in losses:dice; got {path!r}")
    os.environ[LOSS_VARIABLE] = path
    return name


def requested_loss() -> str | None:
    """Return the path of the user's loss function, or None."""
    return os.environ.get(LOSS_VARIABLE) or None


def are_available() -> bool:
    """Return whether any plug-in is named or installed; none is imported to find out."""
    return bool(requested_plugins() or _installed())


def import_plugins(group: str) -> None:
    """Import the named plug-ins, and those that are installed with an entry point in `initbench.GROUP`.

    Raises:
        UsageError: If a plug-in cannot be imported; the message has its name and distribution.
    """
    for name in requested_plugins():
        with _once(name) as is_new:
            if is_new:
                import_plugin(name)
    for point in _installed().get(GROUP_PREFIX + group, ()):
        with _once(f"{point.group}:{point.value}") as is_new:
            if is_new:
                _load_entry_point(point)


def import_plugin(name: str) -> ModuleType:
    """Import a plug-in by the name of its module or the path of its file.

    The working directory, or the folder of the file, is appended to the path, so that the plug-in can import
    its neighbours. Installed modules take precedence over them.

    Raises:
        UsageError: If there is no such module or file, or its import fails.
    """
    if _is_file_name(name):
        return _import_file(expand_user(name))
    _append_to_path(Path.cwd())
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # a parent package is missing, or the name is empty between its dots
        spec = None
    if spec is None and name not in sys.modules:
        hint = _hint(name, [file.stem for file in Path.cwd().glob("*.py")])
        raise UsageError(f"plug-in {name}: no such module is installed or in the working directory{hint}")
    return import_user_module(name, f"plug-in {name} cannot be imported:")


def import_user_module(name: str, subject: str) -> ModuleType:
    """Import a module of the user; its output goes to stderr.

    Raises:
        UsageError: If the import fails; the message begins with `subject`.
    """
    with isolated_arguments(name), reporting_user_code(subject, exit_advice=_MAIN_GUARD_ADVICE):
        return importlib.import_module(name)


@contextmanager
def isolated_arguments(program: str) -> Iterator[None]:
    """Hide initbench's command line from code that parses sys.argv, and redirect its output to stderr."""
    arguments = sys.argv
    sys.argv = [program]
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        sys.argv = arguments


@cache
def origin_of(module: str) -> PluginOrigin:
    """Return the plug-in that a module belongs to, with its installed distribution, if any."""
    top = module.partition(".")[0]
    points = (point for group in _installed().values() for point in group)
    distribution = next((point.dist for point in points if point.module.partition(".")[0] == top), None)
    if distribution is not None:
        return PluginOrigin(top, distribution.name, distribution.version)
    location = file_of(top)
    if location is not None and _is_install_folder(_root_folder(top, location)):
        for name in packages_distributions().get(top, ()):
            return PluginOrigin(top, name, importlib.metadata.version(name))
    return PluginOrigin(top, None, None)


def file_of(module: str) -> Path | None:
    """Return the source file of a module, imported or not; None if it has none."""
    name = getattr(sys.modules.get(module), "__file__", None)
    if name is None:
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError):  # its parent is a module and not a package, or it is __main__
            return None
        name = None if spec is None or not spec.has_location else spec.origin
    return Path(name) if name is not None and name.endswith(".py") else None


def is_same_project(module: str, other: str) -> bool:
    """Return whether `other` belongs to the project of `module`.

    A project is a top-level package. It includes the modules next to that package, unless they are in a
    folder into which distributions are installed.
    """
    top, other_top = module.partition(".")[0], other.partition(".")[0]
    if top == other_top:
        return True
    first, second = file_of(top), file_of(other_top)
    if first is None or second is None:
        return False
    folder = _root_folder(top, first)
    return folder == _root_folder(other_top, second) and not _is_install_folder(folder)


@contextmanager
def _once(name: str) -> Iterator[bool]:
    """Provide whether a plug-in has yet to be imported; after an error it has to be imported again."""
    is_new = name not in _imported
    _imported.add(name)
    try:
        yield is_new
    except BaseException:
        _imported.discard(name)
        raise


@cache
def _installed() -> Mapping[str, tuple[EntryPoint, ...]]:
    """Return the entry points of plug-ins by group, sorted by distribution and name."""
    points = entry_points()  # of several distributions of a name, only those of the one that is imported
    return {
        group: tuple(sorted(points.select(group=group), key=lambda point: (_title(point.dist), point.name)))
        for group in points.groups
        if group.startswith(GROUP_PREFIX)
    }


def _load_entry_point(point: EntryPoint) -> None:
    subject = f"plug-in {point.value} of {_title(point.dist)} ({point.group}) cannot be imported:"
    with isolated_arguments(point.module), reporting_user_code(subject, exit_advice=_MAIN_GUARD_ADVICE):
        point.load()


def _title(distribution: Distribution | None) -> str:
    return "?" if distribution is None else f"{distribution.name} {distribution.version}"


def _is_file_name(name: str) -> bool:
    return name.endswith(".py") or "/" in name or os.sep in name


def _import_file(path: Path) -> ModuleType:
    """Import a Python file as the module that is called after it."""
    path, name = path.resolve(), path.stem
    if not path.is_file():
        hint = _hint(path.name, [file.name for file in path.parent.glob("*.py")])
        raise UsageError(f"plug-in {path}: there is no such file{hint}")
    if not name.isidentifier() or path.suffix != ".py":
        raise UsageError(f"plug-in {path}: name the file NAME.py, with a NAME of letters, digits and _")
    _append_to_path(path.parent)
    existing = file_of(name) if name in sys.modules or importlib.util.find_spec(name) else path
    if existing is None or existing.resolve() != path:
        raise UsageError(f"plug-in {path}: another module is called {name}; rename the file")
    return import_user_module(name, f"plug-in {path} cannot be imported:")


def _hint(name: str, choices: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, sorted(choices), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _append_to_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
        importlib.invalidate_caches()


def _root_folder(top: str, file: Path) -> Path:
    """Return the folder from which the top-level module of this file is imported."""
    is_package = file.name == "__init__.py" and top != "__init__"
    return (file.parent.parent if is_package else file.parent).resolve()


@cache
def _is_install_folder(folder: Path) -> bool:
    return any(True for _ in folder.glob("*.dist-info"))
