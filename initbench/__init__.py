"""initbench: find out which weight init, activation and norm layer lets a net learn, and why."""

TYPE_CHECKING = False  # `typing` is not imported here: see __main__.py
if TYPE_CHECKING:
    from initbench.api import compare as compare
    from initbench.api import lint as lint
    from initbench.api import load_runs as load_runs
    from initbench.api import probe as probe
    from initbench.api import run as run
    from initbench.api import sweep as sweep
    from initbench.models.apply_init import apply_init as apply_init

__version__ = "0.1.0"
__all__ = ["__version__", "apply_init", "compare", "lint", "load_runs", "probe", "run", "sweep"]

_FROM = {
    "apply_init": "initbench.models.apply_init",
    "compare": "initbench.api",
    "lint": "initbench.api",
    "load_runs": "initbench.api",
    "probe": "initbench.api",
    "run": "initbench.api",
    "sweep": "initbench.api",
}


def __getattr__(name: str) -> object:
    """Import a public function at its first use: torch is slow to import, and few commands need it."""
    if name not in _FROM:
        raise AttributeError(f"module 'initbench' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_FROM[name]), name)
