"""Lint rules: each one detects one kind of mistake in the initialisation of a net before training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import nn

from initbench.components.activation import BoundActivation
from initbench.models.init_weights import LayerRule
from initbench.probing.finding import Advice, AdviceCheck
from initbench.probing.module_probe import ModuleProbe
from initbench.registry import Registry, RegistryEntry
from initbench.trace.weight_use import WeightUse

Level = Literal["warning", "note"]


@dataclass(frozen=True, kw_only=True)
class LintTarget:
    """Nets to check, which were drawn in the same way, and what was declared about them."""

    nets: Sequence[ModuleProbe]
    """Probes of the nets, one for each seed."""
    module: nn.Module
    """Module of the first net."""
    activation: BoundActivation
    """Most frequent activation."""
    declared: Mapping[str, LayerRule]
    """Rules that the layers should be drawn by, by name of the layer; empty if nothing was declared."""

    branch_starts: tuple[str, ...] = ()
    """Changes, as key=value words, that start residual branches in another way."""
    ways: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Changes, as key=value words, that apply to one code only, by code."""
    phrase: Callable[[str], str] = str
    """Function that formats key=value words for the user."""

    @property
    def uses(self) -> Sequence[WeightUse]:
        """Weight uses of the first net, in the order of the pass."""
        return self.nets[0].trace.uses

    @property
    def heads(self) -> Sequence[WeightUse]:
        """Weight uses that produce the outputs of the first net, main output first."""
        return self.nets[0].trace.heads or self.uses[-1:]

    def layer_in_nets(self, index: int) -> list[WeightUse]:
        """Return the use with this index from every net."""
        return [net.trace.uses[index] for net in self.nets]

    def first_uses(self) -> Iterator[tuple[int, WeightUse]]:
        """Return the index and the first use of every weight."""
        return ((index, use) for index, use in enumerate(self.uses) if use.use_count == 1)

    @property
    def random_inits(self) -> tuple[str, ...]:
        """Changes that draw all weights at random with the scale that suits the activation."""
        phi = self.activation
        is_auto = phi.entry.elementwise and not math.isclose(
            phi.kaiming_gain, phi.preserving_gain, rel_tol=1e-6
        )
        return ("init.scheme=lecun_normal init.gain=auto",) if is_auto else ("init.scheme=kaiming_normal",)


@dataclass(frozen=True)
class LintMessage:
    """One problem that a rule has found: the layers, a description, and a fix."""

    sentence: str
    fix: str
    """What to look for; the text does not promise a cure."""
    layers: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    """Changes, as key=value words, that are tried out and suggested if they cure the problem."""
    level: Level | None = None
    """Level of this finding; None for the level of its rule."""


@dataclass(frozen=True)
class LintFinding:
    """A message with the code of its rule, and its level."""

    code: str
    level: Level
    message: LintMessage
    advice: tuple[Advice, ...] = ()
    """Changes that cured the problem in a trial."""

    @property
    def fix(self) -> str:
        """Fix as printed: the changes that cure the problem, or else what to look for."""
        if not self.advice:
            return self.message.fix
        return f"Try {', or '.join(advice.words for advice in self.advice)}."

    def as_data(self) -> dict[str, Any]:
        """Return the finding as printed with --json."""
        return {
            "code": self.code,
            "level": self.level,
            "layers": list(self.message.layers),
            "sentence": self.message.sentence,
            "fix": self.fix,
            "advice": [advice.as_data() for advice in self.advice],
        }


@dataclass(frozen=True, kw_only=True)
class LintRule(RegistryEntry):
    """A rule, whose name is the code of its findings; `look(target)` yields one message per problem."""

    level: Level
    """`warning` if the net learns worse or not as declared; `note` for a setting without effect."""
    limit: str
    """Threshold in words, with its unit, beyond which the rule reports a problem."""
    cure: str
    """Fix in general terms; the `fix` of a message is about specific layers."""
    look: Callable[[LintTarget], Iterator[LintMessage]]
    needs_uses: bool = True
    """Whether the rule applies only to nets with at least one traced weight."""


LINT_RULES: Registry[LintRule] = Registry("lint code", "initbench.linting.rules", group="lint_rules")


def lint(target: LintTarget) -> list[LintFinding]:
    """Return all findings without advice, warnings first, in the order of the rules."""
    findings = [
        LintFinding(rule.name, message.level or rule.level, message)
        for rule in LINT_RULES
        if target.uses or not rule.needs_uses
        for message in rule.look(target)
    ]
    return sorted(findings, key=lambda finding: finding.level != "warning")


def with_advice(
    finding: LintFinding, check: Callable[[str, str], AdviceCheck | None], target: LintTarget
) -> LintFinding:
    """Return the finding with those changes of its message that cure it.

    Args:
        finding: The finding.
        check: A function of a code and key=value words that returns the evidence for a cure, or None.
        target: The nets of the finding.
    """
    tried = [(words, check(finding.code, words)) for words in finding.message.changes]
    advice = [Advice(target.phrase(words), words, checked) for words, checked in tried if checked is not None]
    return replace(finding, advice=tuple(advice))


def join_names(layers: Sequence[str]) -> str:
    """Return the first three names and the number of further ones, as text."""
    more = f" and {len(layers) - 3} more" if len(layers) > 3 else ""
    return ", ".join(layers[:3]) + more
