"""Lookup of the configs, sweeps and lessons that ship with initbench."""

from __future__ import annotations

from pathlib import Path

import initbench

_PACKAGE = Path(initbench.__file__).parent
CONFIGS = next(
    (folder for folder in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if folder.is_dir()),
    _PACKAGE.parent / "configs",
)
"""Folder of the shipped configs: in the installed package, else in the checkout around it."""
_FOLDERS = ("", "sweeps", "lessons")
_ENDINGS = (".yaml", ".yml")


def config_path(name: str) -> str:
    """Return the path of the config that `name` means.

    In this order: a file of this name; `name.yaml` or `name.yml` here or in `configs/`; the shipped config
    of this name, with or without its folder, as in configs/relu_kaiming.yaml. If none exists, `name` is
    returned as it is, and reading it then reports that the file is missing.
    """
    if name == "-" or _is_file(Path(name)) or not name or "\0" in name:
        return name
    return next((str(path) for path in _candidates(Path(name)) if _is_file(path)), name)


def shipped_names() -> list[str]:
    """Return the names of all shipped experiments and sweeps."""
    return sorted(path.stem for folder in _FOLDERS[:2] for path in (CONFIGS / folder).glob("*.yaml"))


def _candidates(name: Path) -> list[Path]:
    if name.is_absolute():
        return []
    if name.parts[:1] == ("configs",):
        return [CONFIGS.joinpath(*name.parts[1:])]
    if len(name.parts) != 1:
        return []
    files = [name.name] if name.suffix in _ENDINGS else [name.name + ending for ending in _ENDINGS]
    folders = [Path(), Path("configs"), *(CONFIGS / folder for folder in _FOLDERS)]
    return [folder / file for folder in folders for file in files]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long for a file name
        return False
