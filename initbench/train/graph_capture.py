"""Functions of tensors whose operations are recorded once and replayed in fixed memory, as CUDA graphs are.

In a step of a narrow net, most of the time is spent between the kernels: on modules, vmap, autograd, views
and memory. A replay calls the same kernels of torch with the same arguments, and nothing else. Memory is
reused as soon as no later operation reads it. On a GPU, the calls become one CUDA graph where they can.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

MAX_BYTES = 1 << 28
"""Maximum size of the results of all operations on the CPU. Larger functions spend their time in the kernels.
On a GPU it is a fourth of the free memory, since starting kernels costs time there."""
_COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.clone.default)
_RESIZING = tuple(
    getattr(torch.ops.aten, name).default
    for name in ("mse_loss", "huber_loss", "smooth_l1_loss", "binary_cross_entropy")
)
"""Losses whose variant for given memory first resizes it to one loss per sample, and warns about that."""
_UNDECLARED_WRITES = dict.fromkeys(
    (torch.ops.aten.native_batch_norm.default, torch.ops.aten.cudnn_batch_norm.default), (3, 4)
)
"""Positions of arguments that an operation overwrites although its schema does not say so."""
R = TypeVar("R")
_UNREPEATABLE = (
    torch.Tag.nondeterministic_seeded,
    torch.Tag.data_dependent_output,
    torch.Tag.dynamic_output_shape,
)
"""Tags of operations that draw numbers, return a value to Python, or have a result of variable shape."""


class GraphCapture(Generic[R]):
    """The operations of a function, which are recorded at its first call and replayed by the next ones.

    The function must consist of operations of torch, the same ones in each call. It may read other tensors
    and write to them; they must stay the same objects. If it cannot be replayed, for example because it draws
    random numbers, it is called every time; so it is for inputs of other shapes than those of the first call.

    The function is not kept, so that an object can capture its own methods and is still freed at once.
    """

    def __init__(self) -> None:
        self._replay: _Replay[R] | None = None
        self._form: tuple[object, ...] | None = None

    def call(self, function: Callable[..., R], *inputs: Tensor) -> R:
        """Return the results of the function for these inputs. They are overwritten by the next replay.

        Args:
            function: Takes tensors and returns a tensor, or a tuple, list or dict of tensors. It must be the
                same in all calls.
            inputs: Its arguments.
        """
        form = tuple((x.shape, x.dtype) for x in inputs)
        if self._form is None:
            self._form = form
            result, self._replay = _capture(function, inputs)
            return result
        if self._replay is None or form != self._form:
            return function(*inputs)
        return self._replay(*inputs)

    @property
    def replays(self) -> bool:
        """Whether calls with inputs of the first shapes are replayed."""
        return self._replay is not None


class _Operation:
    """An operation of torch with its arguments and results."""

    def __init__(
        self, operator: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any
    ) -> None:
        self.operator, self.args, self.kwargs = operator, args, kwargs
        self.results = _tensors(result)
        self.arguments = _tensors((args, kwargs))


class _OperationRecorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the operations of a block, with the values that it overwrites in tensors from outside."""

    def __init__(self, max_bytes: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._max_bytes = max_bytes
        self.calls: list[_Operation] = []
        self.created: dict[int, int] = {}
        """Memory of the results: its key → the position of the call that returned it."""
        self.overwritten: list[tuple[Tensor, Tensor]] = []
        """Tensors from outside that were written to, with their values before."""
        self.is_repeatable = True
        self._bytes = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False, since torch would import its compiler to skip it, which takes a second."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Execute and record an operation."""
        kwargs = kwargs or {}
        if self.is_repeatable:
            self._save_overwritten(func, args)
        result = func(*args, **kwargs)
        if self.is_repeatable:
            self._record(_Operation(func, args, kwargs, result))
        return result

    def _save_overwritten(self, operator: OpOverload, args: Sequence[Any]) -> None:
        undeclared = _UNDECLARED_WRITES.get(operator, ())
        if not (operator._schema.is_mutable or undeclared):
            return
        saved = {_memory(tensor) for tensor, _ in self.overwritten}
        for index, (argument, value) in enumerate(zip(operator._schema.arguments, args, strict=False)):
            is_declared = argument.alias_info is not None and argument.alias_info.is_write
            if is_declared or index in undeclared:
                self.overwritten += [
                    (tensor.detach(), tensor.detach().clone())
                    for tensor in _tensors(value)
                    if _memory(tensor) not in self.created and _memory(tensor) not in saved
                ]

    def _record(self, call: _Operation) -> None:
        for tensor in call.results:
            memory = _memory(tensor)
            if memory not in self.created and memory not in map(_memory, call.arguments):
                self.created[memory] = len(self.calls)
                self._bytes += tensor.untyped_storage().nbytes()
        self.calls.append(call)
        if self._bytes > self._max_bytes or any(tag in call.operator.tags for tag in _UNREPEATABLE):
            self.is_repeatable = False
            self.calls.clear()  # which frees the memory of the results


class _Replay(Generic[R]):
    """The recorded operations in memory of their own, as functions without arguments."""

    def __init__(self, recorder: _OperationRecorder, inputs: Sequence[Tensor], result: R) -> None:
        self._inputs = inputs
        moved = _assign_memory(recorder, _tensors(result))
        self._operations: list[Callable[[], object]] = []
        for index, call in enumerate(recorder.calls):
            args, kwargs = tree_map_only(Tensor, moved, (call.args, call.kwargs))
            if call.operator._schema.is_mutable:
                self._operations.append(partial(call.operator, *args, **kwargs))
            elif any(recorder.created.get(_memory(tensor)) == index for tensor in call.results):
                into = [moved(tensor) for tensor in call.results]
                self._operations.append(_in_place(call.operator, args, kwargs, into))
            # All other operations return views, which are fixed as their memory is.
        self._result: R = tree_map_only(Tensor, moved, result)

    def become_cuda_graph(self) -> None:
        """Replace the operations by one CUDA graph of them, unless CUDA cannot capture one of them."""
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.no_grad(), torch.cuda.graph(graph):
                for operation in self._operations:
                    operation()
        except RuntimeError:  # for example of a copy from memory of the CPU
            return
        self._operations = [graph.replay]

    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> R:
        """Execute the operations for these inputs, and return the results."""
        for fixed, x in zip(self._inputs, inputs, strict=True):
            fixed.copy_(x)
        for operation in self._operations:
            operation()
        return self._result


def _capture(function: Callable[..., R], inputs: Sequence[Tensor]) -> tuple[R, _Replay[R] | None]:
    """Call a function, and return its results and a replay; None if a replay would give other results."""
    fixed = [x.clone() for x in inputs]
    device = next((x.device for x in inputs), torch.device("cpu"))
    on_gpu = device.type == "cuda"
    with _OperationRecorder(torch.cuda.mem_get_info(device)[0] / 4 if on_gpu else MAX_BYTES) as recorder:
        result = function(*fixed)
    if not recorder.is_repeatable:
        return result, None
    replay = _Replay(recorder, fixed, result)
    if on_gpu:
        replay.become_cuda_graph()
    written = [tensor for tensor, _ in recorder.overwritten]
    after = [tensor.clone() for tensor in written]
    with torch.no_grad():
        for tensor, old_value in recorder.overwritten:
            tensor.copy_(old_value)
        replayed = [*_tensors(replay(*inputs)), *written]
        agrees = all(map(_same_values, replayed, [*_tensors(result), *after]))
        for tensor, value in zip(written, after, strict=True):
            tensor.copy_(value)
    return result, replay if agrees else None


def _assign_memory(recorder: _OperationRecorder, results: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
    """Return a function from a recorded tensor to the tensor of the replay that takes its place.

    Memory of results is reused for later results of the same size after the last operation that reads it.
    """
    last_use = {_memory(tensor): i for i, call in enumerate(recorder.calls) for tensor in call.arguments}
    last_use |= {_memory(tensor): len(recorder.calls) for tensor in results}
    sizes: dict[int, tuple[int, torch.device]] = {}
    starting, ending = defaultdict(list), defaultdict(list)
    for call in recorder.calls:
        for tensor in call.results:
            sizes[_memory(tensor)] = (tensor.untyped_storage().nbytes(), tensor.device)
    for memory, start in recorder.created.items():
        starting[start].append(memory)
        ending[last_use.get(memory, start)].append(memory)
    blocks: dict[int, torch.UntypedStorage] = {}
    free: dict[tuple[int, torch.device], list[torch.UntypedStorage]] = defaultdict(list)
    for index in range(len(recorder.calls)):
        for memory in starting[index]:
            size, device = sizes[memory]
            unused = free[size, device]
            blocks[memory] = unused.pop() if unused else _new_storage(size, device)
        for memory in ending[index]:
            free[sizes[memory]].append(blocks[memory])

    def moved(tensor: Tensor) -> Tensor:
        """Return the tensor of the replay."""
        block = blocks.get(_memory(tensor))
        if block is None:
            return tensor.detach()
        view = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        return view.set_(block, tensor.storage_offset(), tensor.size(), tensor.stride())

    return moved


def _new_storage(size: int, device: torch.device) -> torch.UntypedStorage:
    return torch.empty(size, dtype=torch.uint8, device=device).untyped_storage()


def _in_place(
    operator: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any], into: Sequence[Tensor]
) -> Callable[[], object]:
    """Return an operation that writes its results into given tensors."""
    if operator in _COPIES:
        return partial(into[0].copy_, args[0])
    variant, names = _out_variant(operator)
    if variant is not None and len(names) == len(into):  # a backward pass omits gradients that are not needed
        return partial(variant, *args, **kwargs, **dict(zip(names, into, strict=True)))

    def compute_and_copy() -> None:
        for target, value in zip(into, _tensors(operator(*args, **kwargs)), strict=True):
            target.copy_(value)

    return compute_and_copy


@cache
def _out_variant(operator: OpOverload) -> tuple[OpOverload | None, tuple[str, ...]]:
    """Return the overload of an operator that writes into given tensors, and the names of these arguments."""
    if operator in _RESIZING:
        return None, ()
    declared = [(a.name, str(a.type)) for a in operator._schema.arguments]
    packet = operator.overloadpacket
    for overload in (getattr(packet, name) for name in packet.overloads()):
        arguments = overload._schema.arguments
        outputs = tuple(a.name for a in arguments if a.is_out)
        if len(outputs) == len(operator._schema.returns) and declared == [
            (a.name, str(a.type)) for a in arguments if not a.is_out
        ]:
            return overload, outputs
    return None, ()


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def _memory(tensor: Tensor) -> int:
    """Return a key of the memory of a tensor, which its views share."""
    return int(tensor.untyped_storage()._cdata)


def _same_values(a: Tensor, b: Tensor) -> bool:
    return bool(((a == b) | (a.isnan() & b.isnan())).all())
