"""`initbench new`: write a first config to start from, with a comment on each key."""

from __future__ import annotations

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
  name: digits            # bundled; mnist, fashion_mnist, cifar10, or npz with `path: FILE` for your own

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


def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the experiment; the file is NAME.yaml.")
    ],
) -> None:
    """Write NAME.yaml, a commented config that trains within a minute; never overwrite a file."""
    path = Path(name if name.endswith((".yaml", ".yml")) else f"{name}.yaml")
    text = first_config(path.stem)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} already exists; choose another name") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {(error.strerror or str(error)).lower()}") from None
    typer.echo(f"wrote {path}; start it with: initbench run {path}")


def first_config(name: str) -> str:
    """Return the text of a commented config called `name`.

    Raises:
        ConfigError: If an experiment cannot have this name.
    """
    from initbench.config.loading import validate_data
    from initbench.config.schema import ExperimentConfig

    data = {"kind": "experiment", "name": name}
    _, faults = validate_data(ExperimentConfig, data, lambda _path, _of_key: "NAME")
    if faults:
        raise ConfigError(faults)
    return _TEMPLATE.format(name=name)
