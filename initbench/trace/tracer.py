"""Follow one pass through any nn.Module by intercepting every call of a torch function."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from initbench.components.activations.channel_mixing import CReLU, Maxout
from initbench.trace import torch_ops
from initbench.trace.matmul import WeightMatmul, elementwise_product, find_weight_matmul
from initbench.trace.provenance import INPUT, Provenance, TensorOrigin, merge_origins, state_origin
from initbench.trace.recurrent import CELLS, LAYERS, CellWeights, Step, is_bidirectional, run_cell, run_layers
from initbench.trace.rewriting import REWRITTEN, rewrite_product
from initbench.trace.tensors import is_matrix, is_wrapped, tensors_in, varies_between_samples
from initbench.trace.torch_ops import Arguments, NamedActivation
from initbench.trace.weight_use import (
    UNUSED,
    RecurrentLayer,
    ResidualAddition,
    TraceObserver,
    TraceResult,
    WeightUse,
    in_order,
    mean_squares,
    pair_directions,
)

_OPENED = frozenset({"multi_head_attention_forward"})
"""Functions written in Python that multiply by weights internally."""
_IGNORED = frozenset({"shape", "dtype", "device", "is_cuda", "requires_grad", "size", "dim", "numel", "ndim"})
_LOOK_UPS = frozenset({"embedding", "embedding_bag"})
_CONVERSIONS = frozenset({"from_numpy", "as_tensor", "tensor", "asarray", "frombuffer"})
"""Functions that create tensors from data, which may depend on the input outside of torch."""

TracedArguments = list[tuple[Tensor, TensorOrigin]]
"""Arguments of a function that depend on the net's input, with their origins."""


class Tracer(TorchFunctionMode):
    """Torch function mode that finds the uses of weights and passes their outputs to an observer.

    Args:
        names: Qualified names of the parameters, by the `id` of the tensors that the pass uses for them.
        observer: Receiver of the tensors.
    """

    def __init__(self, names: dict[int, str], observer: TraceObserver) -> None:
        super().__init__()
        self._found = TraceResult()
        self._observer = observer
        self._provenance = Provenance(names)
        self._modules: list[tuple[str, int]] = []
        self._times: dict[str, int] = {}
        self._seen: set[str] = set()
        self._looked_up: set[str] = set()
        self._bare_outputs: set[int] = set()
        """Values of `id` of weight outputs that no norm follows."""
        self._recurrent_layers: dict[tuple[int, int], RecurrentLayer] = {}
        self._samples = 0

    def start(self, inputs: Iterable[Tensor], samples: int, constants: Iterable[Tensor] = ()) -> None:
        """Register the inputs of the net, and the constants that it holds in addition to its parameters."""
        self._samples = samples
        for x in inputs:
            self._provenance.record(x, INPUT)
        self._provenance.record_constants(constants)

    def finish(self, parameters: dict[str, Tensor], outputs: Iterable[Tensor] = ()) -> TraceResult:
        """Return the result of the trace, with a reason for every parameter matrix without a use.

        Args:
            parameters: The parameters of the net by name.
            outputs: The outputs of the net, the main one first.
        """
        for output in outputs:
            self._recover([output])
            origin = self._provenance.origin(output)
            if origin is not None:
                ordered = in_order(origin.frontier)
                self._found.heads += [use for use in ordered if use not in self._found.heads]
        for name, parameter in parameters.items():
            if parameter.ndim < 2:  # no matrix, though it may have been added to one
                self._found.unseen.pop(name, None)
            elif name not in self._seen:
                self._found.unseen.setdefault(name, UNUSED)
        for use in self._found.uses:
            use.looked_up = any(part in self._looked_up for part in use.parts)
        self._found.seen_parameters = sorted({part for use in self._found.uses for part in use.parts})
        self._found.looked_up = sorted(self._looked_up)
        for part in self._found.seen_parameters:
            self._found.unseen.pop(part, None)
        return self._found

    def enter_module(self, name: str) -> None:
        """Register that the submodule `name` begins."""
        self._modules.append((name, len(self._found.uses)))

    def leave_module(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Register that a submodule has ended, which may be a custom norm or activation."""
        _, uses_before = self._modules.pop()
        x = inputs[0] if len(inputs) == 1 else None
        mixes_channels = isinstance(module, CReLU | Maxout)
        if not isinstance(x, Tensor) or not isinstance(output, Tensor):
            return
        if x.shape != output.shape and not mixes_channels:
            return
        origin, kind = self._provenance.origin(x), torch_ops.norm_module(type(module).__name__)
        if (
            x is output
            or _comes_with_torch(module)
            or origin is None
            or origin.use is None
            or origin.activated
        ):
            return
        if len(self._found.uses) > uses_before:
            return
        if kind is not None:
            if not self._is_output_of(origin.use, output):  # as the result of a function such as layer_norm
                self._norm(kind, origin, output)
        elif _is_bare(module) and not self._is_known(origin.use, output):
            self._set_activation(origin, NamedActivation(type(module).__name__), x.detach(), output)

    def _is_output_of(self, use: WeightUse, output: Tensor) -> bool:
        """Whether a tensor is recorded as the output of a use, before its activation."""
        origin = self._provenance.origin(output)
        return origin is not None and origin.use is use and origin.straight and not origin.activated

    def _is_known(self, use: WeightUse, output: Tensor) -> bool:
        """Whether the output is already recognised as an activation of the catalogue."""
        origin, activation = self._provenance.origin(output), use.activation
        return (
            origin is not None
            and origin.activated
            and activation is not None
            and activation.bound is not None
        )

    def __torch_function__(
        self, func: Callable[..., Any], _types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call `func` and record the origin of its result."""
        keywords = kwargs or {}
        name = torch_ops.plain_name(func)
        if name in _OPENED and isinstance(func, types.FunctionType):
            with self:
                return _without_dispatch(func)(*args, **keywords)
        arguments = torch_ops.call_arguments(args, keywords)
        if name in REWRITTEN:
            self._recover(tensors_in(arguments.values()))
            several = rewrite_product(name, arguments, self._provenance)
            if several is not None:
                with self:
                    return several()
        if name in LAYERS or name in CELLS:
            return self._recurrent(name, arguments)
        if name in _LOOK_UPS:
            self._check_rows(arguments)
        activation_input = None if name in _IGNORED else self._copy_activation_input(name, arguments)
        result = func(*args, **keywords)
        if name not in _IGNORED:
            self._record_call(name, arguments, result, activation_input)
        return result

    def _check_rows(self, arguments: Arguments) -> None:
        """Raise IndexError for indices outside of an embedding, which would leave a GPU in a broken state."""
        rows, table = arguments.get(0), arguments.get(1)
        if not isinstance(rows, Tensor) or not isinstance(table, Tensor) or not rows.numel():
            return
        if rows.is_floating_point():  # torch.embedding takes the table first
            rows, table = table, rows
        if is_wrapped(rows) or not rows.numel() or rows.is_floating_point():  # torch refuses such rows
            return
        low, high = int(rows.min()), int(rows.max())
        if low < 0 or high >= len(table):
            name = self._layer_name(self._provenance.parameters_of(table))
            raise IndexError(
                f"{name} has the rows 0 to {len(table) - 1}, and the batch asks for {low} to {high}"
            )

    def _recurrent(self, name: str, arguments: Arguments) -> Any:
        """Compute a recurrent layer, or one step of it, step by step."""
        self._recover(tensors_in(arguments.values()))
        layers: list[RecurrentLayer] = []  # of this call, in order
        goes_both_ways = name in LAYERS and is_bidirectional(arguments)

        def on_step(weights: CellWeights, x: Tensor, step: Step) -> None:
            """Observe one step of a recurrent layer."""
            layer = self._recurrent_layer(name, weights, x, step, layers)
            if layer not in layers:
                layers.append(layer)
                if goes_both_ways and len(layers) % 2 == 0:
                    pair_directions(*layers[-2:])
            self._observer.step(layer, step)
            for state in (step.state, step.emitted):
                if state is not None:
                    self._provenance.record(state, state_origin([layer]))

        run = run_cell if name in CELLS else run_layers
        result = run(CELLS.get(name, name), arguments, on_step)
        last = layers[-2:] if goes_both_ways else layers[-1:]
        for output in tensors_in([result]):
            self._provenance.record(output, state_origin(last))
        return result

    def _recurrent_layer(
        self, name: str, weights: CellWeights, x: Tensor, step: Step, layers: list[RecurrentLayer]
    ) -> RecurrentLayer:
        """Return the layer of these weights: for a cell over all calls, for a sequence within one call."""
        key = (id(weights.from_input), id(weights.from_state))
        layer = self._recurrent_layers.get(key)
        if layer is not None and (name in CELLS or layer in layers):
            return layer
        self._recover([x])
        uses = []
        for factor, bias, traced_input, output in (
            (weights.from_input, weights.input_bias, x, step.from_input),
            (weights.from_state, weights.state_bias, None, step.from_state),
        ):
            fan_out, fan_in = map(float, factor.shape)
            entering = x if traced_input is None else traced_input
            parts = self._provenance.parameters_of(factor)
            m = WeightMatmul(entering, factor, bias, fan_in, fan_out, -1, parts)
            uses.append(
                self._new_use(
                    name, m, output, self._provenance.origin(traced_input) or merge_origins([INPUT])
                )
            )
        for tensor in vars(weights).values():
            self._seen.update(self._provenance.parameters_of(tensor))
        if weights.projection is not None:
            uses[1].parts += self._provenance.parameters_of(weights.projection)
        uses[0].feeds, uses[0].from_state = True, uses[1]
        uses[1].activation = NamedActivation(
            f"{CELLS.get(name, name).removesuffix('_tanh').removesuffix('_relu')} gates"
        )
        layer = RecurrentLayer(*uses)
        self._recurrent_layers[key] = layer
        return layer

    def _copy_activation_input(self, name: str, arguments: Arguments) -> Tensor | None:
        """Return a copy of an activation's input, which it may overwrite; None for other functions."""
        origin = self._provenance.origin(arguments.get(0))
        if origin is None or origin.use is None or torch_ops.activation_of_call(name, arguments) is None:
            return None
        return arguments[0].detach().clone()  # type: ignore[no-any-return]

    def _record_call(
        self, name: str, arguments: Arguments, result: Any, activation_input: Tensor | None
    ) -> None:
        inputs, outputs = list(tensors_in(arguments.values())), list(tensors_in([result]))
        if any(is_wrapped(x) for x in (*inputs, *outputs)):
            self._record_unseen(
                name, inputs, "it is used within torch.vmap or torch.func, which cannot be looked into"
            )
            return
        self._recover(inputs)
        traced = [(x, origin) for x in inputs if (origin := self._provenance.origin(x)) is not None]
        if name in torch_ops.FACTORIES:
            self._provenance.record_constants(outputs)
            return
        if not traced:
            if inputs or name not in _CONVERSIONS:
                self._provenance.propagate(inputs, outputs)
            return
        if name == "__setitem__":
            outputs = inputs[:1]
        multiplied = find_weight_matmul(name, arguments, self._provenance)
        if multiplied is not None:
            self._record_use(name, multiplied, outputs[0])
            return
        self._record_unseen(name, inputs)
        for output in outputs:
            self._record_result(name, arguments, traced, output, activation_input)
        if name in torch_ops.SCALINGS and len(traced) == 1 and len(inputs) == 2:
            self._await_sum(traced[0][0], inputs, outputs[0])

    def _recover(self, tensors: Iterable[Tensor]) -> None:
        """Find the origins of tensors that functions returned which were not traced."""
        for x in tensors:
            if not self._provenance.is_known(x) and not is_wrapped(x):
                self._provenance.recover(x, self._samples)

    def _await_sum(self, x: Tensor, inputs: list[Tensor], output: Tensor) -> None:
        """Record an elementwise product with a weight, which a later sum may turn into a contraction."""
        weight = next((other for other in inputs if other is not x), x)
        if is_matrix(weight) and self._provenance.parameters_of(weight):
            self._provenance.await_sum(output, elementwise_product(x, weight))

    def _record_result(
        self,
        name: str,
        arguments: Arguments,
        traced: TracedArguments,
        output: Tensor,
        activation_input: Tensor | None,
    ) -> None:
        origin, alone = traced[0][1], len(traced) == 1
        activation = torch_ops.activation_of_call(name, arguments)
        if name in torch_ops.NORMS:
            self._norm(torch_ops.NORMS[name], origin, output)
        elif activation is not None and alone:
            self._activate(origin, activation, activation_input, output)
        elif name in torch_ops.RESHAPES:
            if name in torch_ops.TRANSPOSITIONS and origin.use is not None and not origin.activated:
                origin.use.transpose_output(output)
            self._provenance.record(output, origin)
        elif name in torch_ops.SUMS and alone:
            self._add_constant(name, arguments, traced[0], output)
        elif name in torch_ops.SUMS:
            self._add_branch(traced, output)
        elif name in torch_ops.SCALINGS and not alone:
            self._gate(traced, output)
        elif (factor := torch_ops.constant_factor(name, arguments)) is not None and not self._has_parts(
            arguments
        ):
            self._provenance.record(output, origin.scaled(factor))
        elif name in torch_ops.PASSES or name in torch_ops.SCALINGS:
            self._provenance.record(output, replace(origin, straight=False))
        else:
            self._merge(name, traced, output)

    def _merge(self, name: str, traced: TracedArguments, output: Tensor) -> None:
        """Record the output of a function of which only the origins of its arguments are known."""
        is_linear = name in torch_ops.LINEAR or (name in torch_ops.PRODUCTS and len(traced) == 1)
        function = None if is_linear else name
        mixes = name in torch_ops.MIXTURES and (len(traced) > 1 or name == "softmax")
        self._provenance.record(
            output, merge_origins((origin for _, origin in traced), function, mixes=mixes)
        )

    def _record_unseen(self, name: str, inputs: Iterable[Tensor], why: str = "") -> None:
        """Record parameters in a call that combines them with the input in an unsupported way."""
        why = why or f"{name} uses it, which is not a weight layer that initbench supports"
        if name in _LOOK_UPS:
            why = "an embedding looks rows up and sums nothing"
        moves = torch_ops.SUMS | torch_ops.LINEAR | torch_ops.RESHAPES | {"prelu"}
        harmless = name in torch_ops.NORMS or name in moves  # a shift, or a token
        for x in inputs:
            is_vector = x.ndim < 2 or (name in torch_ops.SCALINGS and not is_matrix(x))
            for part in self._provenance.parameters_of(x):
                if not is_vector and not harmless:
                    self._found.unseen.setdefault(part, why)
                self._seen.add(part)
                if name in _LOOK_UPS:
                    self._looked_up.add(part)

    def _record_use(self, operation: str, m: WeightMatmul, output: Tensor) -> None:
        use = self._new_use(operation, m, output, self._provenance.origin(m.x) or INPUT)
        self._record_output(use, output)

    def _new_use(self, operation: str, m: WeightMatmul, output: Tensor, origin: TensorOrigin) -> WeightUse:
        self._seen.update((*m.parts, *self._provenance.parameters_of(m.bias)))
        name = self._layer_name(m.parts)
        self._times[name] = self._times.get(name, 0) + 1
        source = self._source(origin, m.x)
        varies = varies_between_samples(m.x)
        use = WeightUse(
            index=len(self._found.uses) + 1,
            name=name,
            operation=operation,
            factor=m.factor,
            bias=m.bias,
            fan_in=m.fan_in,
            fan_out=m.fan_out,
            units=output.shape[m.axis] if m.contraction is None else m.contraction.units,
            axis=m.axis,
            output_shape=tuple(output.shape),
            parts=m.parts,
            groups=m.groups,
            transposed=m.transposed,
            contraction=m.contraction,
            source=source,
            below=in_order(origin.frontier),
            from_input=origin.straight and origin.use is None and origin.scale == 1.0,
            use_count=self._times[name],
            was_constant=not varies and not origin.has_varied,
        )
        self._found.uses.append(use)
        self._observer.layer_input(use, m.x)
        return use

    def _source(self, origin: TensorOrigin, x: Tensor) -> WeightUse | None:
        """Return the use whose activation (or output, if it has none) x is, and mark all sources of x.

        An unknown nonlinear function of a single use counts as the activation of that use.
        """
        for use in origin.frontier:
            use.feeds = True
        single = origin.only_use or origin.both_directions
        if single is not None and not single.joins_residual:
            single.leads_on = True
            if single.activation is None and origin.functions:
                single.activation = NamedActivation(f"a custom function ({', '.join(origin.functions[:2])})")
                self._observer.activation(single, None, x)
                return single
        self._take_factor(origin, x)
        is_whole = origin.straight and (origin.activated or origin.scale == 1.0)
        return origin.use if is_whole else None

    def _take_factor(self, origin: TensorOrigin, x: Tensor) -> None:
        """Include a constant factor and shift after an activation in it, once the result feeds a weight.

        If several weights take the result, the first of them has done so.
        """
        use = origin.use
        if use is None or origin.activation is None or use.activation is not origin.activation:
            return
        if origin.scale == 1.0 and origin.shift == 0.0:
            return
        use.activation = use.activation.scaled(output_scale=origin.scale, output_shift=origin.shift)
        if (
            origin.straight
            and origin.activation_input is not None
            and origin.activation_input.shape == x.shape
        ):
            self._observer.activation(use, origin.activation_input, x)

    def _layer_name(self, parts: tuple[str, ...]) -> str:
        if len(parts) == 1:
            layer, computed, _ = parts[0].partition(".parametrizations.")
            return layer if computed else layer.removesuffix("_orig").removesuffix(".weight")
        return next((name for name, _ in self._modules[::-1] if name), "+".join(parts) or "computed")

    def _record_output(self, use: WeightUse, output: Tensor) -> None:
        """Record the output of a weight, of the added bias, or of the norm layer after it."""
        origin = TensorOrigin(use, frontier=frozenset([use]), has_varied=not use.was_constant)
        self._provenance.record(output, origin)
        if use.norm is None:
            self._bare_outputs.add(id(output))
        self._observer.pre_activation(use, output)

    def _norm(self, kind: str, origin: TensorOrigin, output: Tensor) -> None:
        use = origin.use
        if use is None or origin.activated or not origin.straight or use.norm is not None:
            self._provenance.record(output, merge_origins([origin]))
            return
        use.norm = kind
        self._record_output(use, output)

    def _add_constant(
        self, name: str, arguments: Arguments, traced: tuple[Tensor, TensorOrigin], output: Tensor
    ) -> None:
        """Record a sum with an input-independent tensor, such as a bias directly after its weight."""
        (x, origin), others = traced, list(tensors_in(arguments.values()))
        shift = torch_ops.constant_shift(name, arguments)
        is_fixed = not self._has_parts(arguments)
        if origin.activation is not None and shift is not None and is_fixed:
            signed = origin.scaled(-1.0) if name in torch_ops.REVERSED else origin
            self._provenance.record(output, replace(signed, shift=signed.shift + shift))
            return
        bias = next(
            (other for other in others if other is not x and self._provenance.parameters_of(other)), None
        )
        use = origin.use
        is_behind = use is not None and not origin.activated and origin.straight and origin.scale == 1.0
        is_behind = is_behind and name not in torch_ops.REVERSED
        if bias is None or use is None or not is_behind or use.bias is not None:
            self._provenance.record(output, replace(origin, straight=False))
            return
        use.bias = bias
        self._record_output(use, output)

    def _activate(
        self,
        origin: TensorOrigin,
        activation: NamedActivation,
        activation_input: Tensor | None,
        output: Tensor,
    ) -> None:
        """Record an activation of the output of a use, or of its activation."""
        use = origin.use
        if use is None:
            self._provenance.record(output, merge_origins([origin], activation.label))
        elif origin.activated and use.activation is not None:
            inner = use.activation.scaled(output_scale=origin.scale, output_shift=origin.shift)
            self._set_activation(
                origin, torch_ops.chain_activations(inner, activation), origin.activation_input, output
            )
        elif use.activation is None:
            unscaled = (
                activation_input
                if activation_input is None or origin.scale == 1.0
                else activation_input / origin.scale
            )
            self._set_activation(origin, activation.scaled(input_scale=origin.scale), unscaled, output)
        else:  # a second branch: the layer's activation is the first
            self._provenance.record(output, merge_origins([origin], activation.label))

    def _set_activation(
        self,
        origin: TensorOrigin,
        activation: NamedActivation,
        activation_input: Tensor | None,
        output: Tensor,
    ) -> None:
        use = origin.use
        assert use is not None
        use.activation = activation
        self._observer.activation(use, activation_input, output)
        self._provenance.record(
            output,
            replace(
                origin,
                activated=True,
                scale=1.0,
                shift=0.0,
                activation=activation,
                activation_input=activation_input,
            ),
        )

    def _has_parts(self, arguments: Arguments) -> bool:
        """Whether an argument is computed from parameters, so that it is learned and not a constant."""
        return any(self._provenance.parameters_of(x) for x in tensors_in(arguments.values()))

    def _add_branch(self, traced: TracedArguments, output: Tensor) -> None:
        """Record the sum of a residual branch, the longer chain of weights, and its skip connection."""
        ends = [(x, o) for x, o in traced if o.use is not None and not o.activated]
        ends = [end for end in ends if end[1].use and not end[1].use.joins_residual] or ends
        together = merge_origins(origin for _, origin in traced)
        is_written_out = len(together.frontier) == 1 and all(o.frontier for _, o in traced)
        if not ends or is_written_out:
            self._merge("add", traced, output)
            return
        branch, origin = max(
            ends, key=lambda end: (end[1].use.chain_length, end[1].use.index) if end[1].use else (0, 0)
        )
        skip = next((x for x, _ in traced if x is not branch), branch)
        assert origin.use is not None
        skip_origin = next((o for x, o in traced if x is skip), origin)
        first = self._branch_start(origin.use, skip_origin)
        self._norm_of_branch(skip, skip_origin)
        addition = ResidualAddition(origin.use, *mean_squares(branch, skip, output), first)
        self._found.additions.append(addition)
        self._observer.residual_sum(addition, output)
        origin.use.joins_residual = True
        self._provenance.record(output, replace(together, use=origin.use))

    def _norm_of_branch(self, skip: Tensor, skip_origin: TensorOrigin) -> None:
        """Withdraw the norm of a layer whose bare output is the skip connection; it belongs to the branch."""
        use = skip_origin.only_use
        if use is not None and use.norm is not None and id(skip) in self._bare_outputs:
            use.norm = None
            self._observer.without_norm(use)

    def _branch_start(self, last: WeightUse, skip_origin: TensorOrigin) -> int:
        """Return the index of the first use of the branch that ends in `last`.

        The branch begins after the last sum, or after the weights whose output is the skip connection.
        """
        last_sum = self._found.additions[-1].use.index if self._found.additions else 0
        fork = max((use.index for use in skip_origin.frontier if use.index < last.index), default=0)
        return max(last_sum, fork) + 1

    def _gate(self, traced: TracedArguments, output: Tensor) -> None:
        """Record x·g(x) as an activation of x, and other products of input-dependent tensors as unknown."""
        gates = [origin for _, origin in traced if origin.activated]
        plain = [(x, origin) for x, origin in traced if not origin.activated]
        if not gates or not plain or gates[0].use is None or plain[0][1].use is not gates[0].use:
            self._merge("mul", traced, output)
            return
        gate = gates[0]
        assert gate.use is not None and gate.use.activation is not None
        x = plain[0][0].detach() / plain[0][1].scale
        by = gate.use.activation.scaled(output_shift=gate.shift / gate.scale)
        self._set_activation(
            gate,
            torch_ops.gated_activation(by).scaled(output_scale=plain[0][1].scale * gate.scale),
            x,
            output,
        )


def _without_dispatch(function: types.FunctionType) -> Callable[..., Any]:
    """Return a copy of a function that skips its own dispatch, so that the calls inside are dispatched."""
    scope = {**function.__globals__, "has_torch_function": lambda _arguments: False}
    twin = types.FunctionType(function.__code__, scope, function.__name__, function.__defaults__)
    twin.__kwdefaults__ = function.__kwdefaults__
    return twin


def _comes_with_torch(module: nn.Module) -> bool:
    """Whether the module belongs to torch or torchvision, whose functions are supported."""
    return type(module).__module__.startswith(("torch.", "torchvision."))


def _is_bare(module: nn.Module) -> bool:
    """Whether the module has neither submodules nor parameters."""
    return next(module.children(), None) is None and next(module.parameters(), None) is None
