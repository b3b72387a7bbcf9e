"""LSTM, GRU and RNN computed step by step, so that each step can be measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from initbench.trace.torch_ops import Arguments

LAYERS = {"lstm": "lstm", "gru": "gru", "rnn_tanh": "rnn_tanh", "rnn_relu": "rnn_relu"}
"""Functions of torch that process whole sequences, with the cell that they repeat."""
CELLS = {f"{cell}_cell": cell for cell in LAYERS}
"""Functions of torch that compute one step, with their cell."""


@dataclass(frozen=True)
class CellWeights:
    """Weights of one cell, (gates · H, inputs) and (gates · H, H), biases, and an LSTM's projection."""

    from_input: Tensor
    from_state: Tensor
    input_bias: Tensor | None = None
    state_bias: Tensor | None = None
    projection: Tensor | None = None


@dataclass(frozen=True)
class Step:
    """Tensors of one step of a cell."""

    from_input: Tensor
    """W x + b, (B, gates · H)."""
    from_state: Tensor
    """W h + b, (B, gates · H)."""
    gates: dict[str, Tensor]
    """Pre-activation of each gate, (B, H), by the names of the activation and the gate."""
    state: Tensor
    """Output of the cell, (B, H)."""
    memory: Tensor | None
    """Cell state of an LSTM; None for other cells."""
    emitted: Tensor | None = None
    """Copy of the state that goes to the layer above, not to the next step; None if both are one tensor."""


StepCallback = Callable[[CellWeights, Tensor, Step], None]
"""Callback for each step, with the weights, the input of the step and its tensors."""


def cell_step(cell: str, x: Tensor, state: Tensor, memory: Tensor | None, weights: CellWeights) -> Step:
    """Compute one step of a cell as torch defines it, from x (B, inputs) and its state (B, H)."""
    from_input = F.linear(x, weights.from_input, weights.input_bias)
    from_state = F.linear(state, weights.from_state, weights.state_bias)
    if cell == "lstm":
        assert memory is not None
        enter, forget, content, leave = (from_input + from_state).chunk(4, 1)
        gates = {
            "sigmoid input": enter,
            "sigmoid forget": forget,
            "tanh cell": content,
            "sigmoid output": leave,
        }
        memory = forget.sigmoid() * memory + enter.sigmoid() * content.tanh()
        output = leave.sigmoid() * memory.tanh()
        if weights.projection is not None:
            output = F.linear(output, weights.projection)
        return Step(from_input, from_state, gates, output, memory)
    if cell == "gru":
        parts = [part.chunk(3, 1) for part in (from_input, from_state)]
        reset, update = parts[0][0] + parts[1][0], parts[0][1] + parts[1][1]
        content = parts[0][2] + reset.sigmoid() * parts[1][2]
        gates = {"sigmoid reset": reset, "sigmoid update": update, "tanh new": content}
        share = update.sigmoid()
        return Step(from_input, from_state, gates, (1.0 - share) * content.tanh() + share * state, None)
    total = from_input + from_state
    activation = "relu" if cell == "rnn_relu" else "tanh"
    return Step(from_input, from_state, {f"{activation} state": total}, getattr(total, activation)(), None)


def run_cell(cell: str, arguments: Arguments, on_step: StepCallback) -> Any:
    """Compute the result of torch's function of one step, and pass the step to `on_step`."""
    words = ("input", "hx", "w_ih", "w_hh", "b_ih", "b_hh")
    values: list[Any] = [arguments.get(position, arguments.get(word)) for position, word in enumerate(words)]
    x, hidden, *tensors = values
    state, memory = hidden if cell == "lstm" else (hidden, None)
    weights = CellWeights(*tensors)
    step = cell_step(cell, x, state, memory, weights)
    on_step(weights, x, step)
    return step.state if step.memory is None else (step.state, step.memory)


@dataclass(frozen=True)
class _Call:
    """Arguments of one of torch's functions of whole sequences."""

    steps: list[Tensor]
    """Input of each step, (B, inputs); B decreases from step to step in a packed sequence."""
    states: Tensor
    memories: Tensor | None
    weights: list[CellWeights]
    """Weights of each layer, and within a layer of each direction."""
    layers: int
    dropout: float
    is_training: bool
    is_packed: bool
    batch_first: bool


def run_layers(cell: str, arguments: Arguments, on_step: StepCallback) -> tuple[Tensor, ...]:
    """Compute the result of torch's function of whole sequences: the output and the last states.

    Steps are passed to `on_step` layer by layer, and within a layer direction by direction.
    """
    call = _parse_call(cell, arguments)
    directions = len(call.weights) // call.layers
    steps, states, memories = call.steps, [], []
    for layer in range(call.layers):
        outputs = []
        for direction in range(directions):
            index = layer * directions + direction
            memory = None if call.memories is None else call.memories[index]
            order = range(len(steps)) if direction == 0 else range(len(steps) - 1, -1, -1)
            direction_result = _run_direction(
                cell, steps, order, (call.states[index], memory), call.weights[index], on_step
            )
            outputs.append(direction_result[0])
            states.append(direction_result[1])
            memories.append(direction_result[2])
        steps = [torch.cat(parts, 1) for parts in zip(*outputs, strict=True)]
        if layer + 1 < call.layers and call.dropout and call.is_training:
            steps = [F.dropout(step, call.dropout) for step in steps]
    output = torch.cat(steps) if call.is_packed else torch.stack(steps, 1 if call.batch_first else 0)
    last = [torch.stack(states)]
    if call.memories is not None:
        last.append(torch.stack([memory for memory in memories if memory is not None]))
    return output, *last


def is_bidirectional(arguments: Arguments) -> bool:
    """Whether the arguments of one of torch's functions of whole sequences ask for both directions."""
    return bool(arguments[8] if _is_packed(arguments) else arguments[7])


def _is_packed(arguments: Mapping[Any, Any]) -> bool:
    """Whether the batch is a packed sequence, given as data and the batch size of each step."""
    return isinstance(arguments[1], Tensor) and isinstance(arguments[3], tuple | list)


def _run_direction(
    cell: str,
    steps: Sequence[Tensor],
    order: range,
    start: tuple[Tensor, Tensor | None],
    weights: CellWeights,
    on_step: StepCallback,
) -> tuple[list[Tensor], Tensor, Tensor | None]:
    """Return the output of each step in one direction, and the last states of every sample."""
    state, memory = start
    outputs: dict[int, Tensor] = {}
    for index in order:
        x = steps[index]
        rows = len(x)
        inner = None if memory is None else memory[:rows]
        step = cell_step(cell, x, state[:rows], inner, weights)
        emitted = step.state.clone()
        on_step(weights, x, replace(step, emitted=emitted))
        outputs[index] = emitted
        state = step.state if rows == len(state) else torch.cat([step.state, state[rows:]])
        if memory is not None and step.memory is not None:
            memory = step.memory if rows == len(memory) else torch.cat([step.memory, memory[rows:]])
    return [outputs[index] for index in range(len(steps))], state, memory


def _parse_call(cell: str, arguments: Arguments) -> _Call:
    values, is_packed = [arguments[position] for position in range(9)], _is_packed(arguments)
    if is_packed:
        data, sizes, hidden, flat, has_biases, layers, dropout, is_training, bidirectional = values
        steps, batch_first = list(data.split(sizes.tolist())), False
    else:
        x, hidden, flat, has_biases, layers, dropout, is_training, bidirectional, batch_first = values
        steps = list(x.unbind(1 if batch_first else 0))
    states, memories = hidden if cell == "lstm" else (hidden, None)
    count = layers * (2 if bidirectional else 1)
    size = len(flat) // count
    weights = [_cell_weights(flat[i * size : (i + 1) * size], has_biases) for i in range(count)]
    return _Call(steps, states, memories, weights, layers, dropout, is_training, is_packed, batch_first)


def _cell_weights(tensors: Sequence[Tensor], has_biases: bool) -> CellWeights:
    from_input, from_state, *others = tensors
    input_bias, state_bias = others[:2] if has_biases else (None, None)
    projection = others[2:] if has_biases else others
    return CellWeights(from_input, from_state, input_bias, state_bias, projection[0] if projection else None)
