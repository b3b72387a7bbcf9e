"""What a lint check is: one kind of mistake in how a net is initialised, found before it is trained."""

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
    """What is looked at: nets that were drawn alike, and what was declared of them."""

    nets: Sequence[ModuleProbe]
    """One for each seed."""
    module: nn.Module
    """The first of them."""
    activation: BoundActivation
    """The most frequent one."""
    declared: Mapping[str, LayerRule]
    """By layer, the rule that it was to be drawn by; none where nothing was declared."""

    branch_starts: tuple[str, ...] = ()
    """Words for other starts of residual branches."""
    ways: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By code, words for changes that belong to this kind of finding alone."""
    phrase: Callable[[str], str] = str
    """How key=value words are put to the user."""

    @property
    def uses(self) -> Sequence[WeightUse]:
        """The weights of the first net, in the order of the pass."""
        return self.nets[0].trace.uses

    @property
    def heads(self) -> Sequence[WeightUse]:
        """Uses that put out what the net puts out, those of its main output first."""
        return self.nets[0].trace.heads or self.uses[-1:]

    def layer_in_nets(self, index: int) -> list[WeightUse]:
        """The same layer in every net."""
        return [net.trace.uses[index] for net in self.nets]

    def first_uses(self) -> Iterator[tuple[int, WeightUse]]:
        """Every weight once, at its first use."""
        return ((index, use) for index, use in enumerate(self.uses) if use.use_count == 1)

    @property
    def random_inits(self) -> tuple[str, ...]:
        """Return the change that draws all weights at random, at the scale that the activation asks for."""
        phi = self.activation
        is_auto = phi.entry.elementwise and not math.isclose(
            phi.kaiming_gain, phi.preserving_gain, rel_tol=1e-6
        )
        return ("init.scheme=lecun_normal init.gain=auto",) if is_auto else ("init.scheme=kaiming_normal",)


@dataclass(frozen=True)
class LintMessage:
    """Something that a check has found: where, what, and what to do."""

    sentence: str
    fix: str
    """What to look for; nothing that promises a cure."""
    layers: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    """Changes in key=value words, which are tried and named where they cure."""


@dataclass(frozen=True)
class LintFinding:
    """A remark under its check's code."""

    code: str
    level: Level
    message: LintMessage
    advice: tuple[Advice, ...] = ()
    """Changes that were seen to cure it."""

    @property
    def fix(self) -> str:
        """Return what to do, as printed: the changes that cure it, and else what to look for."""
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
    """`look(subject)` gives a remark for each thing it finds. The name is the code of its findings."""

    level: Level
    """`warning`: the net learns worse for it, or not as declared; `note`: a setting that has no effect."""
    limit: str
    """The threshold in words and units: what is measured has to go beyond it for a remark."""
    cure: str
    """What to do about it; a remark's `fix` says the same of the layers at hand."""
    look: Callable[[LintTarget], Iterator[LintMessage]]
    needs_uses: bool = True
    """Whether it can look only where a weight was seen."""


LINT_RULES: Registry[LintRule] = Registry("lint code", "initbench.linting.rules")


def lint(target: LintTarget) -> list[LintFinding]:
    """Return all findings without advice, warnings first, in the order of the checks."""
    findings = [
        LintFinding(rule.name, rule.level, message)
        for rule in LINT_RULES
        if target.uses or not rule.needs_uses
        for message in rule.look(target)
    ]
    return sorted(findings, key=lambda finding: finding.level != "warning")


def with_advice(
    finding: LintFinding, check: Callable[[str, str], AdviceCheck | None], target: LintTarget
) -> LintFinding:
    """Return the finding with the changes that cure it, of those that its remark names.

    check(code, words): what shows that the words cure it; None where they do not.
    """
    tried = [(words, check(finding.code, words)) for words in finding.message.changes]
    advice = [Advice(target.phrase(words), words, checked) for words, checked in tried if checked is not None]
    return replace(finding, advice=tuple(advice))


def join_names(layers: Sequence[str]) -> str:
    """Up to three layers by name, and how many more."""
    more = f" and {len(layers) - 3} more" if len(layers) > 3 else ""
    return ", ".join(layers[:3]) + more
