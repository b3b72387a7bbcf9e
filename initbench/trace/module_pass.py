"""A pass through a module with a tracer, on tensors that replace its parameters and buffers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from initbench.trace.preserve_state import preserve_state
from initbench.trace.recomputation import without_recomputation
from initbench.trace.tracer import Tracer
from initbench.trace.weight_use import RecurrentLayer, ResidualAddition, TraceResult, WeightUse

_Result = TypeVar("_Result")


class SilentObserver:
    """Observer that ignores all tensors, as a base class."""

    def layer_input(self, use: WeightUse, x: Tensor) -> None:
        """Ignore the input of a weight."""

    def residual_sum(self, addition: ResidualAddition, output: Tensor) -> None:
        """Ignore the sum of a residual branch and its skip connection."""

    def without_norm(self, use: WeightUse) -> None:
        """Ignore that a use has no norm."""

    def pre_activation(self, use: WeightUse, output: Tensor) -> None:
        """Ignore the output of a weight."""

    def step(self, layer: RecurrentLayer, step: Any) -> None:
        """Ignore a step of a recurrent layer."""

    def activation(self, use: WeightUse, activation_input: Tensor | None, activation_output: Tensor) -> None:
        """Ignore the input and the output of an activation."""


def trace_pass(
    module: nn.Module, x: Tensor, observer: SilentObserver | None = None
) -> tuple[Any, TraceResult]:
    """Pass a batch x (B, …) through a module in its current mode, and return its result and the trace.

    With gradients enabled, the result depends on copies of the parameters.

    The module and the random states are preserved. Exceptions of the module propagate.
    """
    parameters = {name: copy_parameter(p) for name, p in module.named_parameters()}
    buffers = {name: b.detach().clone() for name, b in module.named_buffers()}
    tracer = Tracer({id(p): name for name, p in parameters.items()}, observer or SilentObserver())
    x = x.detach().clone()

    def run() -> tuple[Any, TraceResult]:
        with track_modules(module, tracer), tracer, without_recomputation():
            returned = module(x)
        outputs = [returned] if isinstance(returned, Tensor) else []
        return returned, tracer.finish(parameters, outputs)

    with preserve_state(module):
        tracer.start([x], len(x), [*buffers.values(), *tensor_attributes(module)])
        return with_state(module, {**parameters, **buffers}, run)


def copy_parameter(parameter: Tensor) -> Tensor:
    """Return a copy as a parameter, because containers such as ParameterList wrap other tensors again."""
    return nn.Parameter(parameter.detach().clone(), requires_grad=parameter.is_floating_point())


def with_state(module: nn.Module, state: dict[str, Tensor], run: Callable[[], _Result]) -> _Result:
    """Run a function while the module has the parameters and buffers of `state`.

    The function must include the backward pass, because custom checkpointing calls the module again in it.
    """
    holder = _Holder(module, run)
    return functional_call(holder, {f"module.{name}": tensor for name, tensor in state.items()}, ())  # type: ignore[no-any-return]


class _Holder(nn.Module):
    def __init__(self, module: nn.Module, run: Callable[[], Any]) -> None:
        super().__init__()
        self.module, self._run = module, run

    def forward(self) -> Any:
        return self._run()


@contextmanager
def track_modules(module: nn.Module, tracer: Tracer) -> Iterator[None]:
    """Inform the tracer about the beginning and the end of each submodule."""
    with ExitStack() as stack:
        for name, submodule in module.named_modules():
            if isinstance(submodule, torch.jit.ScriptModule):
                continue
            entry_hook = submodule.register_forward_pre_hook(_entering(tracer, name))
            exit_hook = submodule.register_forward_hook(tracer.leave_module)
            stack.callback(entry_hook.remove)
            stack.callback(exit_hook.remove)
        yield


def _entering(tracer: Tracer, name: str) -> Callable[[nn.Module, Any], None]:
    def hook(_module: nn.Module, _inputs: Any) -> None:
        tracer.enter_module(name)

    return hook


def tensor_attributes(module: nn.Module) -> Iterator[Tensor]:
    """Yield the tensors of submodules other than parameters and buffers, also in lists and dicts."""
    for submodule in module.modules():
        for value in vars(submodule).values():
            items = value.values() if isinstance(value, dict) else value
            yield from (
                item
                for item in (list(items) if isinstance(value, dict | list | tuple) else [value])
                if isinstance(item, Tensor) and not isinstance(item, nn.Parameter)
            )
