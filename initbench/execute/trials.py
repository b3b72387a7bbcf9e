"""Remedies tried on a user's modules, which are put back afterwards."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from initbench.components.activation import BoundActivation
from initbench.errors import UsageError
from initbench.models.apply import apply_init
from initbench.models.fans import Convolution, Transposed
from initbench.models.init_targets import by_traced_name, init_targets
from initbench.models.initialise import init_options
from initbench.probing.proof import Records, proof
from initbench.probing.wording import init_arguments
from initbench.trace.intact import untouched
from initbench.trace.use import Use

RECURRENT_DRAWS = ("recurrent=1", "recurrent=2", "recurrent=4")
"""Words for draws of recurrent layers: as Keras has them, and with larger input weights."""
SEEDS = 3
"""Draws that a remedy has to cure."""


class ModuleTrials:
    """Tries remedies, in key=value words, on modules whose pass showed `before`; each is probed once."""

    def __init__(
        self,
        modules: Sequence[nn.Module],
        before: Sequence[Records],
        uses: Sequence[Use],
        branch_ends: Sequence[str],
        activation: BoundActivation,
        examined: Callable[[nn.Module], Records],
    ) -> None:
        self._modules, self._before, self._uses = modules, before, uses
        self._branch_ends = branch_ends
        self._activation, self._examined = activation, examined
        self._after: dict[str, list[Records] | None] = {}

    def __call__(self, code: str, words: str) -> str | None:
        """Return the proof that `words` cure the finding; None where they do not, or cannot be tried."""
        if words not in self._after:
            self._after[words] = self._tried(words)
        after = self._after[words]
        return None if after is None else proof(code, self._before, after)

    def _tried(self, words: str) -> list[Records] | None:
        is_drawn = "init." in words or "recurrent=" in words
        nets = []
        try:
            for seed in range(SEEDS if is_drawn else len(self._modules)):
                module = self._modules[seed % len(self._modules)]
                with _restored(module), self._changed(module, words, seed):
                    nets.append(self._examined(module))
        except UsageError:
            return None
        return nets

    @contextmanager
    def _changed(self, module: nn.Module, words: str, seed: int) -> Iterator[None]:
        given = dict(word.split("=", 1) for word in words.split() if "=" in word)
        keys = {key.partition(".")[0] for key in given}
        if (
            not keys <= {"init", "model", "residual", "recurrent"}
            or "model.activation" in given
            or "model.depth" in given
        ):
            raise UsageError("not tried")
        with ExitStack() as stack:
            if "init" in keys:
                init = {k.removeprefix("init."): v for k, v in given.items() if k.startswith("init.")}
                apply_init(module, **init_arguments(init, self._activation), seed=seed)
            if "recurrent" in given:
                _draw_recurrent(module, self._uses, float(given["recurrent"]), seed)
            if "residual" in given:
                _scale_branches(module, self._branch_ends, given["residual"])
            if given.get("model.norm") == "batch":
                self._insert_norms(module, stack)
            yield

    def _insert_norms(self, module: nn.Module, stack: ExitStack) -> None:
        """Let batch norm act on what every hidden layer puts out, before its activation."""
        names = {use.name for use in self._uses if use.activation is not None and use.norm is None}
        layers = dict(module.named_modules())
        for name in names:
            layer = layers.get(name)
            if not isinstance(layer, nn.Linear | Convolution | Transposed):
                raise UsageError("not tried")
            stack.callback(layer.register_forward_hook(_normalised).remove)


def _normalised(layer: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    if not isinstance(layer, nn.Linear):
        return nn.functional.batch_norm(output, None, None, training=True)
    rows = output.reshape(-1, output.shape[-1])
    return nn.functional.batch_norm(rows, None, None, training=True).reshape(output.shape)


@torch.no_grad()
def _scale_branches(module: nn.Module, names: Sequence[str], start: str) -> None:
    """Start the last weight of each residual branch at 0, or at 1/√N of what it has."""
    init = init_options("probe", "normal", {}, None, None)
    targets = by_traced_name(module, init_targets(module, init.scheme))
    for name in names:
        if name not in targets:
            raise UsageError("not tried")
        target = targets[name]
        factor = 0.0 if start == "zero" else 1.0 / math.sqrt(len(names))
        target.write(factor * target.read())
        if target.bias is not None:
            target.bias.mul_(factor)


@torch.no_grad()
def _draw_recurrent(module: nn.Module, uses: Sequence[Use], gain: float, seed: int) -> None:
    """Draw the weights of recurrent layers gate by gate, and set their biases."""
    torch.manual_seed(seed)
    parameters = dict(module.named_parameters())
    for use in uses:
        if not use.is_recurrent:
            continue
        weight = parameters.get(use.parts[0])
        if weight is None or weight.shape != use.factor.shape:
            raise UsageError("not tried")
        gates = {"lstm": 4, "gru": 3}.get(use.operation.removesuffix("_cell"), 1)
        for block in weight.chunk(gates):
            if use.from_state is None:
                nn.init.orthogonal_(block)
            else:
                nn.init.xavier_uniform_(block, gain)
        owner, _, kind = use.parts[0].rpartition("weight_")
        bias = parameters.get(f"{owner}bias_{kind}")
        if bias is not None:
            bias.zero_()
            if gates == 4 and use.from_state is not None:
                bias.chunk(gates)[1].fill_(1.0)


@contextmanager
def _restored(module: nn.Module) -> Iterator[None]:
    """Put everything in the module back at the end, the values of parameters and buffers too."""
    tensors = [*module.parameters(), *module.buffers()]
    values = [tensor.detach().clone() for tensor in tensors]
    try:
        with untouched(module):
            yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, values, strict=True):
                tensor.copy_(value)
