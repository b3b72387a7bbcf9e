"""Key=value words of a config, as what they are for a user's own module."""

from __future__ import annotations

from initbench.components.activation import BoundActivation


def as_call(words: str, activation: BoundActivation) -> str:
    """`init.scheme=kaiming_normal` as a call of `apply_init`; other words as plain ones."""
    given = dict(word.split("=", 1) for word in words.split() if "=" in word)
    init = {key.removeprefix("init."): value for key, value in given.items() if key.startswith("init.")}
    said = [_apply_init(init, activation)] if init else []
    if "model.norm" in given:
        said.append(f"{given['model.norm']} norm before the activation")
    if "model.activation" in given:
        said.append(f"{given['model.activation']} as the activation")
    return " with ".join(said) or words


def _apply_init(init: dict[str, str], activation: BoundActivation) -> str:
    scheme = init.get("scheme", "kaiming_normal")
    arguments = [f'"{scheme}"']
    if init.get("gain", "null") != "null":
        gain = init["gain"]
        arguments.append(f'gain="{gain}"' if gain == "auto" else f"gain={gain}")
    if "bias" in init:
        arguments.append(f"bias={init['bias']}")
    if activation.entry.name != "relu":
        arguments.append(f'activation="{activation.entry.name}"')
    arguments += [f"{name}={_short(value)}" for name, value in activation.changed_options.items()]
    return f"initbench.apply_init(module, {', '.join(arguments)})"


def _short(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else repr(value)
