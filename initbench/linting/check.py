"""What a lint check is: one kind of mistake in how a net is initialised, found before it is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from initbench.components.activation import BoundActivation
from initbench.models.initialise import LayerRule
from initbench.probing.own import Examined
from initbench.registry import Entry, Registry
from initbench.trace.use import Use

Level = Literal["warning", "note"]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is looked at: nets that were drawn alike, and what was declared of them."""

    nets: Sequence[Examined]
    """One for each seed."""
    module: nn.Module
    """The first of them."""
    activation: BoundActivation
    """The most frequent one."""
    declared: Mapping[str, LayerRule]
    """By layer, the rule that it was to be drawn by; none where nothing was declared."""
    config: bool
    """Whether a config made it, so that a remedy can be a key."""

    @property
    def uses(self) -> Sequence[Use]:
        """The weights of the first net, in the order of the pass."""
        return self.nets[0].found.uses

    @property
    def heads(self) -> Sequence[Use]:
        """Uses that put out what the net puts out, those of its main output first."""
        return self.nets[0].found.heads or self.uses[-1:]

    def drawn(self, place: int) -> list[Use]:
        """The same layer in every net."""
        return [net.found.uses[place] for net in self.nets]

    def layers(self) -> Iterator[tuple[int, Use]]:
        """Every weight once, at its first use."""
        return ((place, use) for place, use in enumerate(self.uses) if use.again == 1)

    def either(self, key: str, words: str) -> str:
        """A remedy: a key for a config, words for a module of the user's own."""
        return key if self.config else words


@dataclass(frozen=True)
class Remark:
    """Something that a check has found: where, what, and what to do."""

    sentence: str
    fix: str
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class LintFinding:
    """A remark under its check's code."""

    code: str
    level: Level
    remark: Remark

    def as_data(self) -> dict[str, Any]:
        """The finding as printed with --json."""
        return {
            "code": self.code,
            "level": self.level,
            "layers": list(self.remark.layers),
            "sentence": self.remark.sentence,
            "fix": self.remark.fix,
        }


@dataclass(frozen=True, kw_only=True)
class Check(Entry):
    """`look(subject)` gives a remark for each thing it finds. The name is the code of its findings."""

    level: Level
    """`warning`: the net learns worse for it, or not as declared; `note`: a setting that has no effect."""
    limit: str
    """The threshold in words and units: what is measured has to go beyond it for a remark."""
    cure: str
    """What to do about it; a remark's `fix` says the same of the layers at hand."""
    look: Callable[[Subject], Iterator[Remark]]
    needs_uses: bool = True
    """Whether it can look only where a weight was seen."""


CHECKS: Registry[Check] = Registry("lint code", "initbench.linting.checks")


def lint(subject: Subject) -> list[LintFinding]:
    """All findings, warnings first, in the order of the checks."""
    found = [
        LintFinding(check.name, check.level, remark)
        for check in CHECKS
        if subject.uses or not check.needs_uses
        for remark in check.look(subject)
    ]
    return sorted(found, key=lambda finding: finding.level != "warning")


def named(layers: Sequence[str]) -> str:
    """Up to three layers by name, and how many more."""
    more = f" and {len(layers) - 3} more" if len(layers) > 3 else ""
    return ", ".join(layers[:3]) + more
