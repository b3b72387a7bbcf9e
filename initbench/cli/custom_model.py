"""Use a custom network on the command line: `--model package.module:function --input 3,32,32`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from initbench.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from initbench.config.custom_model_config import CustomModelConfig
    from initbench.data.dataset import DataSource
    from initbench.diagnostics.net_source import ModuleNets
    from initbench.models.model_factory import ModelFactory
    from initbench.probing.model_inputs import ModelInputs

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODULE:FUNCTION",
        help="Your own network: a function that returns a module, with a config or instead of one.",
    ),
]
TrainedModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODULE:FUNCTION",
        help="Your own network: a function that returns a module (docs/own_nets.md).",
    ),
]
InputOption = Annotated[
    str | None,
    typer.Option(
        "--input",
        metavar="C,H,W",
        help="With --model: shape of one sample, N(0, 1) without --data; tokens:VOCAB,T draws token ids.",
    ),
]
DataOption = Annotated[
    str | None, typer.Option("--data", metavar="NAME", help="With --model: data set of the batch.")
]
BatchOption = Annotated[
    str | None,
    typer.Option(
        "--batch",
        metavar="FILE",
        help="With --model: a saved batch (.pt, .npz, .safetensors) of forward's arguments and labels.",
    ),
]


_TOKENS = "tokens:"
CONFIG_HAS_DATA = "--input, --data and --batch require --model without a config, which sets data.name instead"
_FAMILY = "model.family="


def use_model(path: str | None, arguments: Sequence[str]) -> list[str]:
    """Load the function of --model, and return the arguments of the command with its model.family."""
    from initbench.models.model_factory import load_factory

    load_factory(path)
    if path is None:
        return list(arguments)
    other = next((a for a in arguments if a.startswith(_FAMILY) and a != f"{_FAMILY}custom"), None)
    if other is not None:
        raise UsageError(f"--model cannot be combined with {other}: it replaces model.family")
    return [*(a for a in arguments if not a.startswith(_FAMILY)), f"{_FAMILY}custom"]


def has_config(arguments: Sequence[str]) -> bool:
    """Return whether the arguments name a config file."""
    from initbench.config.overrides import split_arguments

    return bool(split_arguments(list(arguments))[0])


@dataclass(frozen=True)
class CustomModel:
    """Options that describe a custom network and its batch."""

    path: str
    shape: tuple[int, ...] | None
    target: CustomModelConfig
    vocabulary: int | None = None
    """Number of token ids, if the samples are tokens."""
    batch_file: str | None = None
    """File of a saved batch."""

    def nets(self, source: DataSource, device: str = "cpu") -> ModuleNets:
        """Return the networks, which are built one after another, and their batch on the device."""
        from initbench.diagnostics.net_source import ModuleNets
        from initbench.runner.device import resolve_device

        torch_device, target = resolve_device(device), self.target
        modules, inputs, y, words = self._modules_and_batch(source)
        return ModuleNets(
            (_to_device(module, torch_device) for module in modules),
            inputs.mapped(lambda x: x.to(torch_device)),
            self.path,
            target.seed_list,
            batch=words,
            y=None if y is None else y.to(torch_device),
            declared=target.init,
        )

    def _modules_and_batch(
        self, source: DataSource
    ) -> tuple[Iterator[nn.Module], ModelInputs, Tensor | None, str]:
        """Return the modules, their inputs, the labels if any, and a description of the batch."""
        from initbench.probing.model_inputs import as_inputs, split_batch
        from initbench.runner.batch_file import read_batch

        modules = self._build_modules()
        if self.batch_file is None:
            x, y, words = _draw_batch(self, source)
            return modules, as_inputs(x), y, words
        batch = read_batch(self.batch_file)
        first = next(modules)
        inputs, y = split_batch(batch, first, source=self.batch_file)
        words = f"{Path(self.batch_file).name}: {inputs.words}{'' if y is None else ', with labels'}"
        return itertools.chain([first], modules), inputs, y, words

    def _build_modules(self) -> Iterator[nn.Module]:
        from initbench.models.model_factory import import_factory

        return _build_modules(import_factory(self.path), self.target.seed_list)


def parse_custom_model(
    path: str, arguments: Sequence[str], shape: str | None, data: str | None, batch: str | None
) -> CustomModel:
    """Parse and validate the options and key=value arguments of a command."""
    from initbench.config.custom_model_config import CustomModelConfig
    from initbench.config.loading import load_overrides
    from initbench.config.overrides import split_arguments

    files, overrides = split_arguments(list(arguments))
    assert not files, "has_config is False"
    data_overrides = [f"data.name={data}"] if data is not None else []
    target = load_overrides([*data_overrides, *overrides], CustomModelConfig)
    if batch is not None:
        _check_batch_file_alone(target, shape)
        return CustomModel(path, None, target, batch_file=batch)
    if shape is None and target.data is None:
        raise UsageError(
            "--model requires --input (the shape of one sample, as in --input 3,32,32), --data NAME or"
            " --batch FILE"
        )
    if shape is None:
        return CustomModel(path, None, target)
    if not shape.startswith(_TOKENS):
        return CustomModel(path, _parse_shape(shape), target)
    if target.data is not None:
        raise UsageError("--input tokens:… cannot be combined with --data")
    vocabulary, *length = _parse_shape(shape.removeprefix(_TOKENS))
    if not length:
        raise UsageError(
            f"--input tokens:VOCAB,T requires both numbers, as in --input tokens:50257,128; got {shape!r}"
        )
    return CustomModel(path, tuple(length), target, vocabulary)


def _check_batch_file_alone(target: CustomModelConfig, shape: str | None) -> None:
    """Raise UsageError for anything else that would determine the samples of a saved batch."""
    others = {
        "--input": shape is not None,
        "--data": target.data is not None,
        "probe.batch": "batch" in target.probe.model_fields_set,
    }
    for option, is_given in others.items():
        if is_given:
            raise UsageError(f"--batch cannot be combined with {option}: the file holds the samples")


def _parse_shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(part) for part in text.split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise UsageError(f"--input takes whole numbers from 1, as in --input 3,32,32; got {text!r}")
    return shape


def _build_modules(factory: ModelFactory, seeds: Sequence[int]) -> Iterator[nn.Module]:
    import torch

    if needed := factory.missing({}):
        names = ", ".join(needed)
        raise UsageError(
            f"--model {factory.path} requires arguments ({names}); name a function without arguments"
        )
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield factory.build({})


def _to_device(module: nn.Module, device: torch.device) -> nn.Module:
    """Move the module to the device, except a meta module, which the probe rejects with a clear message."""
    has_numbers = not any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers()))
    return module.to(device) if has_numbers else module


def _draw_batch(model: CustomModel, source: DataSource) -> tuple[Tensor, Tensor | None, str]:
    """Return x, the labels if any, and a description of them."""
    from initbench.probing.model_inputs import gaussian_batch, token_batch

    samples = model.target.probe.batch
    if model.target.data is None:
        assert model.shape is not None
        if model.vocabulary is not None:
            words = f"tokens below {model.vocabulary}, {_join_with_times(model.shape)}"
            return token_batch(model.vocabulary, model.shape, samples), None, words
        return gaussian_batch(model.shape, samples), None, f"N(0, 1) {_join_with_times(model.shape)}"
    x, y, name = _load_samples(model, source, samples)
    shape = tuple(x.shape[1:])
    if model.shape is not None and model.shape != shape:
        if math.prod(model.shape) != math.prod(shape):
            raise UsageError(
                f"--input {_join_with_commas(model.shape)} does not fit {name},"
                f" whose samples have shape {_join_with_commas(shape)}"
            )
        x = x.reshape(len(x), *model.shape)
    return x, y, f"{name} {_join_with_times(tuple(x.shape[1:]))}"


def _load_samples(model: CustomModel, source: DataSource, samples: int) -> tuple[Tensor, Tensor, str]:
    from initbench.data.locate import resolve_dataset
    from initbench.data.preprocessing import preprocess
    from initbench.train.loop import fixed_sample

    options = model.target.data
    assert options is not None
    if options.resize is None and model.shape is not None and len(model.shape) == 3:
        options = options.model_copy(update={"resize": list(model.shape[1:])})
    bundle = preprocess(resolve_dataset(options, source), options, "cpu")
    batch = fixed_sample(bundle.train, samples)
    return batch.x, batch.y, bundle.name


def _join_with_times(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def _join_with_commas(shape: Sequence[int]) -> str:
    return ",".join(map(str, shape))
