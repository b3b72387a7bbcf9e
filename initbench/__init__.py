"""initbench: which weight init, activation and norm layer lets this net learn, and why?"""

TYPE_CHECKING = False  # typing's own is not imported: see __main__.py
if TYPE_CHECKING:
    from initbench.models.apply import apply_init as apply_init
    from initbench.report.public import lint as lint
    from initbench.report.public import probe as probe

__version__ = "0.1.0"
__all__ = ["__version__", "apply_init", "lint", "probe"]

_FROM = {
    "apply_init": "initbench.models.apply",
    "lint": "initbench.report.public",
    "probe": "initbench.report.public",
}


def __getattr__(name: str) -> object:
    """The functions at their first use: they need torch, which the command line mostly does not."""
    if name not in _FROM:
        raise AttributeError(f"module 'initbench' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_FROM[name]), name)
