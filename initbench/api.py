"""The Python functions `initbench.probe` and `initbench.lint`, which examine a user's module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import StringIO
from typing import Any

from rich.console import Console
from torch import Tensor, nn

from initbench.diagnostics.lint_report import LintReport, lint_nets
from initbench.diagnostics.net_source import ModuleNets
from initbench.diagnostics.survey import Survey, survey
from initbench.linting.rule import LintFinding
from initbench.models.init_weights import init_options
from initbench.probing.finding import Finding
from initbench.probing.model_inputs import split_batch
from initbench.render.lint_tables import lint_document, print_lint
from initbench.render.survey_rows import survey_document
from initbench.render.survey_tables import print_survey

Batch = Tensor | tuple[Any, ...] | Mapping[str, Any]
_WIDTH = 160


@dataclass(frozen=True)
class Probe:
    """Result of probing a module in one pass; `print` renders it like `initbench probe`."""

    survey: Survey

    @property
    def findings(self) -> list[Finding]:
        """Problems in order of precedence; empty for a healthy net."""
        return [finding for finding, _ in self.survey.findings]

    @property
    def healthy(self) -> bool:
        """Whether every weight was observed and no warning was raised; notes are mostly harmless."""
        is_sound = not any(finding.level == "warning" for finding in self.findings)
        return is_sound and self.survey.coverage.is_complete

    def as_data(self) -> dict[str, Any]:
        """Return the document that `initbench probe --json` prints."""
        return survey_document(self.survey)

    def __str__(self) -> str:
        return _render_to_text(lambda console: print_survey(console, self.survey, all_layers=True))


@dataclass(frozen=True)
class Lint:
    """Mistakes in a module's init; `print` renders them like `initbench lint`."""

    linted: LintReport

    @property
    def findings(self) -> list[LintFinding]:
        """Mistakes, warnings first."""
        return self.linted.findings

    def as_data(self) -> dict[str, Any]:
        """Return the document that `initbench lint --json` prints."""
        return lint_document(self.linted)

    def __str__(self) -> str:
        return _render_to_text(lambda console: print_lint(console, self.linted))


def probe(
    module: nn.Module,
    batch: Batch,
    loss: Callable[..., Tensor] | None = None,
    *,
    chance: float | None = None,
) -> Probe:
    """Measure activations and gradients of an untrained module layer by layer, and diagnose problems.

    The pass runs in training mode. It preserves the module's parameters, buffers, modes, hooks and attributes
    and the states of the random generators.

    Args:
        module: The network.
        batch: Inputs x of shape (B, …), or (x, y) with labels y. If forward takes several arguments, x is a
            tuple of them, or a mapping by their names, whose entry `labels` is y. A tuple without labels is
            accepted if forward requires as many arguments as the tuple has entries.
        loss: A function `loss(output)` or `loss(output, y)` that returns the mean over the batch. `output` is
            the return value of the module: a tensor, tuple, mapping or object. If the loss fails on it or
            does not return a single number, it is called with the main output alone: the one called `logits`
            or `out`, otherwise the first with a gradient. The default loss is the cross-entropy for an output
            of shape (B, C), (B, T, V) or (B, C, H, W) and integer labels for all axes but the class axis
            (random labels if none are given); binary cross-entropy for labels 0 and 1; otherwise the mean
            squared error to targets of the output's shape, or to noise.
        chance: Loss of a net that predicts at chance level. It is determined automatically for a
            cross-entropy, passed as `loss` or not.

    Raises:
        UsageError: If the module cannot run on the batch or has no weight layer that the pass uses.
    """
    inputs, y = split_batch(batch, module)
    name, words = type(module).__name__, f"given {inputs.words}"
    nets = ModuleNets([module], inputs, name, [0], batch=words, y=y, loss=loss, chance=chance)
    return Probe(survey(nets))


def lint(
    module: nn.Module,
    batch: Batch,
    loss: Callable[..., Tensor] | None = None,
    *,
    scheme: str | None = None,
    gain: float | str | None = None,
    chance: float | None = None,
) -> Lint:
    """Check a module's init for mistakes; docs/lint.md lists the codes.

    The pass preserves the module, like that of `probe`.

    Args:
        module: The network.
        batch: As for `probe`.
        loss: As for `probe`.
        scheme: Init scheme that all weights are meant to have; each weight is compared with it.
        gain: Gain of the scheme.
        chance: As for `probe`.

    Raises:
        UsageError: If the module cannot run on the batch or has no weight layer that the pass uses.
    """
    inputs, y = split_batch(batch, module)
    declared = None if scheme is None else init_options("lint", scheme, {}, gain, None)
    name = type(module).__name__
    nets = ModuleNets([module], inputs, name, [0], y=y, loss=loss, chance=chance, declared=declared)
    return Lint(lint_nets(nets))


def _render_to_text(show: Callable[[Console], None]) -> str:
    text = StringIO()
    show(Console(file=text, width=_WIDTH, markup=False, emoji=False, highlight=False, color_system=None))
    return text.getvalue().rstrip("\n")
