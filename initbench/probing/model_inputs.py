"""Batches: drawn at random, or split into the arguments of a module's forward and labels."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from initbench.errors import UsageError
from initbench.machine import require_memory
from initbench.registry import nearest_name

LABELS = "labels"
"""Key of the labels in a mapping."""
SINGLE = "x"
"""Key of a mapping with a single entry, which is the first argument of forward whatever its name."""
_WAYS = "a tensor (B, …), a tuple or a mapping of forward's arguments, or a pair of one of these and labels"


@dataclass(frozen=True)
class ModelInputs:
    """One batch as the arguments of a module's forward."""

    positional: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    """Names of the positional arguments, as far as known."""
    source: str = ""
    """Name of the file that the batch was read from, for error messages."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors by the name of their argument, or by its position from 1."""
        unnamed = range(len(self.names) + 1, len(self.positional) + 1)
        names = (*self.names, *map(str, unnamed))
        return dict(_tensors({**dict(zip(names, self.positional, strict=False)), **self.keywords}))

    @property
    def main(self) -> Tensor:
        """Tensor (B, …) that defines the batch size: the first with two axes, else one of integers (B,).

        Raises:
            UsageError: If there is none, or if it has fewer than two samples.
        """
        tensors = list(self.tensors.values())
        ids = [x for x in tensors if x.ndim == 1 and not x.is_floating_point()]
        batches = [x for x in tensors if x.ndim > 1] or ids
        if not batches or len(batches[0]) < 2:
            holds = self.shapes or "none"
            raise UsageError(
                f"{self._subject} must contain a tensor (B, …) of at least two samples; found {holds}"
            )
        return batches[0]

    @property
    def shapes(self) -> str:
        """All tensors with shapes and the ranges of integers, such as `input_ids (8, 12) from 0 to 49`."""
        return ", ".join(f"{name} {_described(x)}" for name, x in self.tensors.items())

    @property
    def words(self) -> str:
        """Shapes of one sample, such as `3×32×32` or `input_ids 12, attention_mask 12`."""
        tensors = self.tensors
        shapes = {name: "×".join(map(str, x.shape[1:])) or "1" for name, x in tensors.items() if x.ndim}
        if len(tensors) == 1:
            return next(iter(shapes.values()), "1")
        return ", ".join(f"{name} {shape}" for name, shape in shapes.items())

    @property
    def subject(self) -> str:
        """Description of the batch for error messages, with its shapes."""
        tensors = list(self.tensors.values())
        if len(tensors) == 1 and not self.source:
            return f"a batch of shape {tuple(tensors[0].shape)}"
        return f"{self._subject}, {self.shapes}"

    @property
    def prefix(self) -> str:
        """Prefix of error messages about a batch from a file; empty for other batches."""
        return f"--batch {self.source}: " if self.source else ""

    @property
    def _subject(self) -> str:
        return f"--batch {self.source}" if self.source else "the batch"

    def mapped(self, change: Callable[[Tensor], Tensor]) -> ModelInputs:
        """Return the inputs with every tensor changed."""
        keywords = {name: _mapped(value, change) for name, value in self.keywords.items()}
        return replace(self, positional=_mapped(self.positional, change), keywords=keywords)

    def call(self, function: Callable[..., Any]) -> Any:
        """Call a function with the arguments."""
        return function(*self.positional, **self.keywords)


def as_inputs(batch: Tensor | ModelInputs) -> ModelInputs:
    """Return a tensor as the only argument, and inputs as they are."""
    return batch if isinstance(batch, ModelInputs) else ModelInputs((batch,))


@dataclass(frozen=True)
class ForwardSignature:
    """Arguments of a module's forward."""

    owner: str
    names: tuple[str, ...]
    """Arguments that can be passed by name, in order."""
    positional: int
    """Number of them that can be passed by position."""
    required: tuple[str, ...]
    any_positional: bool
    any_keyword: bool

    @property
    def required_positional(self) -> int:
        """Number of required arguments that can be passed by position."""
        return sum(name in self.required for name in self.names[: self.positional])

    def takes(self, count: int) -> bool:
        """Whether `count` arguments can be passed by position."""
        return self.any_positional or count <= self.positional

    def check_keywords(self, keys: Sequence[str], subject: str) -> None:
        """Raise UsageError for a key that forward does not take, or for a missing argument."""
        for key in keys:
            if key not in self.names and not self.any_keyword:
                guess = nearest_name(key, self.names)
                hint = f"; did you mean {guess!r}?" if guess else ""
                raise UsageError(
                    f"{subject}: forward of {self.owner} takes no argument {key!r}: it takes"
                    f" {', '.join(self.names)}; labels have the key {LABELS!r}{hint}"
                )
        missing = [name for name in self.required if name not in keys]
        if missing:
            raise UsageError(
                f"{subject}: forward of {self.owner} needs {', '.join(map(repr, missing))}; the batch holds"
                f" {', '.join(map(repr, keys)) or 'nothing for it'}"
            )


def forward_signature(module: nn.Module) -> ForwardSignature:
    """Return the signature of the module's forward; any arguments if it cannot be inspected."""
    owner = type(module).__name__
    try:
        parameters = list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):
        return ForwardSignature(owner, (), 0, (), any_positional=True, any_keyword=True)
    kinds = inspect.Parameter
    by_position = [p for p in parameters if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    by_name = [p for p in parameters if p.kind is kinds.KEYWORD_ONLY]
    return ForwardSignature(
        owner=owner,
        names=tuple(p.name for p in (*by_position, *by_name)),
        positional=len(by_position),
        required=tuple(p.name for p in (*by_position, *by_name) if p.default is p.empty),
        any_positional=any(p.kind is kinds.VAR_POSITIONAL for p in parameters),
        any_keyword=any(p.kind is kinds.VAR_KEYWORD for p in parameters),
    )


def unwrap_module(module: nn.Module) -> nn.Module:
    """Return the module inside of wrappers for compilation and parallelism, which cannot be traced."""
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        module = module.module
    return getattr(module, "_orig_mod", module)


def split_batch(batch: Any, module: nn.Module, *, source: str = "") -> tuple[ModelInputs, Tensor | None]:
    """Return the arguments of the module's forward in `batch`, and its labels.

    A mapping is the keyword arguments, without the entry `labels`, which forward gets only where it requires
    it. A tuple or list is the positional arguments, and one more entry than forward takes are the labels.
    A pair is (inputs, labels) where forward requires fewer than two arguments: inputs are a tensor, a tuple
    or a mapping.

    Args:
        batch: Tensors or NumPy arrays.
        module: The module whose forward is going to be called.
        source: Name of the file the batch was read from. In a file a pair is two arguments wherever forward
            can take two, and labels where it takes one.

    Raises:
        UsageError: If forward does not take these arguments.
    """
    signature = forward_signature(unwrap_module(module))
    subject = f"--batch {source}" if source else "the batch"
    batch, labels = _labels_apart(_as_tensors(batch), signature, is_file=bool(source))
    if isinstance(batch, Mapping):
        inputs = _keyword_inputs(batch, signature, subject, source)
        labels = batch.get(LABELS) if labels is None else labels
    elif isinstance(batch, tuple):
        inputs = _positional_inputs(batch, signature, subject, source)
    elif isinstance(batch, Tensor):
        inputs = _positional_inputs((batch,), signature, subject, source)
    else:
        raise UsageError(f"{subject} must be {_WAYS}; found {type(batch).__name__}")
    if labels is not None and not isinstance(labels, Tensor):
        raise UsageError(f"{subject}: {LABELS} must be a tensor (B, …); found {type(labels).__name__}")
    samples = len(inputs.main)
    if source and labels is not None and (not labels.ndim or len(labels) != samples):
        raise UsageError(
            f"{subject}: {LABELS} has the shape {tuple(labels.shape)}, for {samples} samples; the batch holds"
            f" {inputs.shapes}"
        )
    return inputs, labels


def _labels_apart(batch: Any, signature: ForwardSignature, *, is_file: bool) -> tuple[Any, Any]:
    """Return the inputs, and the labels if a tuple contains them."""
    if not isinstance(batch, tuple) or len(batch) < 2:
        return batch, None
    *inputs, last = batch
    is_nested = isinstance(inputs[0], tuple | Mapping)
    if len(batch) == 2:
        is_two_arguments = signature.takes(2) if is_file else signature.required_positional > 1
        return (batch, None) if is_two_arguments and not is_nested else (inputs[0], last)
    is_one_more = not signature.any_positional and len(inputs) == signature.positional
    return (tuple(inputs), last) if is_one_more else (batch, None)


def _positional_inputs(
    batch: tuple[Any, ...], signature: ForwardSignature, subject: str, source: str
) -> ModelInputs:
    if not batch or not signature.takes(len(batch)) or len(batch) < signature.required_positional:
        entries = "1 entry" if len(batch) == 1 else f"{len(batch)} entries"
        raise UsageError(
            f"{subject} has {entries}, and forward of {signature.owner} takes"
            f" {', '.join(signature.names) or 'no argument'}: give {_WAYS}"
        )
    return ModelInputs(batch, names=signature.names[: signature.positional], source=source)


def _keyword_inputs(
    batch: Mapping[Any, Any], signature: ForwardSignature, subject: str, source: str
) -> ModelInputs:
    odd = next((key for key in batch if not isinstance(key, str)), None)
    if odd is not None:
        raise UsageError(f"{subject}: keys are the names of forward's arguments; found {odd!r}")
    keys = [key for key in batch if key != LABELS or LABELS in signature.required]
    is_single = [key for key in batch if key != LABELS] == [SINGLE] and SINGLE not in signature.names
    if is_single and signature.takes(1) and not signature.any_keyword:
        return ModelInputs((batch[SINGLE],), names=(SINGLE,), source=source)
    signature.check_keywords(keys, subject)
    order = {name: position for position, name in enumerate(signature.names)}
    keys.sort(key=lambda key: order.get(key, len(order)))  # files may store them in alphabetical order
    return ModelInputs((), {key: batch[key] for key in keys}, source=source)


def _as_tensors(value: Any) -> Any:
    """Return NumPy arrays as tensors and lists as tuples, also inside of containers."""
    if isinstance(value, np.ndarray):
        try:
            return torch.from_numpy(value)
        except TypeError:
            raise UsageError(f"a batch must contain numbers; found an array of {value.dtype}") from None
    if isinstance(value, Mapping):
        return {key: _as_tensors(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return tuple(_as_tensors(entry) for entry in value)
    return value


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _mapped(entry, change) for key, entry in value.items()}
    if isinstance(value, tuple):
        return tuple(_mapped(entry, change) for entry in value)
    return value


def _tensors(values: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    for name, value in values.items():
        if isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, Mapping):
            yield from _tensors({f"{name}.{key}": entry for key, entry in value.items()})
        elif isinstance(value, tuple):
            yield from _tensors({f"{name}.{i}": entry for i, entry in enumerate(value, 1)})


def _described(x: Tensor) -> str:
    shape = str(tuple(x.shape))
    if x.is_floating_point() or x.is_complex() or not x.numel() or x.is_meta:
        return shape
    if x.dtype is torch.bool:
        return f"{shape} of bool"
    return f"{shape} of {str(x.dtype).removeprefix('torch.')} from {int(x.min())} to {int(x.max())}"


def gaussian_batch(shape: Sequence[int], samples: int, seed: int = 0) -> Tensor:
    """Return N(0, 1) noise (samples, *shape), the same for every call with the same seed."""
    size = " × ".join(f"{axis:,}" for axis in (samples, *shape))
    require_memory(
        4.0 * math.prod((samples, *shape)), f"a batch of {size} values", "lower --input or probe.batch"
    )
    stream = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(samples, *shape, generator=stream, dtype=torch.float32, device="cpu")


def token_batch(vocabulary: int, shape: Sequence[int], samples: int, seed: int = 0) -> Tensor:
    """Return uniform token ids (samples, *shape), the same for every call with the same seed."""
    values = math.prod((samples, *shape))
    require_memory(8.0 * values, f"a batch of {values:,} token ids", "lower --input or probe.batch")
    stream = torch.Generator("cpu").manual_seed(seed)
    return torch.randint(vocabulary, (samples, *shape), generator=stream, device="cpu")
