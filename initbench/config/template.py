"""Template of a first config, with a comment on each key."""

from __future__ import annotations

from initbench.config.loading import validate_data
from initbench.config.schema import ExperimentConfig
from initbench.errors import ConfigError

_TEXT = """\
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


def first_config(name: str) -> str:
    """Return the text of a commented config called `name`.

    Raises:
        ConfigError: If an experiment cannot have this name.
    """
    data = {"kind": "experiment", "name": name}
    _, faults = validate_data(ExperimentConfig, data, lambda _path, _of_key: "NAME")
    if faults:
        raise ConfigError(faults)
    return _TEXT.format(name=name)
