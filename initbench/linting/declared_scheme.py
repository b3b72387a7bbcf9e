"""Rules by which `apply_init` draws the weights of a module under a declared scheme."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import nn

from initbench.components.activation import BoundActivation, bound
from initbench.components.init_scheme import INITS, kaiming_gain
from initbench.errors import UsageError
from initbench.linting.weight_statistics import variance_of
from initbench.models.init_targets import InitTarget, by_traced_name, init_rules, init_targets, scheme_problem
from initbench.models.init_weights import InitOptions, LayerRule, applies_to, rule_for_fans
from initbench.trace.preserve_state import preserve_state
from initbench.trace.weight_use import WeightUse


def declared_rules(
    module: nn.Module, nets: Sequence[Sequence[WeightUse]], init: InitOptions, activation: BoundActivation
) -> dict[str, LayerRule]:
    """Return the rule that each layer's weight should be drawn by.

    `apply_init` cannot see the activation; the user passes it, with or without its options. Of the possible
    rules, this function therefore returns those that fit the weights best.

    Args:
        module: The module whose init was declared.
        nets: The weight uses of every net.
        init: The declared init.
        activation: The activation between the layers.

    Returns:
        The rule by name of the layer; empty if the scheme determines no scale that could be checked.

    Raises:
        UsageError: If the scheme cannot be applied to the module.
    """
    scheme = INITS[init.scheme.name]
    if scheme.edit is not None or scheme.calibrate is not None or scheme.needs.leaves_no_scale:
        return {}
    with preserve_state(module):
        targets = init_targets(module, init.scheme)
    activations = list(_possible_activations(activation, init))
    servable = [phi for phi in activations if scheme_problem(targets, init, phi) is None]
    if not servable:
        raise UsageError(f"lint: {scheme_problem(targets, init, activations[0])}")
    candidates = [_rules(module, targets, nets[0], init, phi) for phi in servable]
    return min(candidates, key=lambda rules: _misfits(rules, nets))


def _possible_activations(activation: BoundActivation, init: InitOptions) -> Iterator[BoundActivation]:
    """Yield the traced activation, the same without options, and the relu that kaiming schemes assume."""
    yield activation
    if activation.changed_options:
        yield activation.entry.bind(type(activation.options)())
    if init.gain is None and INITS[init.scheme.name].default_gain is kaiming_gain:
        yield bound("relu")


def _rules(
    module: nn.Module,
    targets: Sequence[InitTarget],
    uses: Sequence[WeightUse],
    init: InitOptions,
    activation: BoundActivation,
) -> dict[str, LayerRule]:
    drawn_by = zip(targets, init_rules(targets, init, activation), strict=True)
    rule_of_target = {target.name: rule for target, rule in drawn_by}
    by_name = by_traced_name(module, targets)
    layers = dict(module.named_modules())
    rules: dict[str, LayerRule] = {}
    for use in uses:
        if use.name in rules or use.is_recurrent:  # apply_init does not change recurrent weights
            continue
        target = by_name.get(use.name)
        if target is None:
            if use.name not in layers or applies_to(layers[use.name], init.scheme):
                fans = (use.fan_in, use.fan_out)
                rules[use.name] = rule_for_fans(init.scheme, init.gain, fans, activation, use.index)
        elif not target.is_scale_taken:
            rules[use.name] = rule_of_target[target.name]
    return rules


def _misfits(rules: Mapping[str, LayerRule], nets: Sequence[Sequence[WeightUse]]) -> int:
    """Return the number of weights whose variance differs from that of their rule."""
    misfits = 0
    for position, use in enumerate(nets[0]):
        rule = rules.get(use.name)
        if use.use_count == 1 and rule is not None and rule.sigma_w2 is not None:
            variance = variance_of([uses[position] for uses in nets])
            misfits += not variance.is_like(rule.sigma_w2 / rule.fan_in)
    return misfits
