"""`initbench new`: write a first config, or the folder of a study, to start from, with comments."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from initbench.errors import ConfigError, UsageError

_TEMPLATE = """\
# Run it with: initbench run {name}.yaml
# Change a key for once with: initbench run {name}.yaml init.scheme=xavier_normal
# Every key and its default is listed by: initbench run {name}.yaml --print-config
# initbench explain kaiming_normal explains a name; initbench catalog lists all names
kind: experiment
name: {name}
notes: What to look at, for people.
seeds: 3                  # 3 runs, of seeds 0, 1, 2; or a list such as [0, 5]

data:
  name: digits            # bundled; or mnist, cifar10, ...; images, table, npz with `path: FILE` for your own

model:
  family: mlp             # or cnn, resnet, resnet_mlp, torchvision
  depth: 10               # weight layers
  width: 64
  activation: relu        # or tanh, gelu, silu, leaky_relu, ...
  norm: none              # or batch, layer, group, rms, ...

init:
  scheme: kaiming_normal  # or xavier_normal, orthogonal, lsuv, torch_default, ...

train:
  steps: 500              # updates; or epochs
  batch_size: 64
  optimizer:
    name: sgd             # or adam, adamw, rmsprop
    momentum: 0.9
  lr: 0.01
"""
_TEMPLATES = Path(__file__).parents[1] / "templates"
_STUDY = "STUDY"
"""Placeholder for the name of the study, in the files of a template and their names."""
_SUFFIX = ".template"
"""Suffix that Python files of a template have in addition, so that they are not modules of initbench."""


class StudyTemplate(StrEnum):
    """Template of a study; each is a folder of `initbench/templates`."""

    OWN_MODEL = "own_model"
    OWN_DATA = "own_data"
    CI = "ci"
    LECTURE = "lecture"


def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the experiment; the file is NAME.yaml.")
    ],
    template: Annotated[
        StudyTemplate | None,
        typer.Option("--template", help="Write the folder NAME with the files of a study instead."),
    ] = None,
) -> None:
    """Write NAME.yaml, a commented config that trains within a minute; never overwrite a file.

    With --template, write a folder with a README that lists the commands to run: own_model and own_data for
    nets and data of your own, ci for gates in continuous integration, lecture for a lesson.
    """
    if template is not None:
        _write_study(Path(name), template)
        return
    path = Path(name if name.endswith((".yaml", ".yml")) else f"{name}.yaml")
    text = first_config(path.stem)
    _write_file(path, text)
    typer.echo(f"wrote {path}; start it with: initbench run {path}")


def first_config(name: str) -> str:
    """Return the text of a commented config called `name`.

    Raises:
        ConfigError: If an experiment cannot have this name.
    """
    _check_name(name)
    return _TEMPLATE.format(name=name)


def study_files(template: StudyTemplate, name: str) -> dict[Path, str]:
    """Return the files of a study called `name`, relative to its folder, with their texts.

    Raises:
        ConfigError: If an experiment cannot have this name.
    """
    _check_name(name)
    folder = _TEMPLATES / template.value
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            target = path.relative_to(folder).as_posix().removesuffix(_SUFFIX).replace(_STUDY, name)
            files[Path(target)] = path.read_text(encoding="utf-8").replace(_STUDY, name)
    return files


def _write_study(folder: Path, template: StudyTemplate) -> None:
    files = study_files(template, folder.name)
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise UsageError(f"{folder} already exists; choose another name") from None
    except OSError as error:
        raise UsageError(f"{folder} cannot be created: {(error.strerror or str(error)).lower()}") from None
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        _write_file(folder / path, text)
    typer.echo(f"wrote {folder}; its README.md lists the commands to run there")


def _write_file(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} already exists; choose another name") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {(error.strerror or str(error)).lower()}") from None


def _check_name(name: str) -> None:
    from initbench.config.loading import validate_data
    from initbench.config.schema import ExperimentConfig

    data = {"kind": "experiment", "name": name}
    _, faults = validate_data(ExperimentConfig, data, lambda _path, _of_key: "NAME")
    if faults:
        raise ConfigError(faults)
