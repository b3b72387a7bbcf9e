"""initbench: which weight init, activation and norm layer lets this net learn, and why?"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from initbench.models.apply import apply_init as apply_init

__version__ = "0.1.0"
__all__ = ["__version__", "apply_init"]


def __getattr__(name: str) -> Any:
    """`apply_init` at its first use: it needs torch, which the command line mostly does not."""
    if name != "apply_init":
        raise AttributeError(f"module 'initbench' has no attribute {name!r}")
    from initbench.models.apply import apply_init

    return apply_init
