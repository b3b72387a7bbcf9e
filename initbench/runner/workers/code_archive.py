"""Collect the code that takes part in training, for workers on other machines.

This is the package initbench and the modules of the user that are not installed: those of `--model`,
`--loss-from` and `--plugin`, with the modules of their projects that they import.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from initbench import plugins
from initbench.models.model_factory import loaded_factory
from initbench.plugins import file_of, origin_of
from initbench.runner.code_fingerprint import project_sources
from initbench.runner.fingerprint_cache import PACKAGE


@dataclass(frozen=True)
class CodeArchive:
    """Files of Python modules, and the environment variables that name those of the user."""

    files: dict[str, bytes]
    """Path relative to a folder of sys.path → contents."""
    variables: dict[str, str]
    """Empty values replace those that a machine may have."""

    @property
    def digest(self) -> str:
        """Hash of the files."""
        digest = hashlib.sha256()
        for name, content in sorted(self.files.items()):
            digest.update(f"{name} {len(content)}\n".encode())
            digest.update(content)
        return digest.hexdigest()


def collect_code() -> CodeArchive:
    """Return the code that this process trains with."""
    files = {
        str(file.relative_to(PACKAGE.parent)): file.read_bytes() for file in sorted(PACKAGE.rglob("*.py"))
    }
    for module in dict.fromkeys(_user_modules()):
        if origin_of(module).distribution is None:  # else it is installed on every node
            sources = project_sources(module)
            files |= {str(_path_of(name)): text.encode() for name, text in sources.items()}
            packages = {parent for name in sources for parent in _parents(name)}
            files |= {str(_path_of(name)): file.read_bytes() for name in packages if (file := file_of(name))}
    variables = {
        plugins.VARIABLE: ",".join(plugins.requested_modules()),
        plugins.LOSS_VARIABLE: plugins.requested_loss() or "",
    }
    return CodeArchive(files, variables)


def _user_modules() -> Iterator[str]:
    """Yield the modules of the user that take part in training."""
    yield from plugins.requested_modules()
    if (factory := loaded_factory()) is not None:
        yield factory.module
    if (loss := plugins.requested_loss()) is not None:
        yield loss.rpartition(":")[0]


def _path_of(module: str) -> Path:
    """Return the path of the file of a module."""
    path, file = Path(*module.split(".")), file_of(module)
    return path / "__init__.py" if file is not None and file.stem == "__init__" else path.with_suffix(".py")


def _parents(module: str) -> Iterator[str]:
    """Yield the packages that contain a module."""
    parent = module.rpartition(".")[0]
    if parent:
        yield parent
        yield from _parents(parent)
