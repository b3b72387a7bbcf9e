"""Key=value words of a config, as what they are for a user's own module."""

from __future__ import annotations

from typing import Any

from initbench.components.activation import BoundActivation

_WORDS = {
    "residual=zero": "a start at 0 for the last weight of every residual branch, as in fixup and skipinit",
    "residual=scaled": "1/√N times the last weight of each of the N residual branches, as in residual_scaled",
    "head=zeros": "a start at 0 for the head",
    "head=small": "a tenth of the head's weights",
    "head=std0.02": "a standard deviation of 0.02 for the embedding that is the head as well",
    "input=global": "inputs scaled to mean 0 and variance 1",
    "input=per_feature": "inputs with every column scaled to mean 0 and variance 1",
}
"""Changes that are no init scheme, norm or activation."""


_RECURRENT = (
    "recurrent weights drawn orthogonal and input weights Xavier-uniform, gate by gate, with biases of 0 and"
    " of 1 for an LSTM's forget gate"
)


def as_call(words: str, activation: BoundActivation) -> str:
    """`init.scheme=kaiming_normal` as a call of `apply_init`; other words as plain ones."""
    given = dict(word.split("=", 1) for word in words.split() if "=" in word)
    init = {key.removeprefix("init."): value for key, value in given.items() if key.startswith("init.")}
    said = [_apply_init(init, activation)] if init else []
    if "model.norm" in given:
        said.append(f"{given['model.norm']} norm before the activation")
    if "model.activation" in given:
        said.append(f"{given['model.activation']} as the activation")
    said += [_WORDS[word] for word in words.split() if word in _WORDS]
    if "recurrent" in given:
        gain = float(given["recurrent"])
        said.append(_RECURRENT.replace("uniform", f"uniform times {gain:g}") if gain != 1.0 else _RECURRENT)
    return " with ".join(said) or words


def init_arguments(init: dict[str, str], activation: BoundActivation) -> dict[str, Any]:
    """The arguments of `apply_init` that stand for init.* keys, given without `init.`, and their values."""
    arguments: dict[str, Any] = {"scheme": init.get("scheme", "kaiming_normal")}
    if init.get("gain", "null") != "null":
        arguments["gain"] = "auto" if init["gain"] == "auto" else float(init["gain"])
    if "bias" in init:
        arguments["bias"] = float(init["bias"])
    if activation.entry.name != "relu":
        arguments["activation"] = activation.entry.name
    changed = activation.changed_options.items()
    return arguments | {
        name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in changed
    }


def _apply_init(init: dict[str, str], activation: BoundActivation) -> str:
    arguments = init_arguments(init, activation)
    scheme = arguments.pop("scheme")
    said = [f'"{scheme}"', *(f"{name}={_written(value)}" for name, value in arguments.items())]
    return f"initbench.apply_init(module, {', '.join(said)})"


def _written(value: object) -> str:
    return (
        f"{value:g}" if isinstance(value, float) else f'"{value}"' if isinstance(value, str) else repr(value)
    )
