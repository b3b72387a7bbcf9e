"""Shared cases of the activation tests: every entry with its default options and with others."""

from __future__ import annotations

from initbench.components.activation import ACTIVATIONS, BoundActivation, bound
from initbench.testing import activations as checks
from initbench.testing.activations import CHANNELS
from initbench.testing.check import normal_draws as normal

__all__ = ["CHANNELS", "ELEMENTWISE", "MIXING", "NAMES", "default", "normal", "variants"]
NAMES = ACTIVATIONS.names()
ELEMENTWISE = [entry.name for entry in ACTIVATIONS if entry.elementwise]
MIXING = [entry.name for entry in ACTIVATIONS if not entry.elementwise]


def default(name: str) -> BoundActivation:
    return bound(name)


def variants(name: str) -> list[BoundActivation]:
    """Return the activation with its default options and, if it has options, with all of them changed."""
    found = checks.activation_variants(ACTIVATIONS[name])
    assert len(found) == 1 + (len(ACTIVATIONS[name].options.model_fields) > 1)
    assert all(other.options != found[0].options for other in found[1:])
    return found
