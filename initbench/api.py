"""`initbench.probe` and `initbench.lint`: a module of the user's own, in Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import StringIO
from typing import Any

from rich.console import Console
from torch import Tensor, nn

from initbench.diagnostics.lint_report import LintReport, lint_own
from initbench.diagnostics.module_survey import ModuleSurvey, survey_own
from initbench.linting.rule import LintFinding
from initbench.models.init_weights import init_options
from initbench.probing.finding import Finding
from initbench.probing.model_inputs import split_batch
from initbench.render.lint_tables import lint_document, print_lint
from initbench.render.module_survey_tables import own_document, print_own

Batch = Tensor | tuple[Any, ...] | Mapping[str, Any]
_WIDTH = 160


@dataclass(frozen=True)
class Probe:
    """What one pass shows of a module; `print` shows it as `initbench probe` does."""

    survey: ModuleSurvey

    @property
    def findings(self) -> list[Finding]:
        """What is wrong, in order of precedence; nothing for a healthy net."""
        return [finding for finding, _ in self.survey.findings]

    @property
    def healthy(self) -> bool:
        """Whether every weight was seen and nothing is wrong; notes say of things that mostly do no harm."""
        is_sound = not any(finding.level == "warning" for finding in self.findings)
        return is_sound and self.survey.coverage.is_complete

    def as_data(self) -> dict[str, Any]:
        """The document that `initbench probe --json` prints."""
        return own_document(self.survey)

    def __str__(self) -> str:
        return _render_to_text(lambda console: print_own(console, self.survey, all_layers=True))


@dataclass(frozen=True)
class Lint:
    """The mistakes that were found in a module's init; `print` shows them as `initbench lint` does."""

    linted: LintReport

    @property
    def findings(self) -> list[LintFinding]:
        """Warnings first."""
        return self.linted.findings

    def as_data(self) -> dict[str, Any]:
        """The document that `initbench lint --json` prints."""
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
    """Measure the signal and the gradient in a module before training, layer by layer, and say what is wrong.

    `batch` is x (B, …), or (x, y) with labels y. Where forward takes several arguments, x is a tuple of them,
    or a mapping by their names, whose entry `labels` is y; a tuple without labels will do as well where
    forward requires as many arguments as it has entries.

    `loss(output)` or `loss(output, y)` is a mean over the batch. `output` is what the module returns, be it a
    tensor, a tuple, a mapping or an object; a loss that fails with that, or gives no single number, gets the
    main output alone: the one called `logits` or `out`, else the first that has a gradient. Without `loss` it
    is the cross-entropy of an output (B, C), (B, T, V) or (B, C, H, W) with whole-number labels for all but
    the class axis (drawn at random where none are given), the binary one for 0 and 1, or the mean square to
    targets of the output's shape, or to noise. `chance` is what the loss is for a net that knows nothing; for
    a cross-entropy, given or not, it is found out. The pass runs in training mode.

    The module is left as it was found: parameters, buffers, modes, hooks, attributes and the random states.
    Raises UsageError for a module that cannot be run on the batch, or in which no weight layer is seen.
    """
    inputs, y = split_batch(batch, module)
    name, words = type(module).__name__, f"given {inputs.words}"
    survey = survey_own([module], inputs, y, loss=loss, chance=chance, model=name, batch=words, seeds=[0])
    return Probe(survey)


def lint(
    module: nn.Module,
    batch: Batch,
    loss: Callable[..., Tensor] | None = None,
    *,
    scheme: str | None = None,
    gain: float | str | None = None,
    chance: float | None = None,
) -> Lint:
    """Look for mistakes in a module's init; docs/lint.md has the codes.

    `batch`, `loss` and `chance` are those of `probe`. `scheme`, with its `gain`, is what all weights are
    meant to have: each is then held against it. The module is left as it was found. Raises UsageError as
    `probe` does.
    """
    inputs, y = split_batch(batch, module)
    declared = None if scheme is None else init_options("lint", scheme, {}, gain, None)
    name = type(module).__name__
    linted = lint_own(
        [module], inputs, y, loss=loss, chance=chance, target=name, seeds=[0], declared=declared
    )
    return Lint(linted)


def _render_to_text(show: Callable[[Console], None]) -> str:
    text = StringIO()
    show(Console(file=text, width=_WIDTH, markup=False, emoji=False, highlight=False, color_system=None))
    return text.getvalue().rstrip("\n")
