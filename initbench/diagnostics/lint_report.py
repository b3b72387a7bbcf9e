"""Lint untrained nets, and try the fixes."""

from __future__ import annotations

from dataclasses import dataclass

from initbench.diagnostics.net_source import NetSource
from initbench.errors import UsageError
from initbench.linting.rule import LintFinding, LintTarget, lint, with_advice
from initbench.probing.checked_advice import TrialResult, Trials
from initbench.probing.coverage import Coverage
from initbench.torch_defaults import plain_defaults


@dataclass(frozen=True)
class LintReport:
    """The findings of a lint, with its target and coverage."""

    target: str
    """Name of the experiment, or of the source of the modules."""
    layers: int
    seeds: tuple[int, ...]
    samples: int
    findings: list[LintFinding]
    unseen: dict[str, str]
    """Parameters that no check covers, with the reason."""
    coverage: Coverage


@plain_defaults()
def lint_nets(nets: NetSource) -> LintReport:
    """Check nets before their first update for mistakes in their init."""
    target = nets.examine()
    trace, coverage = target.nets[0].trace, target.nets[0].coverage
    if not trace.uses and not trace.unseen:
        raise UsageError("no weight layer was seen in the pass: there is nothing to lint")
    findings = lint(target)
    trials = Trials(_judge(target), nets.attempt(target, _judge, range(len(target.nets))))
    advised = [with_advice(finding, trials, target) for finding in findings]
    samples = len(nets.inputs.main)
    return LintReport(nets.name, len(trace.uses), tuple(nets.seeds), samples, advised, trace.unseen, coverage)


def _judge(target: LintTarget) -> TrialResult:
    levels = {finding.code: finding.level for finding in lint(target)}
    return TrialResult([net.measurement for net in target.nets], levels)
